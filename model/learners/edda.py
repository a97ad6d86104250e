"""EDDA learns: every domain's batches, pruned and scored, then its alignment steps, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from data_contracts.seeding import draw_key
from model.compute.column_parallel import Columns
from model.data.batches import Batch
from model.edda.alignment import alignment_loss, map_health, pairs_of_epoch
from model.edda.final_vectors import final_vectors
from model.edda.model import Edda, Shape, Step
from model.edda.propagation import Dropout, fan_of
from model.learners.base import Lesson, Measure, ahead, descend, mean_losses
from model.learners.divergence import Course
from model.learners.row_adam import RowAdam


@dataclass(frozen=True)
class EddaLearner:
    """EDDA in training: its tables and maps, Adam, and what it learns from."""

    model: Edda
    optimiser: RowAdam
    lesson: Lesson

    @property
    def epochs(self) -> int:
        """As set."""
        return self.lesson.settings.epochs

    @property
    def columns(self) -> Columns:
        """Of every table, those of this process."""
        return self.model.columns

    def learn(self, course: Course) -> list[Measure]:
        """Every domain's batches, then the alignment steps."""
        return _learn(self.model, self.optimiser, self.lesson, course)

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


def edda_of(lesson: Lesson) -> EddaLearner:
    """EDDA before its first epoch, as drawn, or where an earlier training ended."""
    settings, network = lesson.settings, lesson.network
    domains = {domain.name: domain.nodes for domain in network.world.domains}
    width, intra_width = settings.widths
    inter_only = tuple(lesson.shares_without_intra)
    shape = Shape(settings.tables, width, network.world.nodes, domains, bool(lesson.pairs), intra_width, inter_only)
    model = Edda(shape, lesson.seed, settings.initial_spread, lesson.columns)
    if lesson.warm:
        lesson.warm.fill(model)
    model = model.to(lesson.device)
    optimiser = RowAdam(model.parameters(), settings.learning_rate)
    return EddaLearner(model, optimiser, lesson)


def _learn(model: Edda, optimiser: RowAdam, lesson: Lesson, course: Course) -> list[Measure]:
    """One epoch: every domain's batches, then an alignment step for each of its ordered pairs of domains [EDDA]."""
    names = [domain.name for domain in lesson.network.world.domains]
    losses: dict[int, list[tuple[float, int]]] = {}
    for step in ahead(_steps(lesson, course.epoch)):
        model.columns.begin("batch")
        loss = _follow(model, optimiser, lesson, step)
        of_domain = losses.setdefault(step.domain, [])
        course.check_loss(loss, names[step.domain], f"batch {len(of_domain)}")
        of_domain.append((loss, step.size))
    optimiser.settle()
    return mean_losses(losses, lesson, course.epoch) + _align(model, optimiser, lesson, course)


def _follow(model: Edda, optimiser: RowAdam, lesson: Lesson, step: Step) -> float:
    """Learn from one step; its loss before."""
    for _, table, fan in model.reads(step):
        optimiser.reads(table, fan.rows)
    penalties = lesson.settings.penalties(lesson.network.world.shared[step.domain])
    return descend(optimiser, model.loss(step, penalties, lesson.network.multiply))


def _align(model: Edda, optimiser: RowAdam, lesson: Lesson, course: Course) -> list[Measure]:
    """The alignment steps of an epoch, and how the maps are after them."""
    names = [domain.name for domain in lesson.network.world.domains]
    measures: list[Measure] = []
    for pairs in pairs_of_epoch(lesson.pairs, lesson.settings.alignment_targets, lesson.seed, course.epoch):
        model.columns.begin("alignment")
        loss = alignment_loss(model, pairs, lesson.network.multiply)
        descend(optimiser, lesson.settings.alignment * loss)
        source, metric, distance = names[pairs.source], f"alignment to {names[pairs.target]}", float(loss.detach())
        course.check_loss(distance, source, metric)
        measures.append((course.epoch, source, metric, distance))
    model.columns.begin("map health")
    for number in sorted({pairs.source for pairs in lesson.pairs}):
        health = map_health(model, number)
        measures += [(course.epoch, names[number], metric, value) for metric, value in health.items()]
    return measures


def _steps(lesson: Lesson, epoch: int) -> Iterator[Step]:
    for number, place, batch in lesson.batches(epoch):
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
    if number in network.intra:
        intra = fan_of(network.intra[number], batch.nodes, network.backbone, dropout("intra")).to(lesson.device)
    return Step(number, inter, intra, batch.pairing.to(lesson.device), batch.counts.to(lesson.device))
