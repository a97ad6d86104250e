"""Metrics of models on held-out rows, and the fit of the blend on the validation split."""
