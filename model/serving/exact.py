"""Exact recommendations from arrays: top items, similar items, vectors of users who came after training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.evidence.user_evidence import UserEvidence
from model.serving.catalogue import Catalogue
from model.serving.scorer import DomainScorer, ItemMask, Query
from model.sparse.rows import Floats32, Ints, Longs, block_height

TopK = tuple[Ints, Floats32]
"""Numbers of items, best first, and their scores: int32 and float32 (rows, top), padded with -1 and 0.

`top` is at most the number of the domain's items.
"""


def top_items_for_users(scorer: DomainScorer, users: Longs, top: int) -> TopK:
    """The best items for trained users, without their train items.

    Args:
        scorer: the domain.
        users: numbers of users.
        top: items per user.

    Returns:
        Items and scores; equal scores are ordered by the items' numbers.
    """
    return top_items(scorer, scorer.query(users), top)


def top_items(scorer: DomainScorer, query: Query, top: int) -> TopK:
    """The items with the highest served scores, in blocks of users.

    Args:
        scorer: the domain.
        query: users and their excluded items.
        top: items per user.
    """
    if len(query) == 1 and scorer.blend and len(scorer.catalogue.items) >= _MANY_ITEMS:
        return _top_items_of_one(scorer, query, top)
    items, scores = _allocate_top_k(scorer.catalogue, len(query), top)
    height = block_height(len(scorer.catalogue.items))
    for start in range(0, len(query), height):
        block = query[start : start + height]
        for row, row_scores in enumerate(scorer.score(block)):
            row_scores[block.excluded[block.indptr[row] : block.indptr[row + 1]]] = -np.inf
            if block.allowed is not None:
                row_scores[~block.allowed] = -np.inf
            _fill_top_k(items[start + row], scores[start + row], row_scores)
    return items, scores


def _top_items_of_one(scorer: DomainScorer, query: Query, top: int) -> TopK:
    """As `top_items` for one user and a large catalogue, of which most vectors are only looked at in a coarse form.

    Reading all vectors takes most of the time of an answer. The coarse scores are off by known amounts at most, so the
    items that could be among the best are few, and exact scores of these decide.
    """
    catalogue, vector, evidence = scorer.catalogue, query.vectors[0], scorer.user_evidence(query)
    scores = catalogue.coarse_items.dots(vector * evidence.vectors)
    slack = catalogue.coarse_items.errors * (np.linalg.norm(vector) * abs(evidence.vectors))
    scores[evidence.items] += evidence.weighted
    scores[query.excluded] = -np.inf
    if query.allowed is not None:
        scores[~query.allowed] = -np.inf
    items, best = _allocate_top_k(catalogue, 1, top)
    least = np.partition(scores - slack, scores.size - items.size)[scores.size - items.size] if items.size else np.inf
    candidates = np.flatnonzero(scores + slack >= max(least, np.finfo(np.float32).min)).astype(np.int32)
    exact = evidence.blend(catalogue.items[candidates] @ vector, candidates)
    order = np.argsort(-exact, kind="stable")[: items.size]
    items[0, : order.size], best[0, : order.size] = candidates[order], exact[order]
    return items, best


_MANY_ITEMS = 20_000
"""Items from which one user's list is found by coarse vectors first."""


def top_items_without_vector(
    catalogue: Catalogue, evidence: UserEvidence, top: int, allowed: ItemMask | None = None
) -> TopK:
    """The best items for a user without a vector in the domain: those with most evidence, then the most popular.

    Args:
        catalogue: the domain, in which the user has no items.
        evidence: the user's, perhaps empty.
        top: items to find.
        allowed: items that may be found; None: all.

    Returns:
        One row. Scores are the evidence's, 0 for popular items without any; if no item has any, numbers of train users.
    """
    degrees = catalogue.degrees.astype(np.float32)
    scores = np.zeros(degrees.size, np.float32)
    scores[evidence.items] = evidence.weighted * evidence.scale
    best = np.lexsort((-degrees, -scores))
    best = (best if allowed is None else best[allowed[best]])[:top]
    shown = scores if evidence.items.size else degrees
    return best[None].astype(np.int32), shown[None, best]


@dataclass(frozen=True)
class SimilarItems:
    """The items most similar to a given one.

    Attributes:
        items: int32, best first.
        scores: float32, cosines, or cosines blended with evidence.
        cosines: float32, of the vectors.
        spread: standard deviation of the cosines with all items, 1 if all are equal.
    """

    items: Ints
    scores: Floats32
    cosines: Floats32
    spread: float


def similar_items(scorer: DomainScorer, item: int, top: int, allowed: ItemMask | None = None) -> SimilarItems:
    """The (allowed) items most similar to a given one, by the cosine of final vectors and the evidence of the item.

    The cosine, because a dot product of two items would rank popular ones, which have long vectors, first. Evidence has
    the same weight relative to the spread of all items' scores as for a user whose one train item it is.
    """
    catalogue = scorer.catalogue
    cosines = catalogue.items @ (catalogue.items[item] / catalogue.norms[item]) / catalogue.norms
    spread = float(cosines.std(dtype=np.float64)) or 1.0
    scores = cosines[None].copy()
    if scorer.blend:
        evidence = scorer.blend.evidence
        scorer.blend.for_spread(spread).apply(scores, evidence.history(evidence.union_items[[item]]))
    scores[0, item] = -np.inf
    if allowed is not None:
        scores[0, ~allowed] = -np.inf
    all_items, all_scores = _allocate_top_k(catalogue, 1, top)
    _fill_top_k(all_items[0], all_scores[0], scores[0])
    kept = all_items[0] >= 0
    items = all_items[0, kept]
    return SimilarItems(items, all_scores[0, kept], cosines[items], spread)


def fold_in(catalogue: Catalogue, histories: Sequence[Longs]) -> Floats32:
    """Vectors of users who were not in training, from their items: one propagation step of the model.

    A step of GRec and LightGCN adds up the vectors x_i of a user's items, x_u = sum of x_i / sqrt(d_u d_i), d being
    degrees in the train graph. Here items' final vectors take the place of those of the layer before, and the sum is
    scaled to the length of trained users' vectors by one factor for the domain.

    Args:
        catalogue: the domain.
        histories: the numbers of each user's items, distinct, at least one.

    Returns:
        float32 (users, width).
    """
    return catalogue.step(histories) * np.float32(catalogue.step_length)


def _allocate_top_k(catalogue: Catalogue, rows: int, top: int) -> TopK:
    shape = (rows, min(top, len(catalogue.items)))
    return np.full(shape, -1, np.int32), np.zeros(shape, np.float32)


def _fill_top_k(items: Ints, best: Floats32, scores: Floats32) -> None:
    """Fill the numbers of the largest scores, best first, equal ones by number, and these scores; -inf is left out.

    As `model.compute.ranking_kernels.top_k_rows`, but in NumPy, so that serving vectors alone does not load Numba.
    """
    rest = scores.size - items.size
    least = np.partition(scores, rest)[rest] if items.size else np.inf
    top = np.flatnonzero(scores >= max(least, np.finfo(np.float32).min))
    top = top[np.argsort(-scores[top], kind="stable")[: items.size]]
    items[: top.size], best[: top.size] = top, scores[top]
