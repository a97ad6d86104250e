"""A report's sections on training, cost and provenance."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tomli_w

from data_contracts.contracts import MACRO, WORLD
from data_contracts.statistics import CheckpointStatistics
from flows.config.run_config import flatten
from flows.output.plots import STANDS_OUT, Series, bars, line_plot, selection_measure
from flows.output.tables import Table, artifacts_table
from flows.report.blocks import Block, Collapsed, Plots, Section, Source, domain_colours, legend, number
from flows.runner.lookup import RunView
from flows.runner.stages import STAGE_NAMES

_POINTS = 120
"""Most epochs of a curve."""


def training_section(view: RunView) -> Section:
    """The result of training by seed, and the curves of its measures, as means over seeds."""
    rows = []
    for checkpoint in view.checkpoints:
        training = checkpoint.statistics_as(CheckpointStatistics)
        seconds = training["epoch_seconds"]
        cells = [
            str(checkpoint.manifest.settings.get("seed")),
            number(training["epoch"]),
            number(training["epochs"]),
            number(training["score"], 5),
            number(sum(seconds) / len(seconds) if seconds else None, 2),
            number(training.get("memory_mib")),
        ]
        rows.append(tuple(cells))
    if not rows:
        return Section("Training", [])
    score = f"validation score: {selection_measure(view.checkpoints[0])}"
    header = ("seed", "best epoch", "epochs", score, "seconds an epoch", "peak MiB")
    title = f"Model {view.checkpoints[0].manifest.settings.get('model', 'edda')}, by seed"
    plots = Plots(list(_curves(view)), {**legend(view), "mean over domains": STANDS_OUT})
    return Section("Training", [Table(title, header, tuple(rows)), plots])


_CURVES = {
    "loss": "Training loss",
    "full_ndcg@20": "Validation full NDCG@20",
    "auc": "Validation AUC",
    "evidence share": "Share of evidence in the score",
    "alignment": "Distance of aligned pairs",
    "map_spread": "Spread of mapped vectors (0: collapsed)",
    "map_norm": "Norm of the maps",
}
"""Metric of the history → title of its plot."""


def _curves(view: RunView) -> Iterator[str]:
    """Plots of the metrics that the history has."""
    history = pa.concat_tables([checkpoint.read() for checkpoint in view.checkpoints])
    is_single = len(view.checkpoints) == 1
    best = view.checkpoints[0].statistics_as(CheckpointStatistics)["epoch"] if is_single else None
    aligned = pc.starts_with(history["metric"], "alignment to ")
    history = history.set_column(2, "metric", pc.if_else(aligned, "alignment", history["metric"]))
    for metric, title in _CURVES.items():
        values = history.filter(pc.equal(history["metric"], metric))
        if values.num_rows:
            means = values.group_by(["domain", "epoch"]).aggregate([("value", "mean")]).sort_by("epoch")
            yield line_plot(title, ("epoch", ""), list(_lines(view, means)), marked=best)


def _lines(view: RunView, means: pa.Table) -> Iterator[Series]:
    for domain in dict.fromkeys([*view.sizes, MACRO]):
        rows = means.filter(pc.equal(means["domain"], domain))
        if rows.num_rows:
            shown = np.unique(np.linspace(0, rows.num_rows - 1, _POINTS).astype(np.int64))
            points = rows["epoch"].to_numpy()[shown], rows["value_mean"].to_numpy()[shown]
            yield Series(points, STANDS_OUT if domain == MACRO else domain_colours(view).get(domain))


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
            Table("By stage, the last time that a run of this name made it", ("stage", "seconds", "peak MiB"), rows),
        ]
    artifacts = artifacts_table(view.name, view.artifacts)
    without_state = tuple(row[:-1] for row in artifacts.rows)
    blocks.append(Table("By artifact, whichever run made it", artifacts.header[:-1], without_state))
    return Section("Cost", blocks)


def provenance_section(view: RunView) -> Section:
    """Keys, versions, seeds, and the settings as the run's TOML file."""
    rows = []
    for role, artifact in view.artifacts.items():
        manifest = artifact.manifest
        made = [str(manifest.made.get(name, "–")) for name in ("at", "edda", "pyarrow")]
        rows.append((role, manifest.key, str(manifest.version), *made))
    seeds = {key: value for key, value in flatten(view.config) if key.rpartition(".")[2] in ("seed", "seeds")}
    seeds["evaluate.candidate_seed"] = view.config["evaluate"]["candidate_seed"]
    header = ("artifact", "key", "contract version", "made at", "edda", "pyarrow")
    seed_rows = tuple((key, json.dumps(seed)) for key, seed in seeds.items())
    settings = tomli_w.dumps(_without_nulls(view.config)).strip()
    blocks: list[Block] = [
        Table("A key is a digest of contract, settings and parents", header, tuple(rows), left=True),
        Table("Seeds", ("setting", "value"), seed_rows, left=True),
        Collapsed("All settings, as TOML", [Source(settings)]),
    ]
    return Section("Provenance", blocks)


def _without_nulls(value: Any) -> Any:
    """Leave out keys without a value, at any depth: TOML has no null."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list | tuple) else value
