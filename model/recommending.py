"""Recommend from a domain's vectors: best items, similar items, users who came after training. Arrays in and out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.catalogue import Catalogue, Floats32
from model.ragged import pick_rows
from model.world import Ints, Longs

_BLOCK_BYTES = 32 * 2**20
"""Scores in memory at once."""

Best = tuple[Ints, Floats32]
"""Numbers of items, best first, and their scores, both (rows, top); -1 and 0 where too few are left.

`top` is at most the number of the domain's items.
"""


def best_for_users(catalogue: Catalogue, users: Longs, top: int) -> Best:
    """The best items for trained users, their train items left out.

    Args:
        catalogue: the domain.
        users: numbers of users.
        top: items per user.

    Returns:
        Items and scores, dot products of final vectors; equal scores go by item id.
    """
    return best_items(catalogue, catalogue.users[users], pick_rows(catalogue.indptr, catalogue.known, users), top)


def best_items(catalogue: Catalogue, vectors: Floats32, left_out: tuple[Longs, Ints], top: int) -> Best:
    """The items with the largest dot products, exact, in blocks of rows.

    Args:
        catalogue: the domain.
        vectors: float32 (rows, width), users' vectors.
        left_out: for each row the items that are no answer, in compressed rows: indptr and items.
        top: items per row.
    """
    indptr, masked = left_out
    items, scores = _nothing(catalogue, len(vectors), top)
    height = block_height(len(catalogue.items))
    for start in range(0, len(vectors), height):
        block = vectors[start : start + height] @ catalogue.items.T
        for row, values in enumerate(block, start=start):
            values[masked[indptr[row] : indptr[row + 1]]] = -np.inf
            _fill(items[row], scores[row], values)
    return items, scores


def block_height(items: int) -> int:
    """Users whose scores of all items are in memory at once."""
    return max(1, _BLOCK_BYTES // (4 * max(items, 1)))


def similar_items(catalogue: Catalogue, items: Longs, top: int) -> Best:
    """The items most like each given one, by the cosine of their final vectors; the item itself is left out.

    The cosine, because a dot product of two items would put what is popular, and so has a long vector, first.
    """
    directions = catalogue.items[items] / catalogue.norms[items, None]
    found, cosines = _nothing(catalogue, items.size, top)
    for row, item in enumerate(items):
        values = catalogue.items @ directions[row] / catalogue.norms
        values[item] = -np.inf
        _fill(found[row], cosines[row], values)
    return found, cosines


def fold_in(catalogue: Catalogue, histories: Sequence[Longs]) -> Floats32:
    """Vectors of users who were not trained, from the items they know: one propagation step of the model.

    A step of GRec and LightGCN adds up the vectors x_i of a user's items, x_u = sum of x_i / sqrt(d_u d_i), d being
    degrees in the train graph. Items' final vectors stand for those of the layer before; the sum is then made as long
    as trained users' vectors are, by one factor for the domain.

    Args:
        catalogue: the domain.
        histories: for each user the numbers of the items known, distinct, at least one.

    Returns:
        float32 (users, width).
    """
    return catalogue.step(histories) * np.float32(catalogue.step_length)


def _nothing(catalogue: Catalogue, rows: int, top: int) -> Best:
    shape = (rows, min(top, len(catalogue.items)))
    return np.full(shape, -1, np.int32), np.zeros(shape, np.float32)


def _fill(items: Ints, best: Floats32, scores: Floats32) -> None:
    """Find the largest scores, best first, equal ones by position; what scores -inf is left out."""
    left = scores.size - items.size
    least = np.partition(scores, left)[left] if items.size else np.inf
    places = np.flatnonzero(scores >= max(least, np.finfo(np.float32).min))
    places = places[np.argsort(-scores[places], kind="stable")[: items.size]]
    items[: places.size], best[: places.size] = places, scores[places]
