"""Recommend from a domain's vectors and evidence: best items, similar items, users who came after training.

Arrays in and out; exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.evidence.user_evidence import UserEvidence
from model.serving.catalogue import Catalogue
from model.serving.scorer import DomainScorer, Query
from model.sparse.rows import Floats32, Ints, Longs, block_height

Best = tuple[Ints, Floats32]
"""Numbers of items, best first, and their scores, both (rows, top); -1 and 0 where too few are left.

`top` is at most the number of the domain's items.
"""


def best_for_users(scorer: DomainScorer, users: Longs, top: int) -> Best:
    """The best items for trained users, their train items left out.

    Args:
        scorer: the domain.
        users: numbers of users.
        top: items per user.

    Returns:
        Items and scores; equal scores go by the items' numbers.
    """
    return best_items(scorer, scorer.query(users), top)


def best_items(scorer: DomainScorer, query: Query, top: int) -> Best:
    """The items with the highest served scores, in blocks of users.

    Args:
        scorer: the domain.
        query: users and what is left out for them.
        top: items per user.
    """
    items, scores = _nothing(scorer.catalogue, len(query), top)
    height = block_height(len(scorer.catalogue.items))
    for start in range(0, len(query), height):
        part = query[start : start + height]
        for row, values in enumerate(scorer.score(part)):
            values[part.left_out[part.indptr[row] : part.indptr[row + 1]]] = -np.inf
            _fill(items[start + row], scores[start + row], values)
    return items, scores


def best_without_vector(catalogue: Catalogue, evidence: UserEvidence, top: int) -> Best:
    """The best items for a user who has no vector in the domain: those with most evidence, then the most popular.

    Args:
        catalogue: the domain, in which the user has nothing that is to be left out.
        evidence: the user's, perhaps none.
        top: items to find.

    Returns:
        One row. Scores are the evidence's, 0 for popular items without; where there is none at all, train users.
    """
    degrees = catalogue.degrees.astype(np.float32)
    scores = np.zeros(degrees.size, np.float32)
    scores[evidence.items] = evidence.weighted * evidence.scale
    best = np.lexsort((-degrees, -scores))[:top]
    shown = scores if evidence.items.size else degrees
    return best[None].astype(np.int32), shown[None, best]


@dataclass(frozen=True)
class SimilarItems:
    """The items most like a given one.

    Attributes:
        items: int32, best first.
        scores: float32, cosines, or cosines blended with evidence.
        cosines: float32, of the vectors.
        spread: standard deviation of the cosines with all items, 1 where all are equal.
    """

    items: Ints
    scores: Floats32
    cosines: Floats32
    spread: float


def similar_items(scorer: DomainScorer, item: int, top: int) -> SimilarItems:
    """The items most like a given one, by the cosine of final vectors and the walks from the item; itself left out.

    The cosine, because a dot product of two items would put what is popular, and so has a long vector, first. Evidence
    weighs as much beside cosines as it does beside dot products for a user whose one train item it is: relative to how
    far the scores of all items spread.
    """
    catalogue = scorer.catalogue
    cosines = catalogue.items @ (catalogue.items[item] / catalogue.norms[item]) / catalogue.norms
    spread = float(cosines.std(dtype=np.float64)) or 1.0
    scores = cosines[None].copy()
    if scorer.blend:
        evidence = scorer.blend.evidence
        scorer.blend.for_spread(spread).add_to(scores, evidence.history(evidence.union_items[[item]]))
    scores[0, item] = -np.inf
    items, best = (of_row[0] for of_row in _nothing(catalogue, 1, top))
    _fill(items, best, scores[0])
    kept = items >= 0
    return SimilarItems(items[kept], best[kept], cosines[items[kept]], spread)


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
