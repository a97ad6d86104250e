"""Measuring models on held-out rows, and what is fitted on the validation split after training."""
