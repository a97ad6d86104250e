"""What training and evaluation look at."""
