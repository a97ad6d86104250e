"""Stores on object storage."""
