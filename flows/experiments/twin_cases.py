"""People with two names: kept apart, known to be the same, and every use of aligned pairs that might find them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import TRAIN
from flows.config.run_config import RunSpec
from flows.experiments.cases import ALIGNED, NOT_ALIGNED, ON, Bench, Case, evidence, with_switches
from flows.experiments.measures import Members, PartnerUse, measure_groups, measure_partners, measure_twins, together
from flows.experiments.rows import borrow_rows, give_two_names, merge_users, shared_ids

APART, TWINS, ONE_DOMAIN = "apart", "twins", "users in one domain"
_FEW_ROWS = 5
"""Users with at most so many train rows get those of their partners, too."""
_MOST_ALIKE = 0.1
"""Of the pairs of such users, where only the most alike are used."""
_EDGES = "train.pair_edges=0.5"
_VARIANT = ("train.intra_shared_at_most=1", "ingest.protocol=released")
"""Variants of the rows are clean, and all of them stay."""
_SHUFFLED = "pairs.shuffled=true"

_Names = dict[tuple[str, str], str]
"""(domain, user id) → another id."""


@dataclass(frozen=True)
class _World:
    """Rows of people with two names, and who they are.

    Attributes:
        rows: domain, user_id, item_id, split.
        twins: as in the contract `world`.
        small: fewer levels.
    """

    rows: pa.Table
    twins: pa.Table
    small: bool

    @cached_property
    def groups(self) -> dict[str, Members]:
        """The users that are measured apart."""
        return {TWINS: _ends(self.twins), ONE_DOMAIN: _in_one_domain(self.rows)}

    def cases(self, level: str, run: RunSpec, names: _Names | None = None) -> Iterator[Case]:
        """The cases of one level, with and without evidence; `names` are the users' in this case."""
        renamed = {name: {(domain, (names or {}).get((domain, user), user)) for domain, user in users}
                   for name, users in self.groups.items()}  # fmt: skip
        measure = together(measure_groups(renamed), measure_twins(self.twins))
        yield from with_switches({"users": level}, run, evidence(self.small), measure)

    def merged(self, level: str, bench: Bench, known: pa.Table) -> Iterator[Case]:
        """Cases in which users that are known to be one person have one id."""
        names = _one_name(known)
        run = bench.with_rows(merge_users(self.rows, names), *_VARIANT, NOT_ALIGNED)
        yield from self.cases(level, run, names)

    def as_evidence(
        self, pairs: str, run: RunSpec, known: pa.Table, uses: Iterable[PartnerUse] = get_args(PartnerUse)
    ) -> Iterator[Case]:
        """Cases apart, with evidence by partners: source_id, target_id, similarity."""
        alone = run.with_overrides(NOT_ALIGNED, "blend.evidence=true")
        for use in uses:
            levels = {"users": f"{use} of {pairs}", "evidence": ON}
            yield Case(levels, alone, remeasure=measure_partners(known, self.groups, use))


def oracle_twins(bench: Bench, small: bool) -> Iterator[Case]:
    """The same people under two names: kept apart, known to be the same, and as aligned pairs would have them."""
    rows, twins = bench.rows(), bench.twins()
    if twins is None:
        rows, twins = give_two_names(rows, bench.run.config.ingest.split.seed)
    world = _World(_without_leaks(rows, twins), twins, small)
    apart = bench.with_rows(world.rows, *_VARIANT)
    yield from world.cases(APART, apart.with_overrides(NOT_ALIGNED))
    yield from world.merged("twins merged", bench, twins)
    yield from world.as_evidence("shared names", apart, _as_partners([shared_ids(world.rows, "user")] * 2), ["filter"])
    ends = [twins[f"{side}_user_id"].combine_chunks() for side in ("source", "target")]
    both_ways = [pa.concat_arrays(ends), pa.concat_arrays(ends[::-1])]
    yield from world.as_evidence("twins", apart, _as_partners(both_ways))
    for pairs, override in (("pairs", "pairs.shuffled=false"), ("shuffled pairs", _SHUFFLED)):
        yield from _uses(world, bench, apart.with_overrides(override), pairs)


def _uses(world: _World, bench: Bench, run: RunSpec, pairs: str) -> Iterator[Case]:
    """The uses of a run's aligned pairs; `pairs` is what levels call them."""
    known = bench.user_pairs(run.with_overrides(ALIGNED))
    alone = run.with_overrides(NOT_ALIGNED)
    yield from world.cases(f"{pairs}, by distance", run.with_overrides(ALIGNED))
    yield from world.cases(f"{pairs}, by contrast", run.with_overrides(ALIGNED, "train.alignment_loss=contrast"))
    yield from world.cases(f"edges of {pairs}", alone.with_overrides(_EDGES))
    yield from world.merged(f"{pairs} merged", bench, _mutual(known))
    for which, share in (("", 1.0), ("the most alike ", _MOST_ALIKE)):
        borrowed = bench.with_rows(borrow_rows(world.rows, known, _FEW_ROWS, share), *_VARIANT, NOT_ALIGNED)
        yield from world.cases(f"rows of {which}{pairs}", borrowed)
    yield from world.as_evidence(pairs, run, known)


def _as_partners(ends: Sequence[pa.Array]) -> pa.Table:
    """Users and their partners as pairs of similarity 1."""
    return pa.table({"source_id": ends[0], "target_id": ends[1], "similarity": np.ones(len(ends[0]), np.float32)})


def _ends(twins: pa.Table) -> Members:
    sides = ((twins[f"{side}_domain"], twins[f"{side}_user_id"]) for side in ("source", "target"))
    return {pair for domains, ids in sides for pair in zip(domains.to_pylist(), ids.to_pylist(), strict=True)}


def _in_one_domain(rows: pa.Table) -> Members:
    alone = rows.filter(pc.invert(pc.is_in(rows["user_id"], shared_ids(rows, "user"))))
    return set(zip(alone["domain"].to_pylist(), alone["user_id"].to_pylist(), strict=True))


def _mutual(pairs: pa.Table) -> pa.Table:
    """Pairs of users who are each other's most similar, as twins."""
    swapped = pairs.select(["target_domain", "source_domain", "target_id", "source_id"])
    names = ["source_domain", "target_domain", "source_id", "target_id"]
    both = pairs.join(swapped.rename_columns(names), names, join_type="left semi")
    both = both.filter(pc.less(both["source_domain"], both["target_domain"]))
    both = both.select(names).sort_by([(name, "ascending") for name in names])
    return both.rename_columns(["source_domain", "target_domain", "source_user_id", "target_user_id"])


def _without_leaks(rows: pa.Table, twins: pa.Table) -> pa.Table:
    """The rows without held-out ones whose item the same person was trained on under another name."""
    merged = merge_users(rows, _one_name(twins))
    train = merged.filter(pc.equal(merged["split"], TRAIN)).select(["user_id", "item_id"])
    trained = set(zip(train["user_id"].to_pylist(), train["item_id"].to_pylist(), strict=True))
    people = zip(merged["user_id"].to_pylist(), merged["item_id"].to_pylist(), strict=True)
    is_known = pa.array([person in trained for person in people])
    return rows.filter(pc.or_(pc.equal(rows["split"], TRAIN), pc.invert(is_known)))


def _one_name(twins: pa.Table) -> _Names:
    """(domain, user id) → the id of the first of its twins, which may have twins themselves."""
    first: dict[tuple[str, str], tuple[str, str]] = {}

    def find(end: tuple[str, str]) -> tuple[str, str]:
        while first.get(end, end) != end:
            end = first[end]
        return end

    columns = ("source_domain", "source_user_id", "target_domain", "target_user_id")
    for row in zip(*(twins[name].to_pylist() for name in columns), strict=True):
        earlier, later = sorted((find(row[:2]), find(row[2:])))
        first[later] = earlier
    return {end: find(end)[1] for end in first}
