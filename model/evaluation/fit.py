"""Fit of the blend: the weight of evidence beside vectors, by full NDCG@20 on a domain's validation split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_contracts.contracts import VALID
from data_contracts.seeding import generator
from model.compute.threads import share_rows
from model.data.candidates import known_items
from model.data.dataset import DomainData, Interactions
from model.evaluation.fit_kernels import capped_ranks
from model.evaluation.metrics import user_values
from model.evaluation.ranking import are_ranked
from model.evidence.blend import GROWTH, BlendWeights
from model.evidence.domain_evidence import DomainEvidence
from model.sparse.rows import Floats32, Ints, Longs, block_height, pick_rows

CUTOFF = 20
"""Cut-off of the NDCG that is maximised."""

SHARES = (0.0, *(float(strength / (1.0 + strength)) for strength in 2.0 ** np.arange(-6.0, 5.5, 0.5)), 1.0)
"""Shares of evidence that are tried, from vectors alone to evidence alone; two steps between them double its weight."""

_MASKED = np.float32(-1e24)
"""Score of a masked item; finite, because 0 times infinity is no number."""
_SPREAD_USERS = 256
"""Users, at most, from whom the spreads of scores are measured."""
_TYPICAL_DEPTH = 1_000
"""Items that are typically compared with a held-out one before its rank exceeds the cut-off."""
_HALF_TRUSTED_USERS = 300
"""Validation users with whom a domain's own curve counts as much as the mean curve of all domains."""

Floats = NDArray[np.float64]

Scorer = Callable[[Ints], Floats32]
"""Dot products (users, items of the domain) of some of a domain's users; the caller may overwrite them."""


@dataclass(frozen=True)
class ValidationUsers:
    """Users of a domain with validation items, and the items that are ranked for them.

    Attributes:
        users: int32 (users), ascending numbers in the domain.
        owners: int64 (held-out items), position of the item's user in `users`, ascending.
        items: int32 (held-out items), numbers in the domain.
        indptr, masked: the users' train items in compressed rows, which are not ranked.
    """

    users: Ints
    owners: Longs
    items: Ints
    indptr: Longs
    masked: Ints

    def blocks(self, height: int) -> Iterator[ValidationUsers]:
        """The users in blocks of at most `height`."""
        for start in range(0, self.users.size, height):
            stop = min(start + height, self.users.size)
            held_out = slice(*np.searchsorted(self.owners, [start, stop]))
            yield ValidationUsers(
                users=self.users[start:stop],
                owners=self.owners[held_out] - start,
                items=self.items[held_out],
                indptr=self.indptr[start : stop + 1] - self.indptr[start],
                masked=self.masked[self.indptr[start] : self.indptr[stop]],
            )


def validation_users(interactions: Interactions, domain: DomainData, most: int, seed: int) -> ValidationUsers:
    """The domain's users with validation items that repeat no train item; `most` of them drawn if there are more."""
    held, new = interactions.for_split(VALID), are_ranked(domain, interactions, VALID)
    users = np.unique(held.users[new])
    if users.size > most:
        users = np.sort(generator(seed, "validation users", domain.name).choice(users, most, replace=False))
    chosen = new & np.isin(held.users, users)
    indptr, masked = pick_rows(*known_items(interactions, domain.users, (0,)), users)
    owners = np.searchsorted(users, held.users[chosen])
    return ValidationUsers(users, owners, held.items[chosen], indptr, masked)


@dataclass(frozen=True)
class BlendPoint:
    """One blend that was tried.

    Attributes:
        share: of evidence, from 0 (vectors alone) to 1 (evidence alone), as SHARES.
        weights: the blend.
        ndcg, recall: full NDCG@20 and Recall@20, means over users.
    """

    share: float
    weights: BlendWeights
    ndcg: float
    recall: float


@dataclass(frozen=True)
class BlendCurve:
    """The blends that were tried in one domain, in ascending order of the share of evidence.

    Attributes:
        points: all of them; NDCG and recall are 0 if there is no validation user.
        users: number of validation users.
    """

    points: tuple[BlendPoint, ...]
    users: int

    @property
    def relative(self) -> Floats:
        """float64 (points), NDCG divided by the best NDCG; zeros if that is 0."""
        values = np.array([point.ndcg for point in self.points])
        return values / max(float(values.max()), np.finfo(np.float64).tiny)


def choose_blends(curves: Mapping[str, BlendCurve]) -> dict[str, BlendPoint]:
    """The blend to serve in each domain: the best of its curve, averaged with the mean curve if it has few users.

    A domain's own curve has the weight users / (users + 300), the mean over the users of all domains the rest; of equal
    values the one with least evidence is taken. If vectors alone or evidence alone measure better in the domain, they
    are served.

    Args:
        curves: by domain, all of the same shares, or of vectors alone.
    """
    size = max(len(curve.points) for curve in curves.values())
    full = [curve for curve in curves.values() if len(curve.points) == size]
    mean = np.average([curve.relative for curve in full], axis=0, weights=[curve.users + 1e-9 for curve in full])
    return {domain: _choose_point(curve, mean) for domain, curve in curves.items()}


def _choose_point(curve: BlendCurve, mean: Floats) -> BlendPoint:
    if len(curve.points) != mean.size:  # the domain has no evidence
        return curve.points[0]
    own_weight = curve.users / (curve.users + _HALF_TRUSTED_USERS)
    point = curve.points[int(np.argmax(own_weight * curve.relative + (1.0 - own_weight) * mean))]
    return max(point, curve.points[0], curve.points[-1], key=lambda tried: tried.ndcg)


def vectors_curve(held: ValidationUsers, score: Scorer, items: int) -> BlendCurve:
    """The curve of a domain without evidence: one point, vectors alone."""
    return _measure_curve(held, score, None, [(0.0, BlendWeights(1.0, 0.0, 1.0))], items)


def blend_curve(held: ValidationUsers, score: Scorer, evidence: DomainEvidence) -> BlendCurve:
    """Measure every share of evidence in SHARES; only vectors if all evidence is 0, only evidence if all dots are.

    At a share of one half, weighted vectors and evidence have the same spread over the domain's items, in the median
    over users.

    Args:
        held: the users on whom blends are measured.
        score: dot products of the domain's users.
        evidence: the domain's.
    """
    spreads = _median_spreads(score, evidence)
    tried = [(share, _weights_at(share, spreads)) for share in SHARES]
    if not all(spreads):
        tried = tried[-1:] if spreads[1] else tried[:1]
    return _measure_curve(held, score, evidence, tried, evidence.union_items.size)


def _weights_at(share: float, spreads: tuple[float, float]) -> BlendWeights:
    vector_spread, evidence_spread = spreads[0] or 1.0, spreads[1] or 1.0
    ratio = vector_spread / evidence_spread
    if share == 1.0:
        return BlendWeights(0.0, ratio, vector_spread)
    return BlendWeights(1.0, ratio * share / (1.0 - share), vector_spread)


def _median_spreads(score: Scorer, evidence: DomainEvidence) -> tuple[float, float]:
    """Spread over a domain's items of the dot products and of the evidence with its growth, medians over users.

    0 if all dot products, or all evidence, are equal.
    """
    known = np.flatnonzero(evidence.user_histories(np.arange(evidence.union_users.size)).lengths).astype(np.int32)
    chosen = known[:: -(-known.size // _SPREAD_USERS) or 1]
    vector_spreads, evidence_spreads = [np.empty(0)], [np.empty(0)]
    height = block_height(evidence.union_items.size)
    for start in range(0, chosen.size, height):
        block = chosen[start : start + height]
        vector_spreads.append(score(block).std(axis=1, dtype=np.float64))
        histories = evidence.user_histories(block)
        evidence_spreads.append(evidence.sum(histories).std(axis=1, dtype=np.float64) * histories.lengths**GROWTH)
    spreads = [np.concatenate(blocks) for blocks in (vector_spreads, evidence_spreads)]
    medians = [float(np.median(spread[spread > 0])) if (spread > 0).any() else 0.0 for spread in spreads]
    return medians[0], medians[1]


def _measure_curve(
    held: ValidationUsers,
    score: Scorer,
    evidence: DomainEvidence | None,
    tried: Sequence[tuple[float, BlendWeights]],
    items: int,
) -> BlendCurve:
    ranks = np.empty((len(tried), held.items.size), np.int32)
    for block in held.blocks(block_height(items)):
        scores = score(block.users)
        lengths, sums = np.zeros(block.users.size, np.int64), np.zeros_like(scores)
        if evidence:
            histories = evidence.user_histories(block.users)
            lengths, sums = histories.lengths, evidence.sum(histories)
        rows = np.repeat(np.arange(block.users.size), np.diff(block.indptr))
        scores[rows, block.masked] = sums[rows, block.masked] = _MASKED
        factors = np.array([weights.factors(lengths) for _, weights in tried])
        of_block = slice(*np.searchsorted(held.users[held.owners], [block.users[0], block.users[-1] + 1]))
        _rank_block((scores, sums, factors), (block.owners, block.items), ranks[:, of_block])
    points = []
    for (share, weights), ranks_at_share in zip(tried, ranks, strict=True):
        values = user_values(held.users[held.owners], ranks_at_share.astype(np.int64), (CUTOFF,))
        ndcg, recall = (
            float(values[f"{name}@{CUTOFF}"].mean()) if values else 0.0 for name in ("full_ndcg", "full_recall")
        )
        points.append(BlendPoint(share, weights, ndcg, recall))
    return BlendCurve(tuple(points), held.users.size)


def _rank_block(scored: tuple[Floats32, Floats32, Floats32], held: tuple[Longs, Ints], ranks: Ints) -> None:
    """Fill the ranks (blends, held-out items) of a block of users, split among threads by held-out items.

    Args:
        scored: dot products, evidence and factors, as for `capped_ranks`.
        held: row and item of each held-out item.
        ranks: int32, filled.
    """
    (scores, evidence, factors), (rows, items) = scored, held

    def work(first: int, last: int) -> None:
        held_out = rows[first:last], items[first:last]
        capped_ranks(scores, evidence, factors, held_out, CUTOFF, ranks[:, first:last])

    share_rows(items.size, ranks.size * _TYPICAL_DEPTH, work)
