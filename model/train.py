"""Training: graph and pairs → checkpoint, epoch by epoch, resumable after every one of them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping

import numpy as np

from data_contracts.artifact import Artifact
from data_contracts.contracts import CHECKPOINT, VALID
from data_contracts.progress import Progress, silent
from data_contracts.settings import ComputeSettings, EvaluateSettings, TrainSettings, checkpoint_inputs
from data_contracts.store import Draft, Store
from model.alignment import load_pairs
from model.baselines import baseline_of
from model.batches import positives_of
from model.candidates import held_out, score_candidates
from model.checkpoint import resume, save_state, write_checkpoint
from model.learner import Learner, Lesson, Measure
from model.learning import edda_of
from model.machine import device_of, peak_memory_mib, resident_memory, torch_threads
from model.metrics import candidate_statistics
from model.propagate import backbone_of
from model.spmm import choose_engine
from model.vectors import network_of
from model.world import load_rows, load_world

log = logging.getLogger(__name__)

_HALF_TRUSTED_ROWS = 1000
"""Validation rows with which a domain counts half as much as a large one when epochs are selected."""


def train(
    store: Store,
    settings: TrainSettings,
    seed: int,
    validation: EvaluateSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,
    progress: Progress = silent,
) -> Artifact:
    """Train the EDDA recommender and keep the epoch that validates best [EDDA].

    Differs: epochs are selected on the validation split, never on test; negatives are no known train positives
    unless `validation.protocol` is "released".

    Args:
        store: where the artifact lives.
        settings: model and optimisation.
        seed: seed of everything drawn.
        validation: how the validation split is ranked; its protocol is training's too.
        parents: `interactions`, `nodes`, `graph` and, where domains are aligned, `pairs`.
        compute: threads.
        progress: told after each epoch.

    Returns:
        A `checkpoint` artifact. Killed and run again, it continues after the last finished epoch and ends with the
        same bytes. Where no domain has validation rows, the last epoch is kept.

    Raises:
        ValueError: there is no domain.
    """

    def write(draft: Draft) -> None:
        with torch_threads(compute.threads), resident_memory() as peak:
            _write(draft, _lesson(settings, seed, validation, parents), progress)
        draft.statistics["memory_mib"] = peak()

    return store.make(CHECKPOINT, checkpoint_inputs(settings, seed, validation), parents, write)


def _write(draft: Draft, lesson: Lesson, progress: Progress) -> None:
    settings, seed = lesson.settings, lesson.seed
    learner = edda_of(lesson) if settings.model == "edda" else baseline_of(lesson)
    training = resume(draft.scratch, learner)
    seconds = []
    while training.epoch < learner.epochs and training.epoch - training.best_epoch < settings.patience:
        started = time.perf_counter()
        training.epoch += 1
        losses = learner.learn(training.epoch)
        measures, score = _validate(learner, lesson, training.epoch)
        training.history += [*losses, *measures]
        training.judge(learner, score)
        save_state(draft.scratch, training, learner)
        seconds.append(round(time.perf_counter() - started, 3))
        progress(training.epoch, learner.epochs, "epochs")
        shown = "none" if score is None else f"{score:.4f}"
        log.info("epoch %d: validation score %s, best epoch %s", training.epoch, shown, training.best_epoch)
    write_checkpoint(draft, training, learner, seed)
    draft.statistics |= {"epoch": training.best_epoch, "epochs": training.epoch, "score": training.best_score}
    draft.statistics |= {"epoch_seconds": seconds, "peak_memory_mib": peak_memory_mib()}


def _lesson(
    settings: TrainSettings, seed: int, validation: EvaluateSettings, parents: Mapping[str, Artifact]
) -> Lesson:
    device = device_of(settings.device)
    _, multiply = choose_engine(settings.engine, device)
    world = load_world(parents["nodes"], parents["graph"])
    network = network_of(world, backbone_of(settings), multiply)
    rows = [load_rows(parents["interactions"], domain, world) for domain in world.domains]
    both = list(zip(rows, world.domains, strict=True))
    pairs = load_pairs(parents["pairs"], world) if settings.aligns else ()
    return Lesson(
        settings,
        seed,
        network,
        tuple(positives_of(r, domain, validation.protocol) for r, domain in both),
        tuple(held_out(r, domain, VALID, validation) for r, domain in both),
        validation.recall_at,
        tuple(pair.to(device) for pair in pairs),
        device,
    )


def _validate(learner: Learner, lesson: Lesson, epoch: int) -> tuple[list[Measure], float | None]:
    """Validation measures of each domain and their mean, and the score that epochs are selected by.

    The score is the mean of the domains' AUC, each weighed by rows / (rows + 1000): where a domain has so few
    held-out rows that its AUC is mostly chance, chance shall not choose the epoch.
    """
    measures: list[Measure] = []
    by_metric: dict[str, list[float]] = {}
    weights = []
    world = lesson.network.world
    for domain, held, vectors in zip(world.domains, lesson.held, learner.vectors(), strict=True):
        statistics = candidate_statistics(*score_candidates(held, vectors, domain.users), lesson.recall_at)
        for metric, of in statistics.items():
            value = of(np.ones(held.users.size))
            measures.append((epoch, domain.name, metric, value))
            by_metric.setdefault(metric, []).append(value)
        weights += [held.users.size / (held.users.size + _HALF_TRUSTED_ROWS)] if statistics else []
    measures += [(epoch, "macro", metric, math.fsum(of) / len(of)) for metric, of in by_metric.items()]
    if not weights:
        return measures, None
    score = float(np.average(by_metric["auc"], weights=weights))
    return [*measures, (epoch, "macro", "score", score)], score
