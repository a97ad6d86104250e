"""What the training loop drives."""
