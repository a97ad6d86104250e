"""Public data sets: list, download and check them."""
