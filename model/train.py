"""Training: graph and pairs → checkpoint, epoch by epoch, resumable after every one of them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data_contracts.artifact import Artifact
from data_contracts.contracts import CHECKPOINT, VALID
from data_contracts.progress import Progress, silent
from data_contracts.settings import ComputeSettings, EvaluateSettings, TrainSettings, checkpoint_inputs
from data_contracts.store import Draft, Store
from model.alignment import AlignedPairs, alignment_loss, load_pairs, map_health
from model.batches import Batch, Positives, batches_of, positives_of
from model.candidates import HeldOut, held_out, score_candidates
from model.checkpoint import Measure, Training, resume, save_state, write_checkpoint, write_tensors
from model.columns import ALONE, Columns
from model.divergence import Course, not_finite
from model.draws import draw_key
from model.edda import Edda, Shape, Step
from model.machine import device_of, peak_memory_mib, torch_threads
from model.metrics import candidate_statistics
from model.propagate import Dropout, backbone_of, fan_of
from model.shares import Share
from model.spmm import choose_engine
from model.tracking import NOWHERE, Tracking, tracked
from model.vectors import Network, final_vectors, network_of
from model.world import load_rows, load_world

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lesson:
    """What training needs beside the model: by domain what to learn from and what to validate on, and the pairs."""

    settings: TrainSettings
    seed: int
    network: Network
    positives: tuple[Positives, ...]
    held: tuple[HeldOut, ...]
    recall_at: tuple[int, ...]
    pairs: tuple[AlignedPairs, ...]
    device: torch.device
    columns: Columns


def train(
    store: Store,
    settings: TrainSettings,
    seed: int,
    validation: EvaluateSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,
    progress: Progress = silent,
    tracking: Tracking = NOWHERE,
    columns: Columns = ALONE,
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
        tracking: where the measures of each epoch are shown at once.
        columns: the columns of this process, the first; the others are in `take_part`.

    Returns:
        A `checkpoint` artifact. Killed and run again, it continues after the last finished epoch and ends with the
        same bytes. Where no domain has validation rows, the last epoch is kept.

    Raises:
        ValueError: there is no domain; fewer columns than processes.
        DivergedError: a loss or a table is no finite number any more; the epoch before is kept.
        ConnectionError: another process of the training has ended; the epoch before is kept.
    """

    columns.parts(settings.width)  # refuse it before the others begin

    def write(draft: Draft) -> None:
        paths = {role: str(parent.path) for role, parent in parents.items()}
        columns.agreed(Share(settings, seed, validation, paths, compute, str(draft.scratch)).as_text())
        with torch_threads(compute.threads, columns.beside):
            _write(draft, _lesson(settings, seed, validation, parents, columns), progress, tracking)

    return store.make(CHECKPOINT, checkpoint_inputs(settings, seed, validation), parents, write)


def take_part(share: Share, columns: Columns) -> None:
    """Do another process's share of the training that the first one leads; its columns end in that one's artifact."""
    with torch_threads(share.compute.threads, columns.beside):
        lesson = _lesson(share.settings, share.seed, share.validation, share.artifacts(), columns)
        model, training, _ = _trained(lesson, Path(share.scratch), silent, NOWHERE)
        write_tensors(None, training, model)
        columns.every(peak_memory_mib())


def _write(draft: Draft, lesson: Lesson, progress: Progress, tracking: Tracking) -> None:
    model, training, seconds = _trained(lesson, draft.scratch, progress, tracking)
    write_checkpoint(draft, training, model, lesson.network.backbone, lesson.seed)
    draft.statistics |= {"epoch": training.best_epoch, "epochs": training.epoch, "score": training.best_score}
    peaks = lesson.columns.every(peak_memory_mib())
    draft.statistics |= {"epoch_seconds": seconds, "peak_memory_mib": max(peaks)}
    if len(peaks) > 1:
        draft.statistics |= {"memory_mib_by_process": peaks, "bytes_by_step": lesson.columns.bytes_by_step()}


def _trained(
    lesson: Lesson, scratch: Path, progress: Progress, tracking: Tracking
) -> tuple[Edda, Training, list[float]]:
    settings, columns = lesson.settings, lesson.columns
    domains = {domain.name: domain.nodes for domain in lesson.network.world.domains}
    shape = Shape(settings.tables, settings.width, lesson.network.world.nodes, domains, bool(lesson.pairs))
    model = Edda(shape, lesson.seed, settings.initial_spread, columns).to(lesson.device)
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=True)
    training = resume(scratch, model, optimiser)
    seconds: list[float] = []
    with tracked(tracking, training.history) as track:
        while training.epoch < settings.epochs and training.epoch - training.best_epoch < settings.patience:
            started = time.perf_counter()
            measures = _epoch(model, optimiser, lesson, training, scratch)
            seconds.append(round(time.perf_counter() - started, 3))
            track(measures)
            log.info("epoch %d: %s", training.epoch, training.note())
            if len(seconds) == 1 and columns.ranks > 1:
                log.info("%d processes; bytes that each gives to sums, by step: %s", columns.ranks, columns.told())
            progress(training.epoch, settings.epochs, "epochs", training.note())
    return model, training, seconds


def _epoch(
    model: Edda, optimiser: torch.optim.Optimizer, lesson: Lesson, training: Training, scratch: Path
) -> list[Measure]:
    """Learn and validate once more and keep the state: what was measured."""
    training.epoch += 1
    course = Course(lesson.seed, training.epoch, str(scratch), training.best_epoch, lesson.settings.learning_rate)
    losses = _learn(model, optimiser, lesson, course)
    measures, score = _validate(model, lesson, training.epoch)
    training.history += [*losses, *measures]
    training.judge(model, lesson.columns.agreed(score))
    save_state(scratch, training, model, optimiser)
    return [*losses, *measures]


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
    network = network_of(world, backbone_of(settings), multiply)
    rows = [load_rows(parents["interactions"], domain, world) for domain in world.domains]
    both = list(zip(rows, world.domains, strict=True))
    aligns = settings.alignment > 0 and settings.tables != "inter"
    pairs = load_pairs(parents["pairs"], world) if aligns else ()
    return Lesson(
        settings,
        seed,
        network,
        tuple(positives_of(r, domain, validation.protocol) for r, domain in both),
        tuple(held_out(r, domain, VALID, validation) for r, domain in both),
        validation.recall_at,
        tuple(pair.to(device) for pair in pairs),
        device,
        columns,
    )


def _learn(model: Edda, optimiser: torch.optim.Optimizer, lesson: Lesson, course: Course) -> list[Measure]:
    """One epoch: every domain's batches, then one alignment step for each ordered pair of domains [EDDA]."""
    settings, multiply, epoch = lesson.settings, lesson.network.multiply, course.epoch
    measures: list[Measure] = []
    for number, domain in enumerate(lesson.network.world.domains):
        total, triples = 0.0, 0
        for place, step in enumerate(_ahead(_steps(lesson, number, epoch))):
            model.columns.begin("batch")
            loss = model.loss(step, settings.l2, multiply)
            _descend(optimiser, loss)
            found = float(loss.detach())
            course.check_loss(found, domain.name, f"batch {place}")
            total, triples = total + found * step.size, triples + step.size
        if triples:
            measures.append((epoch, domain.name, "loss", total / triples))
    for pairs in lesson.pairs:
        model.columns.begin("alignment")
        loss = alignment_loss(model, pairs, multiply)
        _descend(optimiser, settings.alignment * loss)
        names = [lesson.network.world.domains[number].name for number in (pairs.source, pairs.target)]
        measures.append((epoch, names[0], f"alignment to {names[1]}", float(loss.detach())))
        course.check_loss(measures[-1][-1], names[0], f"alignment to {names[1]}")
    course.check_tables(model.columns.every(not_finite(model.tensors())))
    model.columns.begin("map health")
    for number in sorted({pairs.source for pairs in lesson.pairs}):
        name = lesson.network.world.domains[number].name
        measures += [(epoch, name, metric, value) for metric, value in map_health(model, number).items()]
    return measures


def _descend(optimiser: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def _steps(lesson: Lesson, number: int, epoch: int) -> Iterator[Step]:
    batches = batches_of(lesson.positives[number], lesson.seed, epoch, lesson.settings.batch_size)
    for place, batch in enumerate(batches):
        yield _step(lesson, number, batch, (epoch, place))


def _step(lesson: Lesson, number: int, batch: Batch, turn: tuple[int, int]) -> Step:
    """Prune one batch; edges are dropped by (seed, table, domain, epoch, batch, layer, edge)."""
    settings, network = lesson.settings, lesson.network
    domain = network.world.domains[number]
    layers = range(1, network.backbone.layers + 1)

    def dropout(table: str) -> Dropout:
        keys = (draw_key(lesson.seed, "dropout", table, domain.name, *turn, layer) for layer in layers)
        return Dropout(settings.edge_dropout, tuple(keys))

    inter = intra = None
    if settings.tables != "intra":
        inter = fan_of(network.inter, domain.union[batch.nodes], network.backbone, dropout("inter"))
        inter = inter.to(lesson.device)
    if settings.tables != "inter":
        intra = fan_of(network.intra[number], batch.nodes, network.backbone, dropout("intra")).to(lesson.device)
    triples, counts = batch.triples.to(lesson.device), batch.counts.to(lesson.device)
    return Step(number, inter, intra, triples, counts, batch.size)


def _ahead(steps: Iterator[Step]) -> Iterator[Step]:
    """The same steps, each prepared in another thread while the one before is learned from."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, steps, None)
        while (step := coming.result()) is not None:
            coming = pool.submit(next, steps, None)
            yield step


def _validate(model: Edda, lesson: Lesson, epoch: int) -> tuple[list[Measure], float | None]:
    """Validation measures of each domain and their mean, and the score that epochs are selected by: macro AUC."""
    measures: list[Measure] = []
    by_metric: dict[str, list[float]] = {}
    world = lesson.network.world
    model.columns.begin("validation")
    for domain, held, vectors in zip(world.domains, lesson.held, final_vectors(model, lesson.network), strict=True):
        statistics = candidate_statistics(
            *score_candidates(held, vectors, domain.users, lesson.columns), lesson.recall_at
        )
        for metric, of in statistics.items():
            value = of(np.ones(held.users.size))
            measures.append((epoch, domain.name, metric, value))
            by_metric.setdefault(metric, []).append(value)
    means = {metric: math.fsum(values) / len(values) for metric, values in by_metric.items()}
    measures += [(epoch, "macro", metric, value) for metric, value in means.items()]
    return measures, means.get("auc")
