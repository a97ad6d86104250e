"""Raw log files to clean rows."""
