"""The settings of every stage, beside the contracts."""
