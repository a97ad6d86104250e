"""Results of experiments: which a run has, and their values by case."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pyarrow.compute as pc

from data_contracts.contracts import EXPERIMENT, MACRO
from data_contracts.store.artifact import Artifact
from flows.compare.effects import number_of, parse_label
from flows.config.run_config import RunConfig
from flows.runner.lookup import RunView

NDCG = "full_ndcg@20"
MEASURES = (NDCG, "full_recall@20", "auc", "recall@1")
"""Test metrics that are kept of each case."""
VALIDATED = f"validation {NDCG}"
"""What a choice among cases goes by: the same on the validation split."""
SECONDS, MEMORY = "train seconds", "train MiB"
"""Cost of one seed's training."""

_LONGEST_NAME = 99


def require_cutoff(config: RunConfig, command: str) -> None:
    """Refuse, before hours of work, a run that does not evaluate NDCG.

    Raises:
        ValueError: its cut-off is not among evaluate.full_at.
    """
    if int(NDCG.partition("@")[2]) not in config.evaluate.full_at:
        raise ValueError(f"{command}: evaluate.full_at is {list(config.evaluate.full_at)}, must have 20 for {NDCG}")


def experiment_run(run: str, experiment: str) -> str:
    """Name of the runs that an experiment makes of a run; their folder has the results."""
    return f"{run[: _LONGEST_NAME - len(experiment)]}-{experiment}"


def experiments_of(view: RunView) -> Iterator[Artifact]:
    """Results of the experiments with a run, by name; without those of versions that kept no question with them."""
    for name in view.store.run_names():
        results = view.store.linked(name, EXPERIMENT.name)
        if results is None or not results.manifest.statistics:
            continue
        if name in (view.name, experiment_run(view.name, results.manifest.settings["experiment"])):
            yield results


def cases_of(results: Artifact) -> list[str]:
    """Labels of the cases, their levels in the order of their numbers."""
    cases: set[str] = set(results.read(["case"])["case"].to_pylist())
    return sorted(cases, key=lambda case: [level_order(level) for level in parse_label(case).values()])


def level_order(level: str) -> tuple[float, str]:
    """Sorts levels by their number, those without one first."""
    number = number_of(level)
    return (-math.inf if number is None else number), level


def values_by_case(results: Artifact, metric: str, domain: str = MACRO) -> dict[str, dict[str, dict[int, float]]]:
    """Stratum → case → seed → value of a metric in a domain."""
    table = results.read()
    table = table.filter(pc.and_(pc.equal(table["metric"], metric), pc.equal(table["domain"], domain)))
    values: dict[str, dict[str, dict[int, float]]] = {}
    for row in table.to_pylist():
        values.setdefault(row["stratum"], {}).setdefault(row["case"], {})[row["seed"]] = row["value"]
    return values


def domains_of(results: Artifact) -> Sequence[str]:
    """The domains that were measured, and `macro`, ascending."""
    domains: list[str] = sorted(pc.unique(results.read(["domain"])["domain"]).to_pylist())
    return domains
