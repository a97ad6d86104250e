"""One HTML file on a run."""
