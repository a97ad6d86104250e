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
from flows.report.blocks import Block, Collapsed, Note, Plots, Section, Source, domain_colours, legend, number
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
    header = ("seed", "best epoch", "epochs", score, "seconds an epoch", "resident memory at its largest, MiB")
    title = f"Model {view.checkpoints[0].manifest.settings.get('model', 'edda')}, by seed"
    plots = Plots(list(_curves(view)), {**legend(view), MACRO: STANDS_OUT})
    blocks: list[Block] = [Table(title, header, tuple(rows)), plots]
    spread = _mean_spread(view)
    return Section("Training", [*blocks, Note(_explain_spread(*spread))] if spread else blocks, _summarise(view))


def _summarise(view: RunView) -> str:
    """One sentence: how long was trained, and what was kept."""
    trainings = [checkpoint.statistics_as(CheckpointStatistics) for checkpoint in view.checkpoints]
    if all(not training["epochs"] for training in trainings):
        return "This model has nothing to learn by epochs."
    first = trainings[0]
    seeds = "" if len(trainings) == 1 else f" (seed {view.checkpoints[0].manifest.settings.get('seed')})"
    return (
        f"The model went {number(first['epochs'])} times through the train interactions{seeds}; kept is what it knew "
        f"after epoch {number(first['epoch'])}, when it ranked the validation split best."
    )


_COLLAPSED = 0.1
"""Share of its largest value below which the spread of mapped vectors counts as collapsed."""


def _mean_spread(view: RunView) -> tuple[float, float] | None:
    """The spread of mapped vectors, mean over domains and seeds: its largest, and in the last epoch."""
    history = pa.concat_tables([checkpoint.read() for checkpoint in view.checkpoints])
    rows = history.filter(pc.equal(history["metric"], "map_spread"))
    if not rows.num_rows:
        return None
    means = rows.group_by("epoch").aggregate([("value", "mean")]).sort_by("epoch")["value_mean"].to_pylist()
    return max(means), means[-1]


def _explain_spread(largest: float, last: float) -> str:
    """What the spread of mapped vectors means, and what it came to."""
    meaning = (
        "Spread of mapped vectors: alignment compares two nodes after a map of each domain. If the maps send all nodes "
        "to one point, every pair is close, whoever is in it. "
    )
    if last >= _COLLAPSED * largest:
        return f"{meaning}Here they do not: the spread is {last:.3g} in the last epoch, {largest:.3g} at its largest."
    return (
        f"{meaning}Here the maps collapse: the spread falls from {largest:.3g} to {last:.3g}. A small distance of "
        "aligned pairs then says nothing about them, and alignment hardly moves the vectors any more. Compare with "
        "train.alignment = 0 to see whether it helped at all."
    )


_CURVES = {
    "loss": "Training loss",
    "full_ndcg@20": "Validation full NDCG@20",
    "auc": "Validation AUC",
    "evidence share": "Share of evidence in the score",
    "alignment": "Alignment loss: by default the distance of aligned pairs",
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
            Plots([bars("Time by stage", "seconds", seconds), bars("Largest resident memory by stage", "MiB", memory)]),
            Table("By stage, the last time that a run of this name made it", ("stage", "seconds", _MEMORY), rows),
            Note(_WHAT_MEMORY),
        ]
    artifacts = artifacts_table(view.name, view.artifacts)
    without_state = tuple(row[:-1] for row in artifacts.rows)
    blocks.append(Table("By artifact, whichever run made it", artifacts.header[:-1], without_state))
    lead = ""
    if costs:
        slowest = max(costs, key=lambda stage: costs[stage].seconds)
        lead = (
            f"The run took {number(sum(cost.seconds for cost in costs.values()))} seconds of work, "
            f"{number(costs[slowest].seconds)} of them in {slowest}, and the process held at most "
            f"{number(max(cost.memory_mib for cost in costs.values()))} MiB."
        )
    return Section("Cost", blocks, lead)


_MEMORY = "resident memory at its largest, MiB"
_WHAT_MEMORY = (
    "Resident memory is what the process holds in the machine's memory, mapped files, libraries and what earlier "
    "stages left included; a stage alone may need less. Workers of a Dask cluster are not counted."
)


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
    return Section("Provenance", blocks, "With these settings and seeds the same logs give the same run again.")


def _without_nulls(value: Any) -> Any:
    """Leave out keys without a value, at any depth: TOML has no null."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list | tuple) else value
