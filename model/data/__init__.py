"""The data that training and evaluation read: domains, interactions, batches, candidates."""
