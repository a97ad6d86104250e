"""Cases that vary the settings of a run: tables, building blocks, depth, walks."""

from __future__ import annotations

from collections.abc import Iterator

from flows.experiments.cases import ALIGNED, ALIGNMENT, EVIDENCE, NOT_ALIGNED, OFF, ON, Bench, Case, with_switches
from flows.experiments.measures import measure_gradients_by_domain, measure_twins
from flows.experiments.rows import renamed_twins, thin_overlap

EXACT = "exact"

_TABLES = {level: f"train.tables={level} train.intra_shared_at_most=1" for level in ("both", "inter", "intra")}
_THINNED = 0.5
"""Share of the shared users that stay shared, so that a run on given logs has twins."""


def gradient_conflict(bench: Bench, small: bool) -> Iterator[Case]:
    """Each kind of tables, without alignment, with and without evidence."""
    evidence = {"evidence": {OFF: EVIDENCE["evidence"][OFF]}} if small else EVIDENCE
    run = bench.run.with_overrides(NOT_ALIGNED)
    yield from with_switches({}, run, {"tables": _TABLES, **evidence}, measure_gradients_by_domain)


def depth_or_alignment(bench: Bench, small: bool) -> Iterator[Case]:
    """Layers by pairs of short walks, of longer ones, and no pairs."""
    layers = {f"{n} layers": f"train.layers={n}" for n in ((0, 2) if small else range(6))}
    pairs = {
        OFF: NOT_ALIGNED,
        "3 and 4 steps": f"{ALIGNED} reach.steps=[3,4]",
        "5 and 6 steps": f"{ALIGNED} reach.steps=[5,6]",
    }
    evidence = {"evidence": {ON: EVIDENCE["evidence"][ON]}} if small else EVIDENCE
    yield from with_switches({}, bench.run, {"layers": layers, "alignment": pairs, **evidence})


def building_blocks(bench: Bench, small: bool) -> Iterator[Case]:
    """Building blocks by tables by alignment; a single table has nothing to align."""
    blocks = {name: f"train.backbone={name}" for name in ("mf", "lightgcn", "grec")}
    evidence = {"evidence": {ON: EVIDENCE["evidence"][ON]}} if small else EVIDENCE
    for tables, override in _TABLES.items():
        run = bench.run.with_overrides(*override.split())
        aligned = {"alignment": {OFF: NOT_ALIGNED}} if tables == "inter" else ALIGNMENT
        yield from with_switches({"tables": tables}, run, {"block": blocks, **aligned, **evidence})


def walk_quality(bench: Bench, small: bool) -> Iterator[Case]:
    """Walks of each length by their number; exact expected visits beside them."""
    twins, run = bench.twins(), bench.run
    if twins is None:
        rows, seed = bench.rows(), bench.run.config.ingest.split.seed
        twins, run = renamed_twins(rows, _THINNED, seed), bench.with_rows(thin_overlap(rows, "user", _THINNED, seed))
    counts = (100, 1_000) if small else (100, 1_000, 10_000, 100_000)
    walks = {f"{count:,} walks": f"reach.method=walk reach.walks={count}" for count in counts}
    evidence = {"evidence": {OFF: EVIDENCE["evidence"][OFF]}} if small else EVIDENCE
    switches = {"walks": {**walks, EXACT: "reach.method=exact"}, **evidence}
    aligned = run.with_overrides(ALIGNED, "train.intra_shared_at_most=1")
    yield from with_switches({}, aligned, switches, measure_twins(twins))
