"""A filter between items that goes by aligned partners: who consumed j has a partner like a partner of who consumed i.

    S' = S + a B,   B = C C',   C = R' M R

R are the train histories of all users, each entry divided by the square roots of its row's and its column's degree, M
the similarities of partners in other domains, each row divided by its sum. So C[j, s] says how often partners of those
who consumed j consumed s, and B compares such rows. It is the graph filter between domains of CGSP (arXiv 2407.12374),
whose partners are the same person, with pairs of any similarity and over the union of all domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from flows.experiments.partner_evidence import Weighed
from model.evidence.domain_evidence import DomainEvidence, Histories
from model.evidence.neighbours import ItemNeighbours
from model.sparse.rows import Floats32
from pipeline.compute.rows import keep_largest_weights

_TOP = 100
"""Most entries of a row of C, and of B."""
_ROWS = 512
"""Rows of a product at a time."""


def bridge_filter(evidence: Sequence[DomainEvidence], partners: sp.csr_array, histories: Histories) -> Weighed:
    """Weights between items with the filter's beside them, which have the same sum at weight 1."""
    items = evidence[0].neighbours.indptr.size - 1
    bridge = bridge_weights(partners, histories, items)
    total = bridge.sum()

    def weigh(weight: float) -> Sequence[DomainEvidence]:
        if not total or not weight:
            return evidence
        known: dict[int, ItemNeighbours] = {}  # one of all domains, if walks go over the union
        for each in evidence:
            weights = each.neighbours.weights
            scale = np.float32(weight * weights.sum(dtype=np.float64) / total)
            if id(each.neighbours) not in known:
                known[id(each.neighbours)] = _add(each.neighbours, bridge * scale)
        return [replace(each, neighbours=known[id(each.neighbours)]) for each in evidence]

    return weigh


def bridge_weights(partners: sp.csr_array, histories: Histories, items: int) -> sp.csr_array:
    """B, cut to the largest entries of a row and without its diagonal: float32 [items, items] over all domains.

    Args:
        partners: float32 [users, users], similarities of each row's partners.
        histories: of all users.
        items: number of items over all domains.
    """
    shape = (histories.indptr.size - 1, items)
    rows = sp.csr_array((np.ones(histories.items.size, np.float32), histories.items, histories.indptr), shape=shape)
    degrees = np.sqrt(rows.sum(axis=1)), np.sqrt(rows.sum(axis=0))
    rows = _diagonal(degrees[0]) @ rows @ _diagonal(degrees[1])
    reached = _largest(rows.T.tocsr(), _diagonal(partners.sum(axis=1)) @ partners @ rows)
    return _largest(reached, reached.T.tocsr(), is_diagonal_kept=False)


def _diagonal(divisors: Floats32) -> sp.dia_array:
    """A matrix that divides rows or columns; those of 0 are 0."""
    inverse = np.divide(1.0, divisors, out=np.zeros(divisors.size, np.float32), where=divisors > 0)
    return sp.diags_array(inverse)


def _largest(left: sp.csr_array, right: sp.csr_array, is_diagonal_kept: bool = True) -> sp.csr_array:
    """A product of two matrices, cut to the largest entries of each row."""
    blocks = []
    for start in range(0, left.shape[0], _ROWS):
        block = (left[start : start + _ROWS] @ right).tocoo()
        if not is_diagonal_kept:
            others = block.col != block.row + start
            block = sp.coo_array((block.data[others], (block.row[others], block.col[others])), shape=block.shape)
        blocks.append(keep_largest_weights(block.tocsr(), _TOP))
    return sp.vstack(blocks, format="csr")


def _add(neighbours: ItemNeighbours, more: sp.csr_array) -> ItemNeighbours:
    items = neighbours.indptr.size - 1
    own = sp.csr_array((neighbours.weights, neighbours.neighbours, neighbours.indptr), shape=(items, items))
    sums = (own + more).tocsr()
    sums.sort_indices()
    return ItemNeighbours(sums.indptr.astype(np.int64), sums.indices.astype(np.int32), sums.data.astype(np.float32))
