"""Training: graph and pairs → checkpoint, epoch by epoch, resumable after every one of them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from data_contracts.artifact import Artifact
from data_contracts.contracts import CHECKPOINT, VALID
from data_contracts.progress import Progress, silent
from data_contracts.settings import ComputeSettings, EvaluateSettings, TrainSettings, checkpoint_inputs
from data_contracts.store import Draft, Store
from model.alignment import alignment_loss, load_pairs, map_health
from model.baselines import UnionLightGcn, baseline_of, on_union_graph
from model.batches import Batch, batches_of, positives_of
from model.candidates import held_out, score_candidates
from model.checkpoint import resume, save_state, write_checkpoint
from model.draws import draw_key
from model.edda import Edda, Shape, Step
from model.learner import Learner, Lesson, Measure, ahead, descend
from model.machine import device_of, peak_memory_mib, resident_memory, torch_threads
from model.metrics import candidate_statistics
from model.propagate import Dropout, backbone_of, fan_of
from model.spmm import choose_engine
from model.vectors import final_vectors, network_of
from model.world import load_rows, load_world

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EddaLearner:
    """EDDA in training: its tables and maps, Adam, and what it learns from."""

    model: Edda
    optimiser: torch.optim.Optimizer
    lesson: Lesson

    @property
    def epochs(self) -> int:
        """As set."""
        return self.lesson.settings.epochs

    def learn(self, epoch: int) -> list[Measure]:
        """Every domain's batches, then the alignment steps."""
        return _learn(self.model, self.optimiser, self.lesson, epoch)

    def vectors(self) -> Iterator[torch.Tensor]:
        """Propagated tables, side by side."""
        return final_vectors(self.model, self.lesson.network)

    def kept(self) -> dict[str, torch.Tensor]:
        """Tables and maps."""
        return self.model.tensors()

    def description(self) -> dict[str, Any]:
        """Which tables there are and what they are propagated by."""
        return {"model": "edda", "shape": asdict(self.model.shape), "backbone": asdict(self.lesson.network.backbone)}

    def state(self) -> dict[str, Any]:
        """Tables, maps and Adam's moments."""
        return {"tensors": self.model.tensors(), "optimiser": self.optimiser.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Fill model and optimiser."""
        self.model.load(state["tensors"])
        self.optimiser.load_state_dict(state["optimiser"])


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
    learner = _learner(lesson)
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
        log.info("epoch %d: validation AUC %s, best epoch %s", training.epoch, shown, training.best_epoch)
    write_checkpoint(draft, training, learner, seed)
    draft.statistics |= {"epoch": training.best_epoch, "epochs": training.epoch, "score": training.best_score}
    draft.statistics |= {"epoch_seconds": seconds, "peak_memory_mib": peak_memory_mib()}


def _learner(lesson: Lesson) -> Learner:
    """The learner of the model that the settings name."""
    if lesson.settings.model == "edda":
        return _edda(lesson)
    if lesson.settings.model == "union-lightgcn":
        return UnionLightGcn(_edda(on_union_graph(lesson)), lesson)
    return baseline_of(lesson)


def _edda(lesson: Lesson) -> EddaLearner:
    """EDDA before its first epoch."""
    settings, network = lesson.settings, lesson.network
    domains = {domain.name: domain.nodes for domain in network.world.domains}
    shape = Shape(settings.tables, settings.width, network.world.nodes, domains, bool(lesson.pairs))
    model = Edda(shape, lesson.seed, settings.initial_spread).to(lesson.device)
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=True)
    return EddaLearner(model, optimiser, lesson)


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


def _learn(model: Edda, optimiser: torch.optim.Optimizer, lesson: Lesson, epoch: int) -> list[Measure]:
    """One epoch: every domain's batches, then one alignment step for each ordered pair of domains [EDDA]."""
    settings, multiply = lesson.settings, lesson.network.multiply
    measures: list[Measure] = []
    for number, domain in enumerate(lesson.network.world.domains):
        total, triples = 0.0, 0
        for step in ahead(_steps(lesson, number, epoch)):
            loss = model.loss(step, settings.l2, multiply)
            descend(optimiser, loss)
            total, triples = total + float(loss.detach()) * step.size, triples + step.size
        if triples:
            measures.append((epoch, domain.name, "loss", total / triples))
    for pairs in lesson.pairs:
        loss = alignment_loss(model, pairs, multiply)
        descend(optimiser, settings.alignment * loss)
        names = [lesson.network.world.domains[number].name for number in (pairs.source, pairs.target)]
        measures.append((epoch, names[0], f"alignment to {names[1]}", float(loss.detach())))
    for number in sorted({pairs.source for pairs in lesson.pairs}):
        name = lesson.network.world.domains[number].name
        measures += [(epoch, name, metric, value) for metric, value in map_health(model, number).items()]
    return measures


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


def _validate(learner: Learner, lesson: Lesson, epoch: int) -> tuple[list[Measure], float | None]:
    """Validation measures of each domain and their mean, and the score that epochs are selected by: macro AUC."""
    measures: list[Measure] = []
    by_metric: dict[str, list[float]] = {}
    world = lesson.network.world
    for domain, held, vectors in zip(world.domains, lesson.held, learner.vectors(), strict=True):
        statistics = candidate_statistics(*score_candidates(held, vectors, domain.users), lesson.recall_at)
        for metric, of in statistics.items():
            value = of(np.ones(held.users.size))
            measures.append((epoch, domain.name, metric, value))
            by_metric.setdefault(metric, []).append(value)
    means = {metric: math.fsum(values) / len(values) for metric, values in by_metric.items()}
    measures += [(epoch, "macro", metric, value) for metric, value in means.items()]
    return measures, means.get("auc")
