"""Cases that vary the rows of a run: overlap, users with two names, the number of domains and their size."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import TRAIN
from data_contracts.seeding import generator
from flows.config.run_config import RunSpec
from flows.experiments.cases import ALIGNED, NOT_ALIGNED, OFF, Bench, Case, evidence, with_switches
from flows.experiments.measures import Members, measure_domains, measure_groups, measure_twins, together
from flows.experiments.rows import (
    Kind,
    by_size,
    give_two_names,
    keep_domains,
    merge_users,
    shared_ids,
    shrink_domain,
    thin_overlap,
)

APART, TWINS, ONE_DOMAIN = "apart", "twins", "users in one domain"
FIRST, SHRUNK, ALONE = "the first domain", "the shrunk domain", "alone"
_FEW_ROWS = 5
"""Users with at most so many train rows get those of their partners, too."""

_ALIGNED_BY = {
    OFF: NOT_ALIGNED,
    "by users": f"{ALIGNED} graph.anchor_kinds=['user']",
    "by items": f"{ALIGNED} graph.anchor_kinds=['item']",
    "by both": ALIGNED,
}
_SHARED: tuple[tuple[Kind, str], ...] = (("user", "users"), ("item", "items"))


def overlap(bench: Bench, small: bool) -> Iterator[Case]:
    """Shared users, then shared items, thinned by renaming; aligned by anchors of either kind, of both, or not."""
    rows, seed = bench.rows(), bench.run.config.ingest.split.seed
    levels = (100, 0) if small else (100, 50, 25, 10, 5, 0)
    aligned = {level: _ALIGNED_BY[level] for level in (OFF, "by both")} if small else _ALIGNED_BY
    for kind, thinned in _SHARED[: 1 if small else 2]:
        for level in levels:
            run = bench.with_rows(thin_overlap(rows, kind, level / 100, seed), "train.intra_shared_at_most=1")
            yield from with_switches(
                {"thinned": thinned, "shared": f"{level} %"}, run, {"alignment": aligned, **evidence(small)}
            )


def oracle_twins(bench: Bench, small: bool) -> Iterator[Case]:
    """The same people under two names: kept apart, known to be the same, and as aligned pairs would have them."""
    seed, rows = bench.run.config.ingest.split.seed, bench.rows()
    twins = bench.twins()
    if twins is None:
        rows, twins = give_two_names(rows, seed)
    rows = _without_leaks(rows, twins)
    groups = {TWINS: _ends(twins), ONE_DOMAIN: _in_one_domain(rows)}
    variant = ("train.intra_shared_at_most=1", "ingest.protocol=released")  # its rows are clean, and all of them stay
    apart = bench.with_rows(rows, *variant)
    found, dealt = (bench.user_pairs(apart.with_overrides(ALIGNED, f"pairs.shuffled={on}")) for on in ("false", "true"))

    def cases(level: str, run: RunSpec, names: dict[tuple[str, str], str] | None = None) -> Iterator[Case]:
        renamed = {name: {(domain, (names or {}).get((domain, user), user)) for domain, user in users}
                   for name, users in groups.items()}  # fmt: skip
        measure = together(measure_groups(renamed), measure_twins(twins))
        yield from with_switches({"users": level}, run, evidence(small), measure)

    def merged(known: pa.Table) -> tuple[RunSpec, dict[tuple[str, str], str]]:
        names = _one_name(known)
        return bench.with_rows(merge_users(rows, names), *variant, NOT_ALIGNED), names

    yield from cases(APART, apart.with_overrides(NOT_ALIGNED))
    yield from cases("twins merged", *merged(twins))
    yield from cases("pairs, by distance", apart.with_overrides(ALIGNED))
    yield from cases("shuffled pairs, by distance", apart.with_overrides(ALIGNED, "pairs.shuffled=true"))
    for level, pairs in (("pairs", found), ("shuffled pairs", dealt)):
        yield from cases(f"{level} merged", *merged(_mutual(pairs)))
        yield from cases(f"rows of {level}", bench.with_rows(_borrowed(rows, pairs), *variant, NOT_ALIGNED))


def domain_count(bench: Bench, small: bool) -> Iterator[Case]:
    """The first domain alone, then with ever more others; domains in an order drawn by a seed."""
    rows, seed = bench.rows(), bench.run.config.ingest.split.seed
    names = by_size(rows)
    order = [names[n] for n in generator(seed, "domain count").permutation(len(names))]
    counts = sorted({min(2**n, len(names)) for n in range(7)})
    for count in counts:
        run = bench.with_rows(keep_domains(rows, order[:count]))
        level = f"{count} domain{'s' if count > 1 else ''}"
        yield from with_switches({"domains": level}, run, evidence(small), measure_domains(FIRST, order[:1]))


def small_domains(bench: Bench, small: bool) -> Iterator[Case]:
    """The largest domain with ever fewer users, trained with the others and alone."""
    rows, seed = bench.rows(), bench.run.config.ingest.split.seed
    domain = by_size(rows)[0]
    shares = (100, 25) if small else (100, 50, 25, 10, 5)
    measure = measure_domains(SHRUNK, [domain])
    for share in shares:
        shrunk = shrink_domain(rows, domain, share / 100, min(shares) / 100, seed)
        for training, of in (("together", shrunk), (ALONE, keep_domains(shrunk, [domain]))):
            yield from with_switches(
                {"users": f"{share} %", "training": training}, bench.with_rows(of), evidence(small), measure
            )


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


def _borrowed(rows: pa.Table, pairs: pa.Table) -> pa.Table:
    """The rows, and their partners' train rows for users with few of their own: in the partner's domain, not in theirs.

    There they hide no held-out row, and reach the user's own domain through the union graph and the evidence.
    """
    train = rows.filter(pc.equal(rows["split"], TRAIN))
    counts = train.group_by(["user_id"], use_threads=False).aggregate([("item_id", "count")])
    few = counts.filter(pc.less_equal(counts["item_id_count"], _FEW_ROWS))
    poor = pairs.join(few.select(["user_id"]), "source_id", "user_id", join_type="left semi")
    lives = rows.group_by(["domain", "user_id"], use_threads=False).aggregate([])
    poor = poor.join(lives, ["target_domain", "source_id"], ["domain", "user_id"], join_type="left anti")
    partners = train.rename_columns(["target_domain", "target_id", "item_id", "split"])
    taken = poor.join(partners, ["target_domain", "target_id"], join_type="inner")
    new = taken.select(["target_domain", "source_id", "item_id", "split"]).rename_columns(rows.column_names)
    return pa.concat_tables([rows, new.cast(rows.schema)])


def _without_leaks(rows: pa.Table, twins: pa.Table) -> pa.Table:
    """The rows without held-out ones whose item the same person was trained on under another name."""
    merged = merge_users(rows, _one_name(twins))
    train = merged.filter(pc.equal(merged["split"], TRAIN)).select(["user_id", "item_id"])
    trained = set(zip(train["user_id"].to_pylist(), train["item_id"].to_pylist(), strict=True))
    people = zip(merged["user_id"].to_pylist(), merged["item_id"].to_pylist(), strict=True)
    is_known = pa.array([person in trained for person in people])
    return rows.filter(pc.or_(pc.equal(rows["split"], TRAIN), pc.invert(is_known)))


def _one_name(twins: pa.Table) -> dict[tuple[str, str], str]:
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
