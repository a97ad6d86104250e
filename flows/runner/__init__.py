"""A run's file to artifacts."""
