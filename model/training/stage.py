"""Training: graph and pairs → checkpoint, epoch by epoch, resumable after every one of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from data_contracts.contracts import CHECKPOINT, VALID, Role
from data_contracts.progress import Progress, silent
from data_contracts.resources import peak_memory_mib, resident_memory
from data_contracts.settings import ComputeSettings, EvaluateSettings
from data_contracts.store.artifact import NO_ARTIFACTS, Artifact, Artifacts
from data_contracts.store.draft import Draft
from data_contracts.store.store import Store
from data_contracts.train_settings import CheckpointSettings, TrainSettings
from model.baselines import baseline_of
from model.compute.column_parallel import ALONE, Columns
from model.compute.device import device_of, keep_freed_memory
from model.compute.threads import torch_threads
from model.data.batches import positives_of
from model.data.candidates import held_out
from model.data.dataset import load_rows, load_world
from model.edda.alignment import load_pairs
from model.edda.checkpoint import write_checkpoint, write_tensors
from model.edda.final_vectors import network_of
from model.edda.propagation import backbone_of
from model.evaluation.fit import validation_users
from model.evaluation.validation import DomainValidation, validate
from model.evidence.domain_evidence import load_evidence
from model.learners.base import Learner, Lesson, Measure
from model.learners.divergence import Course, not_finite
from model.learners.edda import edda_of
from model.learners.warm_start import warm_start
from model.sparse.matrix import choose_engine
from model.training.state import Training, resume, save_state
from model.training.tracking import NOWHERE, Tracking, tracked
from model.training.workers import Share

log = logging.getLogger(__name__)

_WITHOUT_INTRA = (
    "no intra table for %s: more than %.3g %% of their interactions have a user or item that another domain has too"
)


def train(
    store: Store,
    settings: CheckpointSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,
    progress: Progress = silent,
    previous: Artifacts = NO_ARTIFACTS,
    *,
    tracking: Tracking = NOWHERE,
    columns: Columns = ALONE,
) -> Artifact:
    """Train the EDDA recommender and keep the epoch that validates best [EDDA].

    Differs: epochs are selected on the validation split, never on test; negatives are no known train positives
    unless `settings.validation.protocol` is "released".

    Args:
        store: where the artifact lives.
        settings: model and optimisation, the seed, and how the validation split is ranked.
        parents: `interactions`, `nodes`, `graph` and, where domains are aligned, `pairs`; `neighbours` where evidence
            is part of the score that epochs are selected by.
        compute: threads.
        progress: called after each epoch.
        previous: to continue an earlier training, its `checkpoint-<seed>`, which may then be the best itself, as epoch
            0, and the `interactions`, `nodes` and `graph` that it was trained on.
        tracking: where the measures of each epoch are shown at once.
        columns: the columns of this process, the first; the others are in `take_part`.

    Returns:
        A `checkpoint` artifact. Killed and run again, it continues after the last finished epoch and ends with the
        same bytes. Where no domain has validation rows, the last epoch is kept.

    Raises:
        ValueError: there is no domain; a baseline in several processes; fewer columns than processes.
        DivergedError: a loss or a table is no finite number any more; the epoch before is kept.
        ConnectionError: another process of the training has ended; the epoch before is kept.
    """
    training, seed, validation = settings.train, settings.seed, settings.validation
    parents = {**parents, **{str(Role.parse(role).previous): artifact for role, artifact in previous.items()}}
    if columns.ranks > 1 and training.model != "edda":
        raise ValueError(f"train.model is {training.model!r}, must be 'edda' with several processes; start one alone")
    columns.parts(min(training.widths))  # refuse it before the others begin

    def write(draft: Draft) -> None:
        paths = {role: str(parent.path) for role, parent in parents.items()}
        columns.agreed(Share(training, seed, validation, paths, compute, str(draft.scratch)).as_text())
        keep_freed_memory()
        with torch_threads(compute.threads, columns.beside), resident_memory() as peak:
            lesson = _lesson(training, seed, validation, parents, columns)
            if without := lesson.shares_without_intra:
                draft.statistics["without_intra"] = {name: round(shared, 4) for name, shared in without.items()}
                log.info(_WITHOUT_INTRA, ", ".join(without), 100 * training.intra_shared_at_most)
            _write(draft, lesson, progress, tracking)
        draft.statistics["memory_mib"] = peak()

    return store.make(CHECKPOINT, settings.keyed(), parents, write)


def take_part(share: Share, columns: Columns) -> None:
    """Do another process's share of the training that the first one leads; its columns end in that one's artifact."""
    keep_freed_memory()
    with torch_threads(share.compute.threads, columns.beside):
        lesson = _lesson(share.settings, share.seed, share.validation, share.artifacts(), columns)
        _, training, _ = _trained(lesson, Path(share.scratch), silent, NOWHERE)
        write_tensors(None, training.best, columns)
        columns.every(peak_memory_mib())


def _write(draft: Draft, lesson: Lesson, progress: Progress, tracking: Tracking) -> None:
    learner, training, seconds = _trained(lesson, draft.scratch, progress, tracking)
    description = {
        "seed": lesson.seed,
        "epoch": training.best_epoch,
        "epochs": training.epoch,
        "score": training.best_score,
        **learner.description(),
    }
    write_checkpoint(draft, training.best, learner.columns, description, training.history)
    draft.statistics |= {"epoch": training.best_epoch, "epochs": training.epoch, "score": training.best_score}
    peaks = lesson.columns.every(peak_memory_mib())
    draft.statistics |= {"epoch_seconds": seconds, "peak_memory_mib": max(peaks)}
    if lesson.warm:
        draft.statistics["warm_start"] = lesson.warm.statistics(learner.kept())
        if lesson.warm.seen:
            log.warning(
                "%d held-out rows were trained on before: their scores flatter; ingest.protocol = 'clean' keeps such "
                "rows in training",
                lesson.warm.seen,
            )
    if len(peaks) > 1:
        draft.statistics |= {"memory_mib_by_process": peaks, "bytes_by_step": lesson.columns.bytes_by_step()}


def _trained(
    lesson: Lesson, scratch: Path, progress: Progress, tracking: Tracking
) -> tuple[Learner, Training, list[float]]:
    settings, columns = lesson.settings, lesson.columns
    learner = edda_of(lesson) if settings.model == "edda" else baseline_of(lesson)
    training = resume(scratch, learner)
    seconds: list[float] = []
    if lesson.warm and not training.history:
        _judge(learner, lesson, training)
    with tracked(tracking, training.history) as track:
        while training.epoch < learner.epochs and training.epoch - training.best_epoch < settings.patience:
            started = time.perf_counter()
            measures = _epoch(learner, lesson, training, scratch)
            seconds.append(round(time.perf_counter() - started, 3))
            track(measures)
            log.info("epoch %d: %s", training.epoch, training.note())
            if len(seconds) == 1 and columns.ranks > 1:
                log.info("%d processes; bytes that each gives to sums, by step: %s", columns.ranks, columns.told())
            progress(training.epoch, learner.epochs, "epochs")
    return learner, training, seconds


def _epoch(learner: Learner, lesson: Lesson, training: Training, scratch: Path) -> list[Measure]:
    """Learn and validate once more and keep the state: what was measured."""
    training.epoch += 1
    course = Course(lesson.seed, training.epoch, str(scratch), training.best_epoch, lesson.settings.learning_rate)
    losses = learner.learn(course)
    course.check_tables(learner.columns.every(not_finite(learner.kept())))
    training.history += losses
    measures = _judge(learner, lesson, training)
    save_state(scratch, training, learner)
    return [*losses, *measures]


def _judge(learner: Learner, lesson: Lesson, training: Training) -> list[Measure]:
    """Validate, and keep the learner where it is the best so far: what was measured."""
    learner.columns.begin("validation")
    found, score = validate(lesson.validation, learner.vectors(), lesson.recall_at, learner.columns)
    measures = [(training.epoch, *measure) for measure in found]
    training.history += measures
    training.judge(learner, lesson.columns.agreed(score))
    return measures


def _lesson(
    settings: TrainSettings,
    seed: int,
    validation: EvaluateSettings,
    parents: Mapping[str, Artifact],
    columns: Columns = ALONE,
) -> Lesson:
    device = device_of(settings.device)
    _, multiply = choose_engine(settings.engine, device)
    world = load_world(parents["nodes"], parents["graph"])
    shares = world.shared if settings.model == "edda" else ()
    private = [number for number, shared in enumerate(shares) if settings.has_intra(shared)]
    network = network_of(world, backbone_of(settings), multiply, private=private)
    rows = [load_rows(parents["interactions"], domain, world) for domain in world.domains]
    both = list(zip(rows, world.domains, strict=True))
    most, by_ndcg = settings.select_users, settings.selects_by_ndcg
    evidence = load_evidence(parents, world) if by_ndcg else ()
    pairs = load_pairs(parents["pairs"], world, private) if settings.aligns else ()
    return Lesson(
        settings,
        seed,
        network,
        tuple(positives_of(r, domain, validation.protocol) for r, domain in both),
        tuple(
            DomainValidation(
                domain,
                held_out(r, domain, VALID, validation),
                validation_users(r, domain, most, validation.candidate_seed) if by_ndcg else None,
                evidence[number] if evidence else None,
            )
            for number, (r, domain) in enumerate(both)
        ),
        validation.recall_at,
        tuple(pair.to(device) for pair in pairs),
        device,
        columns,
        warm_start(parents, seed, world, rows),
    )
