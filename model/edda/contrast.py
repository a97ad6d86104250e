"""The contrastive loss of SimGCL (Yu et al., SIGIR 2022): a node's outputs under two draws of noise are alike.

Noise is added to every vector in every layer: of a given length, uniform in the vector's own orthant. The loss is the
softmax, over other nodes of the batch, of a node's first output with its own second one (InfoNCE), of cosines over a
temperature of 0.2; of the batch's users and of its positives apart.

Differs: the output is that of the backbone, which for LightGCN includes layer 0. Nodes are compared in groups of
at most 1,024; the released code compares the distinct ones of 2,048 rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_contracts.seeding import draw_key, generator
from model.edda.objectives import CosineSoftmax
from model.edda.propagation import Backbone, LayerNoise
from model.sparse.group_scores import GroupPattern, group_pattern, group_windows
from model.sparse.rows import Ints

_GROUP = 1024
"""Nodes that a node is compared with, itself among them."""

INFO_NCE = CosineSoftmax(0.2)


@dataclass(frozen=True)
class Contrast:
    """The contrastive loss of one batch.

    Attributes:
        weight: of the loss.
        patterns: which rows of the batch's first outputs, followed by its second outputs, are compared.
        length: of the noise of each layer.
        last_layer: weight of the last layer in the output.
        key: of the noise.
    """

    weight: float
    patterns: tuple[GroupPattern, ...]
    length: float
    last_layer: float
    key: int

    def noises(self, kind: int, width: int, columns: slice) -> tuple[LayerNoise, LayerNoise]:
        """The two draws for a table.

        Args:
            kind: number of the table in its step.
            width: its columns in all processes.
            columns: those of this process.
        """
        seeds = [(self.key + 2 * kind + view) % 2**63 for view in range(2)]
        first, second = (LayerNoise(self.length, self.last_layer, seed, width, columns) for seed in seeds)
        return first, second

    def to(self, device: torch.device) -> Contrast:
        """The loss on a device."""
        patterns = tuple(pattern.to(device) for pattern in self.patterns)
        return Contrast(self.weight, patterns, self.length, self.last_layer, self.key)


def build_contrast(
    anchors: Tensor, nodes: int, weights: tuple[float, float], backbone: Backbone, name: tuple[int, str, int, int]
) -> Contrast:
    """The contrastive loss of a batch.

    Args:
        anchors: (2, rows), where among its nodes the user and the positive of each row are.
        nodes: number of its nodes.
        weights: of the loss, and the length of the noise.
        backbone: the building block.
        name: of the batch: seed, domain, epoch, number.
    """
    draws = generator(name[0], "contrast", *name[1:])
    patterns = tuple(_compare(draws.permutation(np.unique(kind)), nodes) for kind in anchors.numpy())
    last_layer = backbone.factor(backbone.layers) / backbone.divisor
    key = int(draw_key(name[0], "noise", *name[1:]))
    return Contrast(weights[0], patterns, weights[1], last_layer, key)


def _compare(rows: Ints, nodes: int) -> GroupPattern:
    """Each node's first output with its second one, among the second ones of its group."""
    is_own = np.zeros((rows.size, min(_GROUP, rows.size)), np.bool_)
    for group, window in group_windows(rows.size, _GROUP):
        numbers = np.arange(group.start, group.stop)
        is_own[numbers, numbers - window.start] = True
    return group_pattern(np.stack([rows, rows + nodes, rows + nodes]), 2 * nodes, rows, is_own)
