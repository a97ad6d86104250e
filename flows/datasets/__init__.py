"""Public data sets: found, fetched, checked."""
