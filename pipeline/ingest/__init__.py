"""Clean rows to interactions and rejects."""
