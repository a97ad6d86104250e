"""A report's sections on what came of a run: training, accuracy beside other runs, cost, provenance."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.artifact import MANIFEST, Artifact
from data_contracts.contracts import INTERACTIONS, MACRO, METRICS, WORLD
from flows.comparison import Compared, cautions, flat, recorded
from flows.comparison_tables import domain_tables, settings_table, shares_tables
from flows.curve import selected_by
from flows.figures import COLOURS, STANDS_OUT, Series, Spread, bars, intervals, line_plot
from flows.plan import STAGES
from flows.report_blocks import Block, Folded, Note, Plots, Section, Source, Told, legend, number
from flows.summary import NOTHING_MEASURED, Table, artifacts_table, metric_names, metrics_table

log = logging.getLogger(__name__)

_POINTS = 120
"""Epochs that a curve shows, at most."""

_OPEN = 3
"""Domains, the smallest, whose comparison is shown unfolded."""

_PLOTTED_DOMAINS = 30


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


def accuracy_section(told: Told) -> Section:
    """Test metrics by domain, small ones first; beside the store's other runs on the same interactions."""
    if METRICS.name not in told.artifacts:
        return Section("Accuracy", [])
    metrics = metrics_table(told.artifacts, "Test metrics by domain, small ones first (95 % interval)")
    if not metrics.rows:
        return Section("Accuracy", [Note(NOTHING_MEASURED)])
    *domains, (_, *of_mean) = metrics.rows
    blocks: list[Block] = [Table(metrics.title, metrics.header, (*reversed(domains), ("mean", *of_mean)))]
    this = Compared(told.name, told.config, told.artifacts)
    others, left_out = _others(told)
    shown = [this, *others[: COLOURS - 1]]
    colours = {run.name: place for place, run in enumerate(shown)}
    blocks.append(Plots([_intervals(told, shown, metric) for metric in _plotted(this)], colours))
    if others:
        runs = [this, *others]
        *tables, over_domains = domain_tables(runs)
        blocks += [*tables[:_OPEN], over_domains]
        blocks += [Folded("Larger domains", tables[_OPEN:])] if tables[_OPEN:] else []
        blocks += [*shares_tables(runs), settings_table(runs)]
        blocks += [Note(f"Caution: {caution}.") for caution in cautions(runs)]
    else:
        blocks.append(Note("The store has no other evaluated run of the same interactions to compare with."))
    return Section("Accuracy", [*blocks, *left_out])


def _others(told: Told) -> tuple[list[Compared], list[Note]]:
    """Other runs of the store that were evaluated on the same interactions, and what is said of damaged ones."""
    runs, notes = [], []
    for name in told.store.run_names():
        try:
            if name != told.name and (run := _same_rows(told, name)):
                runs.append(run)
        except (OSError, ValueError) as error:  # of somebody else's run: no reason to have no report
            note = f"Run {name} is left out: {'; '.join(str(error).splitlines())}"
            log.warning("report of run %r: %s", told.name, note)
            notes.append(Note(note))
    return runs, notes


def _same_rows(told: Told, name: str) -> Compared | None:
    """A run by its name, if it was evaluated on the same interactions and this program can read it.

    Raises:
        OSError, ValueError: it is damaged.
    """
    artifacts, mine = told.store.run(name)[0], told.artifacts.get(INTERACTIONS.name)
    if mine is None or artifacts.get(INTERACTIONS.name) != mine or METRICS.name not in artifacts:
        return None
    run = recorded(name, told.store)
    if not all(_is_readable(found) for found in run.artifacts.values()):
        return None
    if problems := run.artifacts[METRICS.name].verify():
        raise _damaged(run.artifacts[METRICS.name], problems[0])
    return run


def _is_readable(artifact: Artifact) -> bool:
    try:
        return artifact.is_readable
    except ValueError as error:
        raise _damaged(artifact, f"{MANIFEST} cannot be read") from error


def _damaged(artifact: Artifact, problem: object) -> OSError:
    return OSError(f"{artifact.address} is damaged: {problem}; delete it and run the run's file again")


def _plotted(run: Compared) -> list[str]:
    """One metric among candidates, one among all items."""
    names = metric_names(run.values)
    return [name for name in names if name == "auc" or name.startswith("full_recall")][:2]


def _intervals(told: Told, runs: Sequence[Compared], metric: str) -> str:
    domains = [domain for domain in reversed(told.sizes) if (domain, metric) in runs[0].values][:_PLOTTED_DOMAINS]
    nothing: Mapping[str, float] = dict.fromkeys(("value", "low", "high"), np.nan)
    spreads = []
    for run in runs:
        found = [run.values.get((domain, metric), nothing) for domain in [*domains, MACRO]]
        spreads.append(Spread(*([own[name] for own in found] for name in nothing)))
    return intervals(f"Test {metric}, 95 % interval", [*domains, "mean"], spreads)


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
