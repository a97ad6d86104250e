"""Cases that vary the settings of a run: tables, building blocks, depth, walks."""

from __future__ import annotations

from collections.abc import Iterator

from flows.experiments.cases import ALIGNED, ALIGNMENT, NOT_ALIGNED, OFF, Bench, Case, evidence, with_switches
from flows.experiments.measures import measure_gradients_by_domain, measure_twins
from flows.experiments.rows import give_two_names

EXACT, SHUFFLED = "exact", "shuffled"

_TABLES = {level: f"train.tables={level} train.intra_shared_at_most=1" for level in ("both", "inter", "intra")}


def gradient_conflict(bench: Bench, small: bool) -> Iterator[Case]:
    """Each kind of tables, without alignment, with and without evidence."""
    run = bench.run.with_overrides(NOT_ALIGNED)
    yield from with_switches({}, run, {"tables": _TABLES, **evidence(small, OFF)}, measure_gradients_by_domain)


def depth_or_alignment(bench: Bench, small: bool) -> Iterator[Case]:
    """Layers by pairs of short walks, of longer ones, and no pairs."""
    layers = {f"{n} layer{'s' * (n != 1)}": f"train.layers={n}" for n in ((0, 2) if small else range(6))}
    pairs = {
        OFF: NOT_ALIGNED,
        "3 and 4 steps": f"{ALIGNED} reach.steps=[3,4]",
        "5 and 6 steps": f"{ALIGNED} reach.steps=[5,6]",
    }
    yield from with_switches({}, bench.run, {"layers": layers, "alignment": pairs, **evidence(small)})


def building_blocks(bench: Bench, small: bool) -> Iterator[Case]:
    """Building blocks by tables by alignment, with shuffled pairs as its floor; a single table has nothing to align."""
    blocks = {name: f"train.backbone={name}" for name in ("mf", "lightgcn", "grec", "jgcf")}
    levels = ALIGNMENT if small else {**ALIGNMENT, SHUFFLED: f"{ALIGNED} pairs.shuffled=true"}
    for tables, override in _TABLES.items():
        run = bench.run.with_overrides(*override.split())
        aligned = {OFF: NOT_ALIGNED} if tables == "inter" else levels
        yield from with_switches({"tables": tables}, run, {"block": blocks, "alignment": aligned, **evidence(small)})


def walk_quality(bench: Bench, small: bool) -> Iterator[Case]:
    """Walks of each length by their number; exact expected visits beside them."""
    twins, run = bench.twins(), bench.run
    if twins is None:
        rows, twins = give_two_names(bench.rows(), bench.run.config.ingest.split.seed)
        run = bench.with_rows(rows)
    counts = (100, 1_000) if small else (100, 1_000, 10_000, 100_000)
    walks = {f"{count:,} walks": f"reach.method=walk reach.walks={count}" for count in counts}
    switches = {"walks": {**walks, EXACT: "reach.method=exact"}, **evidence(small, OFF)}
    aligned = run.with_overrides(ALIGNED, "train.intra_shared_at_most=1")
    yield from with_switches({}, aligned, switches, measure_twins(twins))
