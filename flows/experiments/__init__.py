"""Experiments: a question, the runs that answer it, and how they compare."""
