"""Fit of the blend: how much evidence weighs beside vectors, by full NDCG@20 on a domain's validation split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_contracts.contracts import VALID
from data_contracts.seeding import generator
from model.compute.threads import share_rows
from model.data.candidates import known_items
from model.data.dataset import Domain, Rows
from model.evaluation.fit_kernels import capped_ranks
from model.evaluation.metrics import user_values
from model.evaluation.ranking import are_ranked
from model.evidence.blend import GROWTH, BlendWeights
from model.evidence.domain_evidence import DomainEvidence
from model.sparse.rows import Ints, Longs, block_height, pick_rows

AT = 20
"""Cut-off of the measure that is maximised."""

SHARES = (0.0, *(float(strength / (1.0 + strength)) for strength in 2.0 ** np.arange(-6.0, 5.5, 0.5)), 1.0)
"""Shares of evidence that are tried, from vectors alone to evidence alone; between them its strength doubles in two."""

_MASKED = np.float32(-1e24)
"""Score of an item that is left out; finite, so that a factor of 0 leaves a number."""
_SPREAD_USERS = 256
"""Users, at most, by whom the spreads of scores are measured."""
_TYPICAL_DEPTH = 1_000
"""Items that are compared with a held-out one before its rank is known to be beyond the cut-off."""
_HALF_TRUSTED_USERS = 300
"""Validation users with whom a domain's own curve counts as much as the mean curve of all domains."""

Floats32 = NDArray[np.float32]
Floats = NDArray[np.float64]

Scorer = Callable[[Ints], Floats32]
"""Dot products (users, items of the domain) of some of a domain's users; may be overwritten by who asked."""


@dataclass(frozen=True)
class ValidationUsers:
    """Users of a domain with validation items, and what is ranked for them.

    Attributes:
        users: int32 (users), ascending numbers in the domain.
        owners: int64 (held-out items), position of the item's user in `users`, ascending.
        items: int32 (held-out items), numbers in the domain.
        indptr, masked: the users' train items in compressed rows, left out of the ranking.
    """

    users: Ints
    owners: Longs
    items: Ints
    indptr: Longs
    masked: Ints

    def blocks(self, height: int) -> Iterator[ValidationUsers]:
        """The same users, at most `height` at a time."""
        for start in range(0, self.users.size, height):
            stop = min(start + height, self.users.size)
            rows = slice(*np.searchsorted(self.owners, [start, stop]))
            part = slice(self.indptr[start], self.indptr[stop])
            indptr = self.indptr[start : stop + 1] - self.indptr[start]
            yield ValidationUsers(
                self.users[start:stop], self.owners[rows] - start, self.items[rows], indptr, self.masked[part]
            )


def validation_users(rows: Rows, domain: Domain, most: int, seed: int) -> ValidationUsers:
    """The domain's users with validation items that repeat no train item; of more than `most`, so many drawn."""
    held, new = rows.of(VALID), are_ranked(domain, rows, VALID)
    users = np.unique(held.users[new])
    if users.size > most:
        users = np.sort(generator(seed, "validation users", domain.name).choice(users, most, replace=False))
    chosen = new & np.isin(held.users, users)
    indptr, known = known_items(rows, domain.users, (0,))
    return ValidationUsers(
        users, np.searchsorted(users, held.users[chosen]), held.items[chosen], *pick_rows(indptr, known, users)
    )


@dataclass(frozen=True)
class Point:
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
class Curve:
    """The blends that were tried in one domain, by ascending share of evidence.

    Attributes:
        points: all of them; measures are 0 where there is no validation user.
        users: how many validation users there are.
    """

    points: tuple[Point, ...]
    users: int

    @property
    def relative(self) -> Floats:
        """float64 (points), NDCG over the best NDCG; zeros where nothing is found."""
        values = np.array([point.ndcg for point in self.points])
        return values / max(float(values.max()), np.finfo(np.float64).tiny)


def choose(curves: Mapping[str, Curve]) -> dict[str, Point]:
    """The blend to serve in each domain: the best of its curve, averaged with that of all domains where users are few.

    A domain's own curve counts users / (users + 300), the mean over the users of all domains counts the rest; of equal
    values the one with least evidence is taken. Where vectors alone or evidence alone measure better than that, they
    are served.

    Args:
        curves: by domain, all of the same shares, or of vectors alone.
    """
    most = max(len(curve.points) for curve in curves.values())
    full = [curve for curve in curves.values() if len(curve.points) == most]
    mean = np.average([curve.relative for curve in full], axis=0, weights=[curve.users + 1e-9 for curve in full])
    return {domain: _chosen(curve, mean) for domain, curve in curves.items()}


def _chosen(curve: Curve, mean: Floats) -> Point:
    if len(curve.points) != mean.size:  # the domain has no evidence
        return curve.points[0]
    trusted = curve.users / (curve.users + _HALF_TRUSTED_USERS)
    point = curve.points[int(np.argmax(trusted * curve.relative + (1.0 - trusted) * mean))]
    return max(point, curve.points[0], curve.points[-1], key=lambda tried: tried.ndcg)


def vectors_curve(held: ValidationUsers, score: Scorer, items: int) -> Curve:
    """The one point there is without evidence: vectors alone."""
    return _curve(held, score, None, [(0.0, BlendWeights(1.0, 0.0, 1.0))], items)


def blend_curve(held: ValidationUsers, score: Scorer, evidence: DomainEvidence) -> Curve:
    """Try every share of evidence in SHARES; vectors alone where there is no evidence, evidence alone where vectors say
    nothing.

    Strength 1, a share of one half, is where weighted vectors and evidence spread equally over the domain's items, in
    the median over users.

    Args:
        held: the users by whom blends are measured.
        score: dot products of the domain's users.
        evidence: the domain's.
    """
    spreads = _spreads(score, evidence)
    tried = [(share, _weights(share, spreads)) for share in SHARES]
    if not all(spreads):
        tried = tried[-1:] if spreads[1] else tried[:1]
    return _curve(held, score, evidence, tried, evidence.union_items.size)


def _weights(share: float, spreads: tuple[float, float]) -> BlendWeights:
    of_vectors, of_evidence = spreads[0] or 1.0, spreads[1] or 1.0
    ratio = of_vectors / of_evidence
    if share == 1.0:
        return BlendWeights(0.0, ratio, of_vectors)
    return BlendWeights(1.0, ratio * share / (1.0 - share), of_vectors)


def _spreads(score: Scorer, evidence: DomainEvidence) -> tuple[float, float]:
    """Spread over a domain's items of the vectors' scores and of the evidence with its growth, medians over users.

    0 where vectors say nothing, or where there is no evidence.
    """
    known = np.flatnonzero(evidence.histories_of(np.arange(evidence.union_users.size)).lengths).astype(np.int32)
    chosen = known[:: -(-known.size // _SPREAD_USERS) or 1]
    of_vectors, of_evidence = [np.empty(0)], [np.empty(0)]
    height = block_height(evidence.union_items.size)
    for start in range(0, chosen.size, height):
        block = chosen[start : start + height]
        of_vectors.append(score(block).std(axis=1, dtype=np.float64))
        histories = evidence.histories_of(block)
        of_evidence.append(evidence.sum(histories).std(axis=1, dtype=np.float64) * histories.lengths**GROWTH)
    spreads = [np.concatenate(parts) for parts in (of_vectors, of_evidence)]
    medians = [float(np.median(spread[spread > 0])) if (spread > 0).any() else 0.0 for spread in spreads]
    return medians[0], medians[1]


def _curve(
    held: ValidationUsers,
    score: Scorer,
    evidence: DomainEvidence | None,
    tried: Sequence[tuple[float, BlendWeights]],
    items: int,
) -> Curve:
    ranks = np.empty((len(tried), held.items.size), np.int32)
    for block in held.blocks(block_height(items)):
        scores = score(block.users)
        lengths, of_evidence = np.zeros(block.users.size, np.int64), np.zeros_like(scores)
        if evidence:
            histories = evidence.histories_of(block.users)
            lengths, of_evidence = histories.lengths, evidence.sum(histories)
        owners = np.repeat(np.arange(block.users.size), np.diff(block.indptr))
        scores[owners, block.masked] = of_evidence[owners, block.masked] = _MASKED
        factors = np.array([weights.factors(lengths) for _, weights in tried])
        mine = slice(*np.searchsorted(held.users[held.owners], [block.users[0], block.users[-1] + 1]))
        _rank((scores, of_evidence, factors), (block.owners, block.items), ranks[:, mine])
    points = []
    for (share, weights), of_share in zip(tried, ranks, strict=True):
        values = user_values(held.users[held.owners], of_share.astype(np.int64), (AT,))
        ndcg, recall = (
            float(values[f"{name}@{AT}"].mean()) if values else 0.0 for name in ("full_ndcg", "full_recall")
        )
        points.append(Point(share, weights, ndcg, recall))
    return Curve(tuple(points), held.users.size)


def _rank(blended: tuple[Floats32, Floats32, Floats32], held: tuple[Longs, Ints], ranks: Ints) -> None:
    """Fill the ranks (blends, held-out items), shared out among threads by held-out items."""
    owners, items = held

    def work(first: int, last: int) -> None:
        capped_ranks(*blended, (owners[first:last], items[first:last]), AT, ranks[:, first:last])

    share_rows(items.size, ranks.size * _TYPICAL_DEPTH, work)
