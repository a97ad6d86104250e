"""Artifacts and stores at a glance."""
