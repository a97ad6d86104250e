"""A folder of artifacts."""
