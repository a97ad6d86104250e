"""The stage that evaluates: checkpoints → metrics of every domain and their means, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from data_contracts.contracts import ALL, BLEND, MACRO, METRICS, RANKS, TEST, UNBOUNDED, VALID
from data_contracts.progress import FinishedPart, Progress, offset_progress, silent
from data_contracts.roles import Role
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.ranking import EvaluateSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from model.compute.threads import torch_threads
from model.data.candidates import build_held_out, of_drawn_users
from model.data.dataset import DomainData, Interactions, MultiDomainData, load_dataset, load_interactions
from model.edda.checkpoint import Checkpoint, checkpoint_roles, load_checkpoint
from model.evaluation.beyond_accuracy import catalogue_measures, list_measures
from model.evaluation.metrics import (
    Estimate,
    auc_parts,
    candidate_ranks,
    candidate_statistics,
    estimates,
    mean_estimate,
    mean_statistics,
    resample_weights,
    user_statistics,
    user_values,
)
from model.evaluation.ranking import rank_held_out
from model.evaluation.score_parts import measured_users, spread_shares
from model.evaluation.strata import Strata
from model.evidence.blend import Blend, BlendWeights, read_weights
from model.evidence.domain_evidence import DomainEvidence, load_evidence
from model.sparse.rows import Ints


@dataclass(frozen=True)
class RankedHeldOut:
    """Scores and ranks of the held-out rows of a domain and split.

    Attributes:
        rows: the held-out rows.
        positive: float32 (rows), scores of the held-out items.
        candidates: float32 (rows, candidates), scores of their candidates, NaN for missing ones.
        users, ranks: int32 and int64, user and full rank of each row that is ranked, as in `rank_held_out`.
        is_ranked: bool (rows), whether a row is ranked.
        lists: int32 (users with test rows, length), what they are recommended, as in `rank_held_out`.
    """

    rows: Interactions
    positive: NDArray[np.float32]
    candidates: NDArray[np.float32]
    users: Ints
    ranks: NDArray[np.int64]
    is_ranked: NDArray[np.bool_]
    lists: Ints

    @classmethod
    def build(
        cls,
        vectors: Tensor,
        domain: DomainData,
        interactions: Interactions,
        split: str,
        settings: EvaluateSettings,
        blend: Blend | None = None,
    ) -> RankedHeldOut:
        """Score and rank one split of a domain's interactions by the final vectors of its nodes, blended or alone."""
        if settings.users is not None:
            interactions = of_drawn_users(interactions, domain, split, settings.users, settings.candidate_seed)
        candidates = build_held_out(interactions, domain, split, settings).candidates
        ranking = rank_held_out(vectors, domain, interactions, split, candidates, blend)
        return cls(
            rows=interactions.for_split(split),
            positive=ranking.scores[:, 0],
            candidates=ranking.scores[:, 1:],
            users=ranking.users,
            ranks=ranking.ranks,
            is_ranked=ranking.is_ranked,
            lists=ranking.lists,
        )

    def ranks_table(self, seed: int, domain: str) -> pa.Table:
        """The ranks under RANKS, in the order of the rows."""
        size = self.rows.users.size
        auc = auc_parts(self.positive, self.candidates)
        full_ranks = np.zeros(size, np.int64)
        full_ranks[self.is_ranked] = self.ranks
        columns = [
            pa.repeat(pa.scalar(seed, pa.int64()), size),
            pa.repeat(domain, size),
            self.rows.union_users,
            self.rows.union_items,
            pa.array(candidate_ranks(self.positive, self.candidates).astype(np.int32), mask=np.isnan(auc)),
            pa.array(auc, mask=np.isnan(auc)),
            pa.array(full_ranks, mask=~self.is_ranked),
        ]
        return pa.table(columns, schema=RANKS.file_schema)


Measured = dict[tuple[str, str, str, str], Estimate]
"""Estimates by domain, split, stratum and metric."""


@dataclass(frozen=True)
class EvaluationData:
    """What every checkpoint is measured on: interactions and evidence of each domain, strata, under one protocol."""

    settings: EvaluateSettings
    dataset: MultiDomainData
    interactions: tuple[Interactions, ...]
    evidence: tuple[DomainEvidence, ...]
    strata: Strata

    def blend(self, index: int, weights: Mapping[str, BlendWeights]) -> Blend | None:
        """The blend of a domain; None if vectors rank alone."""
        name = self.dataset.domains[index].name
        return Blend(weights[name], self.evidence[index]) if self.evidence and name in weights else None


def evaluate(
    store: Store,
    settings: EvaluateSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,
    progress: Progress = silent,
) -> dict[str, Artifact]:
    """Measure checkpoints on the validation and test splits.

    auc and recall@k rank each held-out item against its candidates; full_recall@k, full_ndcg@k and full_mrr rank all
    items of the domain for each user with held-out items (`model.evaluation.metrics`, `model.evaluation.ranking`).
    `low` and `high` are percentiles 2.5 and 97.5 of a bootstrap over held-out rows with their candidates, for the full
    ranking over users.
    full_recall@k and full_ndcg@k are measured in strata too (`model.evaluation.strata`), by the rows of the stratum
    alone; of them the users are resampled. The stratum of all other metrics is `all`.
    On the test split, share_<part> is the share of a part of the score in its spread (`model.evaluation.score_parts`),
    and what test users are recommended has measures of its own (`model.evaluation.beyond_accuracy`): those of each list
    are means over users with a bootstrap; coverage@20 and gini@20 belong to all lists, so their `low` and `high` are
    their value.
    `macro` is the unweighted mean over the domains that have the metric. With several checkpoints, rows with a null
    seed hold the mean over seeds and its 95 % t interval.

    Args:
        store: where the artifact lives.
        settings: protocol, candidates, cut-offs, resamples.
        parents: `interactions`, `nodes`, `graph` and one or more `checkpoint-<seed>`; to measure the served score also
            `neighbours` and for each checkpoint `blend-<seed>`.
        compute: threads.
        progress: called after each domain of each checkpoint.

    Returns:
        `metrics`, where a domain, split or stratum without held-out rows has no row, and `ranks` of the test rows by
        each checkpoint.
    """

    @cache
    def tables() -> tuple[pa.Table, pa.Table]:
        with torch_threads(compute.threads):
            return _measure_checkpoints(settings, parents, progress)

    ranks = store.make(RANKS, settings.keyed(), parents, lambda draft: draft.write(tables()[1]))
    metrics = store.make(METRICS, settings.keyed(), parents, lambda draft: draft.write(tables()[0]))
    return {METRICS.name: metrics, RANKS.name: ranks}


def _measure_checkpoints(
    settings: EvaluateSettings, parents: Mapping[str, Artifact], progress: Progress
) -> tuple[pa.Table, pa.Table]:
    """The rows of `metrics` and those of `ranks`."""
    dataset = load_dataset(parents["nodes"], parents["graph"])
    interactions = tuple(load_interactions(parents["interactions"], domain, dataset) for domain in dataset.domains)
    data = EvaluationData(settings, dataset, interactions, load_evidence(parents, dataset), Strata.build(dataset))
    rows: list[dict[str, Any]] = []
    rank_tables: list[pa.Table] = []
    measured: list[Measured] = []
    roles = checkpoint_roles(parents)
    total = len(roles) * len(dataset.domains)
    for number, role in enumerate(roles):
        checkpoint = load_checkpoint(parents[role], dataset)
        blend = parents.get(str(Role(BLEND, checkpoint.seed)))
        weights = read_weights(blend) if blend else {}
        checkpoint_progress = offset_progress(progress, number * len(dataset.domains), total)
        measured.append(_measure(data, checkpoint, weights, rank_tables, checkpoint_progress))
        for name, estimate in measured[-1].items():
            values = estimate.value, *estimate.interval
            rows.append(_to_row(checkpoint.seed, checkpoint.epoch, name, values, estimate))
    if len(measured) > 1:
        rows += _means_over_seeds(measured)
    ranks = pa.concat_tables(rank_tables).sort_by([(name, "ascending") for name in RANKS.sorted_by])
    return pa.Table.from_pylist(rows, schema=METRICS.file_schema), ranks


def _measure(
    data: EvaluationData,
    checkpoint: Checkpoint,
    weights: Mapping[str, BlendWeights],
    rank_tables: list[pa.Table],
    progress: Progress,
) -> Measured:
    """Estimates of all domains and their means; appends the ranks of each domain's test rows to the tables."""
    measured: Measured = {}
    domains = data.dataset.domains
    for index, (domain, vectors) in enumerate(zip(domains, checkpoint.vectors(data.dataset), strict=True)):
        blend = data.blend(index, weights)
        for split in (VALID, TEST):
            ranked = RankedHeldOut.build(vectors, domain, data.interactions[index], split, data.settings, blend)
            by_stratum = {ALL: _accuracy_estimates(data.settings, domain.name, split, ranked)}
            if split == TEST:
                rank_tables.append(ranked.ranks_table(checkpoint.seed, domain.name))
                by_stratum[ALL] |= _share_estimates(data, index, vectors, checkpoint.columns, blend)
                by_stratum[ALL] |= _list_estimates(data.settings, domain, ranked)
            by_stratum |= _strata_estimates(data, domain.name, split, ranked)
            for stratum, of_stratum in by_stratum.items():
                measured |= {(domain.name, split, stratum, metric): value for metric, value in of_stratum.items()}
        progress(index + 1, len(domains), "domains", FinishedPart(f"{domain.name}, seed {checkpoint.seed}"))
    by_metric: dict[tuple[str, str, str, str], list[Estimate]] = {}
    for (_, split, stratum, metric), estimate in measured.items():
        by_metric.setdefault((MACRO, split, stratum, metric), []).append(estimate)
    return measured | {name: mean_estimate(of_domains) for name, of_domains in by_metric.items()}


def _accuracy_estimates(
    settings: EvaluateSettings, domain: str, split: str, ranked: RankedHeldOut
) -> dict[str, Estimate]:
    among_candidates = candidate_statistics(ranked.positive, ranked.candidates, settings.recall_at)
    among_all = user_statistics(ranked.users, ranked.ranks, settings.full_at)
    held_out, ranked_users = ranked.positive.size, _distinct(ranked.users)
    estimated: dict[str, Estimate] = {}
    for unit, statistics, size, rows, users in (
        ("row", among_candidates, held_out, held_out, _distinct(ranked.rows.users)),
        ("user", among_all, ranked_users, ranked.ranks.size, ranked_users),
    ):
        weights = resample_weights(settings.candidate_seed, (domain, split, unit), settings.resamples, size)
        estimated |= estimates(statistics, weights, size, rows, users)
    return estimated


def _strata_estimates(
    data: EvaluationData, domain: str, split: str, ranked: RankedHeldOut
) -> dict[str, dict[str, Estimate]]:
    """Full-ranking metrics by stratum, of the rows that are ranked."""
    settings = data.settings
    estimated = {}
    for stratum, is_inside in data.strata.split(ranked.rows.take(ranked.is_ranked)):
        values = user_values(ranked.users[is_inside], ranked.ranks[is_inside], settings.full_at)
        del values["full_mrr"]
        users = _distinct(ranked.users[is_inside])
        name = domain, split, stratum
        weights = resample_weights(settings.candidate_seed, name, settings.resamples, users)
        estimated[stratum] = estimates(mean_statistics(values), weights, users, int(is_inside.sum()), users)
    return estimated


def _list_estimates(settings: EvaluateSettings, domain: DomainData, ranked: RankedHeldOut) -> dict[str, Estimate]:
    """What test users are recommended: measures of all lists together, then means over lists."""
    rows = ranked.rows.users.size
    values = list_measures(ranked.lists, domain)
    users = next((of_lists.size for of_lists in values.values()), 0)
    weights = resample_weights(settings.candidate_seed, (domain.name, TEST, "lists"), settings.resamples, users)
    together = {
        metric: Estimate(value, np.empty(0), rows, users)
        for metric, value in catalogue_measures(ranked.lists, domain.items).items()
    }
    return together | estimates(mean_statistics(values), weights, users, rows, users)


def _share_estimates(
    data: EvaluationData, index: int, vectors: Tensor, columns: Mapping[str, slice], blend: Blend | None
) -> dict[str, Estimate]:
    """Shares of the parts of the score, on the test split."""
    settings, domain, interactions = data.settings, data.dataset.domains[index], data.interactions[index]
    users = measured_users(interactions, domain, TEST, settings.candidate_seed)
    shares = spread_shares(vectors, domain, users, columns, blend)
    size = next(iter(shares.values())).size
    weights = resample_weights(settings.candidate_seed, (domain.name, TEST, "score parts"), settings.resamples, size)
    rows = int(np.isin(interactions.for_split(TEST).users, users).sum())
    return estimates(mean_statistics(shares), weights, size, rows, size)


def _means_over_seeds(measured: list[Measured]) -> Iterator[dict[str, Any]]:
    """Mean and t interval, within the metric's range, of every estimate over the seeds that have it: training's spread.

    A share of scores is missing where the seed's scores are all equal: evidence alone is served, and there is none.
    """
    for name in dict.fromkeys(name for of_seed in measured for name in of_seed):
        estimated = [of_seed[name] for of_seed in measured if name in of_seed]
        values, seeds = np.array([estimate.value for estimate in estimated]), len(estimated)
        mean = float(values.mean())
        half = float(stats.t.ppf(0.975, seeds - 1) * values.std(ddof=1)) / seeds**0.5 if seeds > 1 else 0.0
        highest = np.inf if name[-1] in UNBOUNDED else 1.0
        yield _to_row(None, None, name, (mean, max(mean - half, 0.0), min(mean + half, highest)), estimated[0])


def _to_row(
    seed: int | None,
    epoch: int | None,
    name: tuple[str, str, str, str],
    values: tuple[float, float, float],
    estimate: Estimate,
) -> dict[str, Any]:
    domain, split, stratum, metric = name
    value, low, high = values
    return {
        "seed": seed,
        "epoch": epoch,
        "domain": domain,
        "split": split,
        "stratum": stratum,
        "metric": metric,
        "value": value,
        "low": low,
        "high": high,
        "rows": estimate.rows,
        "users": estimate.users,
    }


def _distinct(users: Ints) -> int:
    return int(np.unique(users).size)
