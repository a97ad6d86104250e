"""Public data sets made logs, one file each."""
