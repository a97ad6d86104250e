"""InfoNCE of aligned pairs, in place of their distance: a pair's vectors are compared with those of other pairs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from data_contracts.seeding import generator
from model.edda.alignment import AlignmentBatch
from model.edda.contrast import INFO_NCE
from model.edda.model import Edda
from model.sparse.group_scores import GroupPattern, group_pattern, group_windows
from model.sparse.matrix import SpmmEngine, take_rows

_GROUP = 256
"""Pairs that are compared with each other."""
_CONTRASTED = 8_192
"""Pairs of two domains that are compared in an epoch, at most."""


def draw_pair_contrast(batch: AlignmentBatch, seed: int, epoch: int) -> GroupPattern:
    """Which mapped vectors of a batch, sources then targets, are compared in an epoch.

    Pairs are dealt into groups at random, and if there are many only some are; within a group each pair's source is
    compared with the targets of all pairs but those that have its source or its target, which are no negatives.
    """
    pairs = batch.difference.forward.indices.view(-1, 2).numpy(force=True)
    pairs = generator(seed, "pair contrast", batch.source, batch.target, epoch).permutation(pairs)[:_CONTRASTED]
    is_left_out = np.empty((len(pairs), min(_GROUP, len(pairs))), np.bool_)
    for group, window in group_windows(len(pairs), _GROUP):
        alike = pairs[group, None, :] == pairs[None, window, :]
        is_left_out[group] = alike.any(axis=2)
    sources, targets = pairs.T
    nodes = batch.source_rows.numel() + batch.target_rows.numel()
    return group_pattern(np.stack([sources, targets, targets]), nodes, sources, is_left_out)


def pair_contrast_loss(model: Edda, batch: AlignmentBatch, pattern: GroupPattern, multiply: SpmmEngine) -> Tensor:
    """The mean of -log softmax of a pair's cosine over those of its group (InfoNCE, temperature 0.2).

    Cosines are those of the pairs' mapped layer-0 intra vectors; only rows of aligned nodes are touched.
    """
    mapped = []
    for domain, rows in ((batch.source, batch.source_rows), (batch.target, batch.target_rows)):
        partial = linear(take_rows(model.intra[domain], rows), model.maps[domain])
        mapped.append(model.processes.all_reduce(partial))
    return INFO_NCE.loss(pattern, INFO_NCE.sums(pattern, torch.cat(mapped), multiply), None)
