"""Run the cases of an experiment and keep their test metrics as one artifact."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import ALL, CHECKPOINT, EXPERIMENT, MACRO, METRICS, TEST, VALID
from data_contracts.roles import Role
from data_contracts.statistics import CheckpointStatistics, ExperimentStatistics
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from flows.compare.experiments import MEASURES, MEMORY, NDCG, SECONDS, VALIDATED
from flows.experiments.cases import Bench, Case, Row
from flows.runner.execute import Outcome

log = logging.getLogger(__name__)


def run_cases(name: str, design: ExperimentStatistics, cases: Iterator[Case], bench: Bench) -> Artifact:
    """Evaluate every case, one after another; what exists is kept, so a killed experiment goes on where it stopped.

    Args:
        name: of the experiment.
        design: its question and what is compared, kept with the results.
        cases: made one by one, because some need what runs before have made.
        bench: what they share.

    Returns:
        An `experiment` artifact, linked as `experiment` into the folder of the bench's run, so that neither it nor what
        it was made from is garbage.
    """
    store, rows, parents = bench.store, [], {}
    for number, case in enumerate(cases, 1):
        log.info("case %d: %s", number, case.label)
        outcome = bench.make(case.run, "evaluate")
        parents[f"{METRICS.name}-{number}"] = outcome.artifacts[METRICS.name]
        rows += [(case.label, *row) for row in _measure(case, bench, outcome)]
    columns = list(zip(*rows, strict=True))

    def write(draft: Draft) -> None:
        table = pa.table(list(map(pa.array, columns)), EXPERIMENT.file_schema)
        draft.write(table.sort_by([(column, "ascending") for column in EXPERIMENT.sorted_by]))
        draft.statistics |= design

    settings = {"experiment": name, "cases": sorted(set(columns[0])), "metrics": sorted(set(columns[4]))}
    artifact = store.make(EXPERIMENT, settings, parents, write)
    store.link(bench.run.config.name, EXPERIMENT.name, artifact)
    return artifact


def _measure(case: Case, bench: Bench, outcome: Outcome) -> Sequence[Row]:
    if case.remeasure:
        return case.remeasure(bench, outcome)
    metrics = outcome.artifacts[METRICS.name]
    validation = [(*row[:3], VALIDATED, row[4]) for row in _metrics_of(metrics, VALID, [NDCG])]
    besides = case.measure(bench, outcome) if case.measure else ()
    return [*_metrics_of(metrics, TEST, MEASURES), *validation, *_costs(outcome), *besides]


def _metrics_of(metrics: Artifact, split: str, wanted: Sequence[str]) -> list[Row]:
    """Some metrics of each seed on a split, by domain and stratum."""
    table = metrics.read(["seed", "domain", "split", "stratum", "metric", "value"])
    is_wanted = pc.and_(pc.equal(table["split"], split), pc.is_in(table["metric"], pa.array(wanted)))
    table = table.filter(pc.and_(is_wanted, pc.is_valid(table["seed"])))
    columns = (table[name].to_pylist() for name in ("seed", "domain", "stratum", "metric", "value"))
    return list(zip(*columns, strict=True))


def _costs(outcome: Outcome) -> list[Row]:
    """Seconds and memory of each seed's training; of one that was resumed, its last epochs' seconds for all."""
    rows: list[Row] = []
    for seed in outcome.config.train.seeds:
        training = outcome.artifacts[str(Role(CHECKPOINT, seed))].statistics_as(CheckpointStatistics)
        if seconds := training["epoch_seconds"]:
            rows.append((seed, MACRO, ALL, SECONDS, training["epochs"] * sum(seconds) / len(seconds)))
        if "memory_mib" in training:
            rows.append((seed, MACRO, ALL, MEMORY, float(training["memory_mib"])))
    return rows
