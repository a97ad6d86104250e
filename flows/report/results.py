"""A report's sections on what came of a run: training, accuracy beside other runs, cost, provenance."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import MACRO, WORLD
from flows.compare.runs import flat
from flows.output.plots import STANDS_OUT, Series, bars, line_plot, selected_by
from flows.output.tables import Table, artifacts_table
from flows.report.blocks import Block, Folded, Plots, Section, Source, legend, number
from flows.runner.lookup import Told
from flows.runner.stages import STAGES

log = logging.getLogger(__name__)

_POINTS = 120
"""Epochs that a curve shows, at most."""


def training_section(told: Told) -> Section:
    """What each seed's training came to, and the curves of its measures, the mean over seeds."""
    rows = []
    for checkpoint in told.checkpoints:
        found, seconds = checkpoint.statistics, checkpoint.statistics.get("epoch_seconds")
        each = sum(seconds) / len(seconds) if seconds else None
        known = [number(found.get("epoch")), number(found.get("epochs")), number(found.get("score"), 5)]
        rows.append((str(checkpoint.manifest.settings.get("seed")), *known, number(each, 2),
                     number(found.get("memory_mib"))))  # fmt: skip
    if not rows:
        return Section("Training", [])
    score = f"validation score: {selected_by(told.checkpoints[0])}"
    header = ("seed", "best epoch", "epochs", score, "seconds an epoch", "peak MiB")
    title = f"Model {told.checkpoints[0].manifest.settings.get('model', 'edda')}, by seed"
    return Section(
        "Training",
        [
            Table(title, header, tuple(rows)),
            Plots(list(_curves(told)), {**legend(told), "mean over domains": STANDS_OUT}),
        ],
    )


def _curves(told: Told) -> Iterator[str]:
    """Loss, validation measures, distance of aligned pairs, norm and spread of the maps; those that the history has."""
    history = pa.concat_tables([checkpoint.read() for checkpoint in told.checkpoints])
    best = told.checkpoints[0].statistics.get("epoch") if len(told.checkpoints) == 1 else None
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
            yield line_plot(title, ("epoch", ""), list(_lines(told, means)), marked=best)


def _lines(told: Told, means: pa.Table) -> Iterator[Series]:
    for domain in dict.fromkeys([*told.sizes, MACRO]):
        own = means.filter(pc.equal(means["domain"], domain))
        if own.num_rows:
            places = np.unique(np.linspace(0, own.num_rows - 1, _POINTS).astype(np.int64))
            points = own["epoch"].to_numpy()[places], own["value_mean"].to_numpy()[places]
            yield Series(points, STANDS_OUT if domain == MACRO else told.colours.get(domain))


def cost_section(told: Told) -> Section:
    """Time and memory by stage, then time and size of each artifact."""
    costs = {stage: told.costs[stage] for stage in (WORLD.name, *STAGES) if stage in told.costs}
    rows = tuple((stage, number(cost.seconds, 1), number(cost.memory_mib)) for stage, cost in costs.items())
    blocks: list[Block] = []
    if rows:
        seconds = {stage: cost.seconds for stage, cost in costs.items()}
        memory = {stage: float(cost.memory_mib) for stage, cost in costs.items()}
        blocks = [
            Plots([bars("Time by stage", "seconds", seconds), bars("Peak memory by stage", "MiB", memory)]),
            Table("By stage, as this run's name made it last", ("stage", "seconds", "peak MiB"), rows),
        ]
    artifacts = artifacts_table(told.name, told.artifacts)
    own = tuple(row[:-1] for row in artifacts.rows)
    return Section("Cost", [*blocks, Table("By artifact, whichever run made it", artifacts.header[:-1], own)])


def provenance_section(told: Told) -> Section:
    """Keys, versions, seeds, and the settings as the run's TOML file."""
    rows = []
    for role, artifact in told.artifacts.items():
        found = artifact.manifest
        made = [str(found.made.get(name, "–")) for name in ("at", "edda", "pyarrow")]
        rows.append((role, found.key, str(found.version), *made))
    seeds = {key: value for key, value in flat(told.config) if key.rsplit(".", 1)[-1] in ("seed", "seeds")}
    seeds["evaluate.candidate_seed"] = told.config["evaluate"]["candidate_seed"]
    header = ("artifact", "key", "contract version", "made at", "edda", "pyarrow")
    return Section("Provenance", [
        Table("A key is a digest of contract, settings and parents", header, tuple(rows), left=True),
        Table("Seeds", ("setting", "value"), tuple((key, json.dumps(seed)) for key, seed in seeds.items()), left=True),
        Folded("All settings, as TOML", [Source("\n".join(as_toml(told.config)).strip())]),
    ])  # fmt: skip


def as_toml(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Settings as the lines of a TOML file: a table's own values, then the tables inside; what is null is left out."""
    inner = {key: value for key, value in settings.items() if _is_table(value) or _is_list_of_tables(value)}
    yield from (f"{_key(key)} = {_value(value)}" for key, value in settings.items()
                if key not in inner and value is not None)  # fmt: skip
    for key, value in inner.items():
        name = f"{prefix}{_key(key)}"
        for table in [value] if _is_table(value) else value:
            yield from ("", f"[{name}]" if table is value else f"[[{name}]]")
            yield from as_toml(table, f"{name}.")


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_list_of_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_table, value))


def _key(key: str) -> str:
    return key if key.isascii() and key.replace("_", "").replace("-", "").isalnum() else _value(key)


def _value(value: Any) -> str:
    """JSON's texts, numbers, booleans and lists of them are TOML."""
    return json.dumps(value, ensure_ascii=False)
