"""Cases that vary the rows of a run: overlap, the number of domains and their size."""

from __future__ import annotations

from collections.abc import Iterator

from data_contracts.seeding import generator
from flows.experiments.cases import ALIGNED, NOT_ALIGNED, OFF, Bench, Case, evidence, with_switches
from flows.experiments.measures import measure_domain
from flows.experiments.rows import (
    Kind,
    by_size,
    keep_domains,
    shrink_domain,
    thin_overlap,
    user_strata,
)

FIRST, SHRUNK, ALONE = "the first domain", "the shrunk domain", "alone"
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


def domain_count(bench: Bench, small: bool) -> Iterator[Case]:
    """The first domain alone, then with ever more others; domains in an order drawn by a seed."""
    rows, seed = bench.rows(), bench.run.config.ingest.split.seed
    names = by_size(rows)
    order = [names[n] for n in generator(seed, "domain count").permutation(len(names))]
    measure = measure_domain(FIRST, order[0], user_strata(rows, order[0]))
    counts = sorted({min(2**n, len(names)) for n in range(7)})
    for count in counts:
        run = bench.with_rows(keep_domains(rows, order[:count]))
        level = f"{count} domain{'s' if count > 1 else ''}"
        yield from with_switches({"domains": level}, run, evidence(small), measure)


def small_domains(bench: Bench, small: bool) -> Iterator[Case]:
    """The largest domain with ever fewer users, trained with the others and alone."""
    rows, seed = bench.rows(), bench.run.config.ingest.split.seed
    domain = by_size(rows)[0]
    shares = (100, 25) if small else (100, 50, 25, 10, 5)
    measure = measure_domain(SHRUNK, domain, user_strata(rows, domain))
    for share in shares:
        shrunk = shrink_domain(rows, domain, share / 100, min(shares) / 100, seed)
        for training, of in (("together", shrunk), (ALONE, keep_domains(shrunk, [domain]))):
            yield from with_switches(
                {"users": f"{share} %", "training": training}, bench.with_rows(of), evidence(small), measure
            )
