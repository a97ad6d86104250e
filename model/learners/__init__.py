"""Models in training, as the training loop drives them."""
