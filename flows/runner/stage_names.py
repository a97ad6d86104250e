"""The stages of a run by name. Apart from the table of stages, because `edda --help` must not import the contracts."""

from __future__ import annotations

STAGE_HELP = {
    "ingest": "Read the raw logs: interactions and rejects.",
    "graph": "Number users and items and build each domain's train graph.",
    "neighbours": "Find the items that three-step walks over all domains' train interactions tie each item to.",
    "walk": "Describe each user and item by the anchors that random walks reach.",
    "align": "Pair users and items of different domains that reach the same anchors.",
    "train": "Train a checkpoint per seed, under torchrun by several processes; continues where it was interrupted.",
    "blend": "Fit how much evidence from walks weighs beside the vectors, by domain.",
    "evaluate": "Measure the checkpoints on held-out interactions.",
    "export": "Write embeddings and recommendations with the logs' own ids.",
}
"""A stage's command → the first line of its help, in the order of a run."""
