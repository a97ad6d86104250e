"""The stage that trains: graph and pairs → checkpoint, epoch by epoch, resumable."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from data_contracts.contracts import CHECKPOINT, VALID
from data_contracts.progress import Logged, Progress, format_seconds, silent
from data_contracts.resources import peak_memory_mib, resident_memory
from data_contracts.roles import Role
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.train import CheckpointSettings
from data_contracts.statistics import CheckpointStatistics, InteractionsStatistics
from data_contracts.store.artifact import NO_ARTIFACTS, Artifact, Artifacts
from data_contracts.store.draft import Draft
from data_contracts.store.store import Store
from model.baselines import build_baseline
from model.compute.column_parallel import SINGLE_PROCESS, ColumnParallel
from model.compute.device import choose_device, keep_freed_memory
from model.compute.threads import torch_threads
from model.data.batches import build_positives
from model.data.candidates import build_held_out
from model.data.dataset import Interactions, MultiDomainData, load_dataset, load_interactions
from model.edda.alignment import load_alignment
from model.edda.checkpoint import write_checkpoint, write_tensors
from model.edda.final_vectors import build_graphs
from model.edda.pair_edges import PairEdges
from model.edda.propagation import build_backbone
from model.evaluation.fit import ValidationUsers, validation_users
from model.evaluation.validation import DomainValidation, validate
from model.evidence.domain_evidence import DomainEvidence, load_evidence
from model.learners.base import Learner, TrainingData
from model.learners.divergence import EpochGuard, non_finite_values
from model.learners.edda import build_edda
from model.learners.warm_start import build_warm_start
from model.sparse.matrix import choose_engine
from model.training.memory import check_memory
from model.training.state import States, Training, resume
from model.training.tracking import NOWHERE, Tracking, tracked
from model.training.workers import TrainingJob

log = logging.getLogger(__name__)

_WITHOUT_INTRA = (
    "no intra table for %s: more than %.3g %% of their interactions have a user or item that another domain has too"
)
_SEEN_ROWS = (
    "%d held-out rows were trained on before: their scores flatter; "
    "ingest.protocol = 'clean' keeps such rows in training (run once with update = false to change it)"
)
_TRAFFIC = "%d processes; bytes that each gives to sums, by step: %s"


def train(
    store: Store,
    settings: CheckpointSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,
    progress: Progress = silent,
    previous: Artifacts = NO_ARTIFACTS,
    *,
    tracking: Tracking = NOWHERE,
    processes: ColumnParallel = SINGLE_PROCESS,
) -> Artifact:
    """Train the EDDA recommender and keep the epoch that validates best [EDDA].

    Differs: epochs are selected on the validation split, never on test; negatives are no known train positives
    unless `settings.validation.protocol` is "released".

    Args:
        store: where the artifact lives.
        settings: model and optimisation, the seed, and how the validation split is ranked.
        parents: `interactions`, `nodes`, `graph`; `pairs` if aligned pairs are used; `neighbours` if evidence is part
            of the score that selects epochs.
        compute: threads.
        progress: called after each epoch.
        previous: to continue an earlier training, its `checkpoint-<seed>`, which may then be the best itself, as epoch
            0, and the `interactions`, `nodes` and `graph` that it was trained on.
        tracking: where the measures of each epoch are shown at once.
        processes: the processes that hold the columns of the tables; this one is the first, the others run
            `train_worker`.

    Returns:
        A `checkpoint` artifact. Killed and run again, it continues after the last epoch that was saved and ends with
        the same bytes. If no domain has validation rows, the last epoch is kept.

    Raises:
        ValueError: there is no domain; a baseline in several processes; fewer columns than processes.
        DivergedError: a loss or a table is not finite any more; the last saved epoch is kept.
        ConnectionError: another process of the training has ended; the last saved epoch is kept.
    """
    parents = {**parents, **{str(Role.parse(role).previous): artifact for role, artifact in previous.items()}}
    if processes.world_size > 1 and settings.train.model != "edda":
        raise ValueError(
            f"train.model is {settings.train.model!r}, must be 'edda' with several processes; start one alone"
        )
    processes.require_enough_columns(min(settings.train.widths))  # before the other processes begin

    def write(draft: Draft) -> None:
        paths = {role: str(parent.path) for role, parent in parents.items()}
        processes.broadcast(TrainingJob(settings, paths, compute, str(draft.scratch)).to_json())
        keep_freed_memory()
        with torch_threads(compute.threads, processes.local_world_size), resident_memory() as peak:
            data = load_training_data(settings, parents, processes)
            if without := data.shares_without_intra:
                log.info(_WITHOUT_INTRA, ", ".join(without), 100 * settings.train.intra_shared_at_most)
            statistics = _write(draft, data, compute, progress, tracking)
        statistics["memory_mib"] = peak()
        draft.statistics.update(statistics)

    return store.make(CHECKPOINT, settings.keyed(), parents, write)


def train_worker(job: TrainingJob, processes: ColumnParallel) -> None:
    """Train the columns of a process other than the first, which writes the columns of all to its artifact."""
    keep_freed_memory()
    with torch_threads(job.compute.threads, processes.local_world_size):
        data = load_training_data(job.settings, job.artifacts(), processes)
        _, training, _, _ = _run_epochs(data, Path(job.scratch), job.compute, silent, NOWHERE)
        write_tensors(None, training.best, processes)
        processes.all_gather(peak_memory_mib())


def _write(
    draft: Draft, data: TrainingData, compute: ComputeSettings, progress: Progress, tracking: Tracking
) -> CheckpointStatistics:
    learner, training, states, epoch_seconds = _run_epochs(data, draft.scratch, compute, progress, tracking)
    metadata = {
        "seed": data.seed,
        "epoch": training.best_epoch,
        "epochs": training.epoch,
        "score": training.best_score,
        **learner.metadata(),
    }
    write_checkpoint(draft, training.best, learner.processes, metadata, training.history)
    if data.graphs.pair_edges:
        data.graphs.pair_edges.save(draft.folder)
    peaks = data.processes.all_gather(peak_memory_mib())
    statistics: CheckpointStatistics = {
        "epoch": training.best_epoch,
        "epochs": training.epoch,
        "score": training.best_score,
        "epoch_seconds": epoch_seconds,
        "state_bytes": states.bytes,
        "state_seconds": round(states.seconds, 3),
        "peak_memory_mib": max(peaks),
    }
    if without := data.shares_without_intra:
        statistics["without_intra"] = {name: round(share, 4) for name, share in without.items()}
    if data.warm_start:
        statistics["warm_start"] = data.warm_start.statistics(learner.tensors())
        if data.warm_start.held_out_rows_seen:
            log.warning(_SEEN_ROWS, data.warm_start.held_out_rows_seen)
    if len(peaks) > 1:
        statistics["memory_mib_by_process"] = peaks
        statistics["bytes_by_step"] = data.processes.bytes_by_step()
    return statistics


def _run_epochs(
    data: TrainingData, scratch: Path, compute: ComputeSettings, progress: Progress, tracking: Tracking
) -> tuple[Learner, Training, States, list[float]]:
    """Train epoch by epoch from the last saved state on; also returns what was saved, and the seconds of each epoch."""
    settings, processes = data.settings, data.processes
    learner = build_edda(data) if settings.model == "edda" else build_baseline(data)
    training = resume(scratch, learner)
    states = States(scratch, learner, compute.state_seconds)
    epoch_seconds: list[float] = []
    if data.warm_start and not training.history:
        _validate(learner, data, training)
    with tracked(tracking, training.history) as track:
        while training.epoch < learner.epochs and training.epoch - training.best_epoch < settings.patience:
            started, measured_before = time.perf_counter(), len(training.history)
            training.epoch += 1
            guard = EpochGuard(data.seed, training.epoch, training.best_epoch, settings.learning_rate)
            training.history += learner.train_epoch(guard)
            guard.check_tables(learner.processes.all_gather(non_finite_values(learner.tensors())))
            _validate(learner, data, training)
            states.keep(training)
            epoch_seconds.append(round(time.perf_counter() - started, 3))
            track(training.history[measured_before:])
            log.info("%s", _describe_epoch(data.seed, training, learner.epochs, epoch_seconds))
            if len(epoch_seconds) == 1 and processes.world_size > 1:
                log.info(_TRAFFIC, processes.world_size, processes.traffic())
            progress(training.epoch, learner.epochs, "epochs", Logged())
    _log_end(training, learner.epochs)
    return learner, training, states, epoch_seconds


def _describe_epoch(seed: int, training: Training, epochs: int, epoch_seconds: Sequence[float]) -> str:
    """The last epoch in one line: its measures, its duration, and the time that the remaining ones take at most.

    The first epoch of an attempt may compile kernels and says nothing about the others.
    """
    line = f"seed {seed}, epoch {training.epoch} of {epochs}: {training.summary()}, {epoch_seconds[-1]:.3g} s"
    if training.epoch == epochs or len(epoch_seconds) == 1:
        return line
    return f"{line}, {format_seconds((epochs - training.epoch) * median(epoch_seconds[1:][-5:]))} left"


def _log_end(training: Training, epochs: int) -> None:
    """Say why training has ended, if it might have ended elsewhere."""
    if training.epoch < epochs:
        log.info(
            "stopped after epoch %d of at most %d: no better one since epoch %d, which is kept (train.patience)",
            training.epoch,
            epochs,
            training.best_epoch,
        )
    elif training.epoch == training.best_epoch > 1 and training.best_score is not None:
        log.info("epoch %d, the last one, is the best: more epochs (train.epochs) might be better", training.epoch)


def _validate(learner: Learner, data: TrainingData, training: Training) -> None:
    """Measure the learner's vectors, and keep its tensors if they are the best so far."""
    learner.processes.start_step("validation")
    measures, score = validate(data.validation, learner.vectors(), data.recall_at, learner.processes)
    training.history += [(training.epoch, *measure) for measure in measures]
    training.keep_if_best(learner, data.processes.broadcast(score))


def load_training_data(
    settings: CheckpointSettings, parents: Mapping[str, Artifact], processes: ColumnParallel = SINGLE_PROCESS
) -> TrainingData:
    """Read what a training needs from its parents.

    Args:
        settings, parents: as for `train`, the earlier training's artifacts among the parents.
        processes: the processes that hold the columns of the tables.

    Raises:
        MemoryLimitError: the training cannot fit into the memory that is free.
    """
    train, seed, validation = settings.train, settings.seed, settings.validation
    device = choose_device(train.device)
    _, multiply = choose_engine(train.engine, device)
    dataset = load_dataset(parents["nodes"], parents["graph"])
    if not dataset.domains:
        raise _no_domain_error(parents["interactions"])
    shares = dataset.shared_interaction_shares if train.model == "edda" else ()
    intra_domains = [index for index, share in enumerate(shares) if train.has_intra(share)]
    pair_edges = PairEdges.from_pairs(parents["pairs"], dataset, train.pair_edges) if train.joins_pairs else None
    graphs = build_graphs(dataset, build_backbone(train), multiply, intra_domains=intra_domains, pair_edges=pair_edges)
    interactions = [load_interactions(parents["interactions"], domain, dataset) for domain in dataset.domains]
    by_domain = list(zip(dataset.domains, interactions, strict=True))
    alignment = load_alignment(parents["pairs"], dataset, intra_domains) if train.aligns else ()
    data = TrainingData(
        settings=train,
        seed=seed,
        graphs=graphs,
        positives=tuple(build_positives(rows, domain, validation.protocol) for domain, rows in by_domain),
        validation=_load_validation(settings, parents, dataset, interactions),
        recall_at=validation.recall_at,
        alignment=tuple(batch.to(device) for batch in alignment),
        device=device,
        processes=processes,
        warm_start=build_warm_start(parents, seed, dataset, interactions),
    )
    check_memory(data)
    return data


def _no_domain_error(interactions: Artifact) -> ValueError:
    """Why no domain is left to train on: the reasons for which rows were rejected or dropped."""
    counts = interactions.statistics_as(InteractionsStatistics)
    dropped = {name: counts.get(name, 0) for name in ("rating", "leaked", "cold")}
    reasons = {reason: rows for reason, rows in {**counts.get("malformed", {}), **dropped}.items() if rows}
    listed = ", ".join(f"{reason} {rows:,}" for reason, rows in reasons.items()) or "there was none"
    return ValueError(
        f"there is no domain: no raw row of {counts.get('raw_rows', 0):,} became an interaction ({listed}); "
        "`edda inspect RUN/rejects` shows them; fix the logs, or what their source and [ingest] say of them"
    )


def _load_validation(
    settings: CheckpointSettings,
    parents: Mapping[str, Artifact],
    dataset: MultiDomainData,
    interactions: Sequence[Interactions],
) -> tuple[DomainValidation, ...]:
    """The held-out rows of each domain; for full NDCG also users whose items are all ranked, and the evidence."""
    users: list[ValidationUsers | None] = [None] * len(dataset.domains)
    evidence: Sequence[DomainEvidence | None] = [None] * len(dataset.domains)
    if settings.train.selects_by_ndcg:
        users = [
            validation_users(rows, domain, settings.train.select_users, settings.validation.candidate_seed)
            for domain, rows in zip(dataset.domains, interactions, strict=True)
        ]
        evidence = load_evidence(parents, dataset) or evidence
    held_out = (
        build_held_out(rows, domain, VALID, settings.validation)
        for domain, rows in zip(dataset.domains, interactions, strict=True)
    )
    return tuple(map(DomainValidation, dataset.domains, held_out, users, evidence))
