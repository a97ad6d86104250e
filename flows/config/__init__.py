"""A run's file."""
