"""Reach vectors to aligned pairs."""
