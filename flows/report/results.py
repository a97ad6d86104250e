"""A report's sections on what came of a run: training, accuracy beside other runs, cost, provenance."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tomli_w

from data_contracts.contracts import MACRO, WORLD
from flows.compare.runs import flat
from flows.output.plots import STANDS_OUT, Series, bars, line_plot, selected_by
from flows.output.tables import Table, artifacts_table
from flows.report.blocks import Block, Folded, Plots, Section, Source, colours_of, legend, number
from flows.runner.lookup import RunView
from flows.runner.stages import STAGE_NAMES

_POINTS = 120
"""Epochs that a curve shows, at most."""


def training_section(view: RunView) -> Section:
    """What each seed's training came to, and the curves of its measures, the mean over seeds."""
    rows = []
    for checkpoint in view.checkpoints:
        found, seconds = checkpoint.statistics, checkpoint.statistics.get("epoch_seconds")
        each = sum(seconds) / len(seconds) if seconds else None
        known = [number(found.get("epoch")), number(found.get("epochs")), number(found.get("score"), 5)]
        rows.append((str(checkpoint.manifest.settings.get("seed")), *known, number(each, 2),
                     number(found.get("memory_mib"))))  # fmt: skip
    if not rows:
        return Section("Training", [])
    score = f"validation score: {selected_by(view.checkpoints[0])}"
    header = ("seed", "best epoch", "epochs", score, "seconds an epoch", "peak MiB")
    title = f"Model {view.checkpoints[0].manifest.settings.get('model', 'edda')}, by seed"
    return Section(
        "Training",
        [
            Table(title, header, tuple(rows)),
            Plots(list(_curves(view)), {**legend(view), "mean over domains": STANDS_OUT}),
        ],
    )


def _curves(view: RunView) -> Iterator[str]:
    """Loss, validation measures, distance of aligned pairs, norm and spread of the maps; those that the history has."""
    history = pa.concat_tables([checkpoint.read() for checkpoint in view.checkpoints])
    best = view.checkpoints[0].statistics.get("epoch") if len(view.checkpoints) == 1 else None
    aligned = pc.starts_with(history["metric"], "alignment to ")
    history = history.set_column(2, "metric", pc.if_else(aligned, "alignment", history["metric"]))
    for metric, title in (
        ("loss", "Training loss"), ("full_ndcg@20", "Validation full NDCG@20"), ("auc", "Validation AUC"),
        ("evidence share", "Share of evidence in the score"), ("alignment", "Distance of aligned pairs"),
        ("map_spread", "Spread of mapped vectors (0: collapsed)"), ("map_norm", "Norm of the maps"),
    ):  # fmt: skip
        own = history.filter(pc.equal(history["metric"], metric))
        if own.num_rows:
            means = own.group_by(["domain", "epoch"]).aggregate([("value", "mean")]).sort_by("epoch")
            yield line_plot(title, ("epoch", ""), list(_lines(view, means)), marked=best)


def _lines(view: RunView, means: pa.Table) -> Iterator[Series]:
    for domain in dict.fromkeys([*view.sizes, MACRO]):
        own = means.filter(pc.equal(means["domain"], domain))
        if own.num_rows:
            places = np.unique(np.linspace(0, own.num_rows - 1, _POINTS).astype(np.int64))
            points = own["epoch"].to_numpy()[places], own["value_mean"].to_numpy()[places]
            yield Series(points, STANDS_OUT if domain == MACRO else colours_of(view).get(domain))


def cost_section(view: RunView) -> Section:
    """Time and memory by stage, then time and size of each artifact."""
    costs = {stage: view.costs[stage] for stage in (WORLD.name, *STAGE_NAMES) if stage in view.costs}
    rows = tuple((stage, number(cost.seconds, 1), number(cost.memory_mib)) for stage, cost in costs.items())
    blocks: list[Block] = []
    if rows:
        seconds = {stage: cost.seconds for stage, cost in costs.items()}
        memory = {stage: float(cost.memory_mib) for stage, cost in costs.items()}
        blocks = [
            Plots([bars("Time by stage", "seconds", seconds), bars("Peak memory by stage", "MiB", memory)]),
            Table("By stage, as this run's name made it last", ("stage", "seconds", "peak MiB"), rows),
        ]
    artifacts = artifacts_table(view.name, view.artifacts)
    own = tuple(row[:-1] for row in artifacts.rows)
    return Section("Cost", [*blocks, Table("By artifact, whichever run made it", artifacts.header[:-1], own)])


def provenance_section(view: RunView) -> Section:
    """Keys, versions, seeds, and the settings as the run's TOML file."""
    rows = []
    for role, artifact in view.artifacts.items():
        found = artifact.manifest
        made = [str(found.made.get(name, "–")) for name in ("at", "edda", "pyarrow")]
        rows.append((role, found.key, str(found.version), *made))
    seeds = {key: value for key, value in flat(view.config) if key.rsplit(".", 1)[-1] in ("seed", "seeds")}
    seeds["evaluate.candidate_seed"] = view.config["evaluate"]["candidate_seed"]
    header = ("artifact", "key", "contract version", "made at", "edda", "pyarrow")
    return Section("Provenance", [
        Table("A key is a digest of contract, settings and parents", header, tuple(rows), left=True),
        Table("Seeds", ("setting", "value"), tuple((key, json.dumps(seed)) for key, seed in seeds.items()), left=True),
        Folded("All settings, as TOML", [Source(tomli_w.dumps(_without_nulls(view.config)).strip())]),
    ])  # fmt: skip


def _without_nulls(settings: Mapping[str, Any]) -> dict[str, Any]:
    """TOML has no null: keys without a value are left out, in tables and in lists of tables."""
    kept = {key: value for key, value in settings.items() if value is not None}
    return {key: _cleaned(value) for key, value in kept.items()}


def _cleaned(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _without_nulls(value)
    return [_cleaned(one) for one in value] if isinstance(value, list | tuple) else value
