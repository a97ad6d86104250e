"""EDDA in training: an epoch of ranking steps on all domains, then its alignment steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from data_contracts.seeding import draw_key
from model.compute.column_parallel import ColumnParallel
from model.data.batches import Batch
from model.edda.alignment import AlignmentBatch, alignment_step, draw_alignment, map_health
from model.edda.contrast import build_contrast
from model.edda.final_vectors import final_vectors
from model.edda.model import Edda, RankingStep, TableShapes
from model.edda.pair_contrast import draw_pair_contrast, pair_contrast_loss
from model.edda.propagation import Dropout, sample_subgraph
from model.learners.base import Measure, TrainingData, mean_losses, optimizer_step, prefetch
from model.learners.divergence import EpochGuard
from model.learners.row_adam import RowAdam
from model.learners.thresholds import are_due, estimate_thresholds


@dataclass(frozen=True)
class EddaLearner:
    """EDDA's tables and maps, Adam, the data they are trained on, and with sl@k the thresholds of each domain."""

    model: Edda
    optimiser: RowAdam
    data: TrainingData
    thresholds: list[torch.Tensor] = field(default_factory=list)

    @property
    def epochs(self) -> int:
        """The settings' number of epochs."""
        return self.data.settings.epochs

    @property
    def processes(self) -> ColumnParallel:
        """The processes that hold the columns of its tables."""
        return self.model.processes

    def train_epoch(self, guard: EpochGuard) -> list[Measure]:
        """Every domain's batches, then an alignment step for each ordered pair of domains [EDDA]."""
        names, multiply, objective = self.data.domain_names, self.data.graphs.multiply, self.data.objective
        losses: dict[int, list[tuple[float, int]]] = {}
        if self.data.settings.objective == "sl@k" and are_due(guard.epoch):
            self.processes.start_step("thresholds")
            vectors = self.vectors()
            estimates = estimate_thresholds(self.data.positives, vectors, self.data.seed, guard.epoch, self.processes)
            self.thresholds[:] = estimates
        for step in prefetch(draw_steps(self.data, guard.epoch, self.thresholds)):
            self.processes.start_step("batch")
            for _, table, subgraph in self.model.step_tables(step):
                self.optimiser.prepare_rows(table, subgraph.rows)
            penalties = self.data.settings.penalties(self.data.graphs.dataset.shared_interaction_shares[step.domain])
            loss = optimizer_step(self.optimiser, self.model.loss(step, penalties, multiply, objective))
            of_domain = losses.setdefault(step.domain, [])
            guard.check_loss(loss, names[step.domain], f"batch {len(of_domain)}")
            of_domain.append((loss, step.size))
        self.optimiser.flush()
        return [*mean_losses(losses, self.data, guard.epoch), *self._align(guard), *self._map_health(guard.epoch)]

    def vectors(self) -> Iterator[torch.Tensor]:
        """The propagated tables."""
        return final_vectors(self.model, self.data.graphs, normalised=self.data.settings.ranks_by_cosine)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Tables and maps."""
        return self.model.tensors()

    def metadata(self) -> dict[str, Any]:
        """The model's name, its tables' shapes and their backbone, and what else its vectors depend on."""
        flags = {"normalised": self.data.settings.ranks_by_cosine, "joins_pairs": self.data.settings.joins_pairs}
        backbone = {name: value for name, value in asdict(self.data.graphs.backbone).items() if value is not None}
        set_flags = {name: True for name, is_set in flags.items() if is_set}
        return {"model": "edda", "shape": asdict(self.model.shape), "backbone": backbone, **set_flags}

    def state_dict(self) -> dict[str, Any]:
        """Tables, maps, Adam's moments and thresholds."""
        thresholds = {"thresholds": self.thresholds} if self.thresholds else {}
        return {"tensors": self.model.tensors(), "optimiser": self.optimiser.state_dict(), **thresholds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy tables, maps, Adam's moments and thresholds from a state."""
        self.model.load(state["tensors"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.thresholds[:] = [of_domain.to(self.data.device) for of_domain in state.get("thresholds", ())]

    def _align(self, guard: EpochGuard) -> list[Measure]:
        """The alignment steps of an epoch and their losses."""
        data, measures = self.data, []
        step = self._contrast_pairs if data.settings.alignment_loss == "contrast" else self._pull_pairs
        for batch in draw_alignment(data.alignment, data.settings.alignment_targets, data.seed, guard.epoch):
            self.processes.start_step("alignment")
            source, metric = data.domain_names[batch.source], f"alignment to {data.domain_names[batch.target]}"
            loss = step(batch, guard.epoch)
            guard.check_loss(loss, source, metric)
            measures.append((guard.epoch, source, metric, loss))
        return measures

    def _pull_pairs(self, batch: AlignmentBatch, _epoch: int) -> float:
        loss, gradients = alignment_step(self.model, batch, self.data.settings.alignment, self.data.graphs.multiply)
        for gradient in gradients:
            self.optimiser.step_rows(*gradient)
        return loss

    def _contrast_pairs(self, batch: AlignmentBatch, epoch: int) -> float:
        pattern = draw_pair_contrast(batch, self.data.seed, epoch).to(self.data.device)
        loss = pair_contrast_loss(self.model, batch, pattern, self.data.graphs.multiply)
        optimizer_step(self.optimiser, self.data.settings.alignment * loss)
        return float(loss.detach())

    def _map_health(self, epoch: int) -> list[Measure]:
        self.processes.start_step("map health")
        measures = []
        for index in sorted({batch.source for batch in self.data.alignment}):
            health = map_health(self.model, index)
            measures += [(epoch, self.data.domain_names[index], metric, value) for metric, value in health.items()]
        return measures


def build_edda(data: TrainingData) -> EddaLearner:
    """EDDA before its first epoch: freshly drawn, or with the tables of an earlier training."""
    settings, dataset = data.settings, data.graphs.dataset
    width, intra_width = settings.widths
    shape = TableShapes(
        tables=settings.tables,
        width=width,
        nodes=dataset.nodes,
        domains={domain.name: domain.nodes for domain in dataset.domains},
        aligned=bool(data.alignment),
        intra_width=intra_width,
        inter_only=tuple(data.shares_without_intra),
    )
    model = Edda(shape, data.seed, settings.initial_spread, data.processes)
    if data.warm_start:
        data.warm_start.initialise(model)
    model = model.to(data.device)
    return EddaLearner(model, RowAdam(model.parameters(), settings.learning_rate), data)


def draw_steps(data: TrainingData, epoch: int, thresholds: Sequence[torch.Tensor] = ()) -> Iterator[RankingStep]:
    """The steps of an epoch over all domains; each domain's thresholds are those of SL@K."""
    for index, number, batch in data.batches(epoch):
        step = build_step(data, index, batch, (epoch, number))
        yield replace(step, thresholds=thresholds[index]) if thresholds else step


def build_step(data: TrainingData, index: int, batch: Batch, name: tuple[int, int]) -> RankingStep:
    """Prune the graphs to one batch; edges are dropped by (seed, table, domain, epoch, number, layer, edge).

    Args:
        data: of the training.
        index: of the batch's domain.
        batch: the triples.
        name: of the batch: epoch, and number in its domain.
    """
    settings, graphs, device = data.settings, data.graphs, data.device
    domain = graphs.dataset.domains[index]
    layers = range(1, graphs.backbone.layers + 1)

    def dropout(table: str) -> Dropout:
        keys = (draw_key(data.seed, "dropout", table, domain.name, *name, layer) for layer in layers)
        return Dropout(settings.edge_dropout, tuple(keys))

    inter = intra = None
    if settings.tables != "intra":
        rows = domain.union_nodes[batch.nodes]
        inter = sample_subgraph(graphs.inter, rows, graphs.backbone, dropout("inter")).to(device)
    if index in graphs.intra:
        intra = sample_subgraph(graphs.intra[index], batch.nodes, graphs.backbone, dropout("intra")).to(device)
    step = RankingStep(index, inter, intra, batch.pattern.to(device), batch.counts.to(device))
    if not settings.contrast:
        return step
    weights, full_name = (settings.contrast, settings.contrast_noise), (data.seed, domain.name, *name)
    contrast = build_contrast(batch.pattern.anchors, batch.nodes.size, weights, graphs.backbone, full_name)
    return replace(step, contrast=contrast.to(device))
