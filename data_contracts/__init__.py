"""What crosses a line between stages: contracts, artifacts, the store that keeps them, and the stages' settings."""
