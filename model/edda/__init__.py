"""The EDDA model: tables, propagation, losses and checkpoints."""
