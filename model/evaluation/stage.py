"""Evaluation: checkpoints → metrics of every domain and their mean, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from data_contracts.contracts import BLEND, MACRO, METRICS, RANKS, RANKS_FILE, TEST, VALID
from data_contracts.progress import FinishedPart, Progress, after, silent
from data_contracts.settings import ComputeSettings, EvaluateSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from data_contracts.store.files import write_checked
from data_contracts.store.store import Store
from model.compute.threads import torch_threads
from model.data.candidates import held_out
from model.data.dataset import Domain, Rows, World, load_rows, load_world
from model.edda.checkpoint import Checkpoint, checkpoint_roles, checkpoint_vectors, load_checkpoint
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
)
from model.evaluation.ranking import are_ranked, rank_held_out
from model.evaluation.score_parts import measured_users, spread_shares
from model.evidence.blend import Blend, BlendWeights, read_weights
from model.evidence.domain_evidence import DomainEvidence, load_evidence
from model.sparse.rows import Ints


@dataclass(frozen=True)
class Answers:
    """Scores and ranks of held-out rows.

    Attributes:
        rows: the held-out rows.
        positive: float32 (rows), scores of the held-out items.
        candidates: float32 (rows, candidates), scores of their candidates, NaN where there is none.
        users, ranks: int32 and int64, user and full rank of each row that is ranked, as `rank_held_out` gives them.
        ranked: bool (rows), which rows these are of.
    """

    rows: Rows
    positive: NDArray[np.float32]
    candidates: NDArray[np.float32]
    users: Ints
    ranks: NDArray[np.int64]
    ranked: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        vectors: Tensor,
        domain: Domain,
        part: tuple[Rows, str],
        settings: EvaluateSettings,
        blend: Blend | None = None,
    ) -> Answers:
        """Score and rank one split of a domain's interactions by the final vectors of its nodes, blended or alone."""
        rows, split = part
        candidates = held_out(rows, domain, split, settings).candidates
        scores, users, ranks = rank_held_out(vectors, domain, part, candidates, blend)
        return cls(rows.of(split), scores[:, 0], scores[:, 1:], users, ranks, are_ranked(domain, rows, split))

    def table(self, seed: int, domain: str) -> pa.Table:
        """The ranks under RANKS, in the order of the rows."""
        size = self.rows.users.size
        parts = auc_parts(self.positive, self.candidates)
        full = np.zeros(size, np.int64)
        full[self.ranked] = self.ranks
        columns = [
            pa.repeat(pa.scalar(seed, pa.int64()), size),
            pa.repeat(domain, size),
            self.rows.union_users,
            self.rows.union_items,
            pa.array(candidate_ranks(self.positive, self.candidates).astype(np.int32), mask=np.isnan(parts)),
            pa.array(parts, mask=np.isnan(parts)),
            pa.array(full, mask=~self.ranked),
        ]
        return pa.table(columns, schema=RANKS.file_schema)


Measured = dict[tuple[str, str, str], Estimate]
"""Estimates by domain, split and metric."""


@dataclass(frozen=True)
class Exam:
    """What every checkpoint is measured on: the rows of each domain of the world, under one protocol."""

    settings: EvaluateSettings
    world: World
    rows: tuple[Rows, ...]
    evidence: tuple[DomainEvidence, ...]

    def blend(self, number: int, weights: Mapping[str, BlendWeights]) -> Blend | None:
        """How a domain's evidence is added to the scores of vectors; None where these rank alone."""
        name = self.world.domains[number].name
        return Blend(weights[name], self.evidence[number]) if self.evidence and name in weights else None


def evaluate(
    store: Store,
    settings: EvaluateSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,
    progress: Progress = silent,
) -> Artifact:
    """Measure checkpoints on the validation and test splits.

    auc and recall@k rank each held-out item against its candidates; full_recall@k, full_ndcg@k and full_mrr rank all
    items of the domain for each user with held-out items (`model.evaluation.metrics`, `model.evaluation.ranking`).
    `low` and `high` are percentiles 2.5 and 97.5 of a bootstrap over held-out rows with their candidates, for the full
    ranking over users.
    On the test split, share_<part> says where the scores of the users come from (`model.evaluation.score_parts`).
    `macro` is the unweighted mean over the domains that have the metric. With several checkpoints, rows with a null
    seed hold the mean over seeds and its 95 % t interval.

    Args:
        store: where the artifact lives.
        settings: protocol, candidates, cut-offs, resamples.
        parents: `interactions`, `nodes`, `graph` and one or more `checkpoint-<seed>`; to measure the score that is
            served, `neighbours` and for each checkpoint `blend-<seed>`.
        compute: threads.
        progress: told after each checkpoint's domain.

    Returns:
        A `metrics` artifact; a domain and split without held-out rows has no row. The ranks of the test rows by each
        checkpoint are in its file `ranks.parquet`.
    """

    def write(draft: Draft) -> None:
        with torch_threads(compute.threads):
            _write(draft, settings, parents, progress)

    return store.make(METRICS, settings.keyed(), parents, write)


def _write(draft: Draft, settings: EvaluateSettings, parents: Mapping[str, Artifact], progress: Progress) -> None:
    world = load_world(parents["nodes"], parents["graph"])
    rows = tuple(load_rows(parents["interactions"], domain, world) for domain in world.domains)
    exam = Exam(settings, world, rows, load_evidence(parents, world))
    table: list[dict[str, Any]] = []
    ranks: list[pa.Table] = []
    measured: list[Measured] = []
    roles = checkpoint_roles(parents)
    total = len(roles) * len(world.domains)
    for number, role in enumerate(roles):
        checkpoint = load_checkpoint(parents[role], world)
        blend = parents.get(f"{BLEND.name}-{checkpoint.seed}")
        weights = read_weights(blend) if blend else {}
        told = after(progress, number * len(world.domains), total)
        measured.append(_measure(exam, (checkpoint, weights), ranks, told))
        for name, estimate in measured[-1].items():
            interval = estimate.interval
            table.append(_row((checkpoint.seed, checkpoint.epoch), name, (estimate.value, *interval), estimate.rows))
    table += _means_over_seeds(measured) if len(measured) > 1 else []
    draft.write(pa.Table.from_pylist(table, schema=METRICS.file_schema))
    in_order = pa.concat_tables(ranks).sort_by([(name, "ascending") for name in RANKS.sorted_by])
    write_checked(RANKS, in_order, draft.folder / RANKS_FILE, RANKS_FILE)


def _measure(
    exam: Exam, model: tuple[Checkpoint, Mapping[str, BlendWeights]], ranks: list[pa.Table], progress: Progress
) -> Measured:
    """Estimates of all domains and their mean; the test rows' ranks go to the list."""
    checkpoint, weights = model
    vectors = checkpoint_vectors(checkpoint, exam.world)
    measured: Measured = {}
    for number, (domain, own) in enumerate(zip(exam.world.domains, vectors, strict=True)):
        blend = exam.blend(number, weights)
        for split in (VALID, TEST):
            answers = Answers.of(own, domain, (exam.rows[number], split), exam.settings, blend)
            ranks += [answers.table(checkpoint.seed, domain.name)] if split == TEST else []
            for metric, estimate in _estimates(exam.settings, (domain.name, split), answers).items():
                measured[domain.name, split, metric] = estimate
        for metric, estimate in _share_estimates(exam, number, own, checkpoint.columns, blend).items():
            measured[domain.name, TEST, metric] = estimate
        progress(number + 1, len(exam.world.domains), "domains", FinishedPart(f"{domain.name}, seed {checkpoint.seed}"))
    return measured | _macro(measured)


def _estimates(settings: EvaluateSettings, place: tuple[str, str], answers: Answers) -> dict[str, Estimate]:
    among = candidate_statistics(answers.positive, answers.candidates, settings.recall_at)
    full = user_statistics(answers.users, answers.ranks, settings.full_at)
    rows, users = answers.positive.size, np.unique(answers.users).size
    found: dict[str, Estimate] = {}
    for unit, statistics, size in (("row", among, rows), ("user", full, users)):
        weights = resample_weights(settings.candidate_seed, (*place, unit), settings.resamples, size)
        found |= estimates(statistics, weights, size, rows)
    return found


def _share_estimates(
    exam: Exam, number: int, vectors: Tensor, columns: Mapping[str, slice], blend: Blend | None
) -> dict[str, Estimate]:
    settings, domain, rows = exam.settings, exam.world.domains[number], exam.rows[number]
    users = measured_users(rows, domain, TEST, settings.candidate_seed)
    shares = spread_shares(vectors, domain, users, columns, blend)
    size = next(iter(shares.values())).size
    weights = resample_weights(settings.candidate_seed, (domain.name, TEST, "score parts"), settings.resamples, size)
    return estimates(mean_statistics(shares), weights, size, int(np.isin(rows.of(TEST).users, users).sum()))


def _macro(measured: Measured) -> Measured:
    parts: dict[tuple[str, str, str], list[Estimate]] = {}
    for (_, split, metric), estimate in measured.items():
        parts.setdefault((MACRO, split, metric), []).append(estimate)
    return {name: mean_estimate(estimated) for name, estimated in parts.items()}


def _means_over_seeds(measured: list[Measured]) -> Iterator[dict[str, Any]]:
    """Mean and t interval, within 0 … 1, of every estimate over seeds: the spread of training, not of held-out rows."""
    spread = float(stats.t.ppf(0.975, len(measured) - 1)) / len(measured) ** 0.5
    for name, estimate in measured[0].items():
        values = np.array([estimates_of[name].value for estimates_of in measured])
        mean, half = float(values.mean()), spread * float(values.std(ddof=1))
        yield _row((None, None), name, (mean, max(mean - half, 0.0), min(mean + half, 1.0)), estimate.rows)


def _row(
    trained: tuple[int | None, int | None], name: tuple[str, str, str], values: tuple[float, float, float], rows: int
) -> dict[str, Any]:
    seed, epoch = trained
    domain, split, metric = name
    value, low, high = values
    return {
        "seed": seed, "epoch": epoch, "domain": domain, "split": split, "metric": metric,
        "value": value, "low": low, "high": high, "rows": rows,
    }  # fmt: skip
