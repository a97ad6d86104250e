"""The jobs of `benchmarks/train.py`, each in its own process: a contender's cost and floor, or its parity with edda."""

# mypy: ignore-errors
from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np
import torch

from data_contracts.resources import peak_memory_mib
from data_contracts.settings.train import CheckpointSettings, TrainSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from model.compute.device import keep_freed_memory
from model.data.batches import Batch, Batching, Positives, build_batches, build_positives
from model.data.dataset import MultiDomainData, load_dataset, load_interactions
from model.edda.model import Edda, TableShapes
from model.learners import edda as learning
from model.learners.base import TrainingData, optimizer_step
from model.learners.divergence import EpochGuard
from model.learners.row_adam import RowAdam
from model.training import stage as train

from .train import PEERS, Pairs, Plain, build_triples, load_pairs

EDDA = "edda"
ENGINES = {EDDA: "native", "edda, torch-sparse": "torch-sparse"}
SEED = 1
COPIED = 1 << 28
"""Bytes that are copied to measure bandwidth."""


@dataclass(frozen=True)
class Contest:
    """The training data that all contenders share."""

    settings: TrainSettings
    artifacts: dict[str, Artifact]
    world: MultiDomainData
    positives: tuple[Positives, ...]

    def changed(self, **settings: object) -> Contest:
        """A copy with other settings."""
        return replace(self, settings=self.settings.model_copy(update=settings))

    def batches(self, number: int) -> Iterator[Batch]:
        """The first epoch of a domain."""
        return build_batches(self.positives[number], SEED, 1, Batching.from_settings(self.settings, self.positives))

    def pairs(self) -> list[Pairs]:
        """The aligned pairs of all domains."""
        return load_pairs(self.artifacts["pairs"], self.world)

    def data(self) -> TrainingData:
        """The training data as our stage loads it."""
        return train.load_training_data(CheckpointSettings(train=self.settings, seed=SEED), self.artifacts)

    def start(self) -> Edda:
        """The tables and maps that all contenders start from."""
        domains = {domain.name: domain.nodes for domain in self.world.domains}
        width, intra_width = self.settings.widths
        shape = TableShapes("both", width, self.world.nodes, domains, aligned=True, intra_width=intra_width)
        return Edda(shape, SEED, self.settings.initial_spread)


@dataclass(frozen=True)
class Learner:
    """A model and its loss, as a function of a domain's number, a batch, and the (epoch, position) that names masks."""

    model: Edda | Plain
    loss: Callable[[int, Batch, tuple[int, int]], torch.Tensor]


def load_contest(run: Path, settings: TrainSettings) -> Contest:
    """The training data of a run."""
    store = Store(run.parent.parent)
    return build_contest(store.recorded(store.run(run.name)), settings)


def build_contest(artifacts: dict[str, Artifact], settings: TrainSettings) -> Contest:
    """The training data in artifacts."""
    world = load_dataset(artifacts["nodes"], artifacts["graph"])
    rows = ((load_interactions(artifacts["interactions"], domain, world), domain) for domain in world.domains)
    return Contest(settings, artifacts, world, tuple(build_positives(*both, "clean") for both in rows))


def edda_cost(contest: Contest, contender: str) -> dict:
    """Cost of our second epoch, and the floor."""
    data = contest.changed(engine=ENGINES[contender]).data()
    return epoch_cost(contest, data) | {"floor": lower_bound(data)}


def epoch_cost(contest: Contest, data: TrainingData) -> dict:
    """Cost of the second epoch from the start."""
    keep_freed_memory()
    model = contest.start()
    optimiser = adam(model, contest.settings)
    without = tuple(replace(part, users=part.users[:0], items=part.items[:0]) for part in data.positives)
    costs = {}
    for epoch in (1, 2):
        for part, inputs in (("bpr", replace(data, alignment=())), ("alignment", replace(data, positives=without))):
            guard = EpochGuard(SEED, epoch, 0, contest.settings.learning_rate)
            cpu, wall = clocked(
                lambda inputs=inputs, guard=guard: learning.EddaLearner(model, optimiser, inputs).train_epoch(guard)
            )
            costs |= {f"{part}_cpu": cpu, f"{part}_wall": wall}
    return costs | {"peak_mib": peak_memory_mib(), "share": "all"}


def plain_cost(contest: Contest, peer: str, most: int) -> dict:
    """Cost of an epoch of a peer, from the first batches of each domain, after a warm-up batch."""
    plain = Plain(contest.start(), contest.world, contest.settings, peer)
    optimiser = adam(plain, contest.settings)
    costs = dict.fromkeys(("bpr_cpu", "bpr_wall", "alignment_cpu", "alignment_wall"), 0.0)
    warm, taken, total = False, 0, 0
    for number in range(len(contest.world.domains)):
        triples = [build_triples(batch) for batch in contest.batches(number)]
        for batch in triples[:most] if warm else triples[:1] + triples[:most]:
            cpu, wall = clocked(lambda number=number, batch=batch: optimizer_step(optimiser, plain.loss(number, batch)))
            scale = len(triples) / len(triples[:most]) if warm else 0.0
            costs["bpr_cpu"] += cpu * scale
            costs["bpr_wall"] += wall * scale
            warm = True
        taken, total = taken + len(triples[:most]), total + len(triples)
    weight = contest.settings.alignment
    for pairs in contest.pairs():
        cpu, wall = clocked(lambda pairs=pairs: optimizer_step(optimiser, weight * plain.alignment_loss(pairs)))
        costs["alignment_cpu"] += cpu
        costs["alignment_wall"] += wall
    return costs | {"peak_mib": peak_memory_mib(), "share": f"{taken}/{total}"}


def clocked(work: Callable) -> tuple[float, float]:
    """CPU seconds of all threads and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def adam(model: Edda | Plain, settings: TrainSettings) -> torch.optim.Optimizer:
    """Adam over all tables and maps: the stage's for edda, torch's for peers, fused except for DGL."""
    if isinstance(model, Edda):
        return RowAdam(model.parameters(), settings.learning_rate)
    return torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=model.peer != "dgl")


def lower_bound(data: TrainingData) -> dict:
    """Fewest bytes and multiply-adds of an epoch, and the seconds that they take on this machine."""
    sizes = {"bpr": np.zeros(3), "alignment": np.zeros(3)}  # bytes for touched rows, for all rows, operations
    nodes = [domain.nodes for domain in data.graphs.dataset.domains]
    for step in learning.draw_steps(data, 1):
        tables = (step.inter, data.graphs.dataset.nodes), (step.intra, nodes[step.domain])
        for (subgraph, rows), width in zip(tables, data.settings.widths, strict=True):
            edges = sum(layer.forward.indices.numel() for layer in subgraph.layers)
            touched = subgraph.rows.numel()
            moved = 32 * touched * width, (2 * touched + 6 * rows) * 4 * width
            sizes["bpr"] += (moved[0] + 8 * edges, moved[1] + 8 * edges, 4 * edges * width)
    width = data.settings.widths[1]
    for pairs in data.alignment:
        touched, rows = pairs.source_rows.numel() + pairs.target_rows.numel(), nodes[pairs.source] + nodes[pairs.target]
        edges = 2 * pairs.pairs
        moved = 32 * touched * width, (2 * touched + 6 * rows) * 4 * width
        operations = 6 * touched * width**2 + 4 * edges * width
        sizes["alignment"] += (moved[0] + 4 * edges, moved[1] + 4 * edges, operations)
    return estimate_seconds(sizes)


def estimate_seconds(sizes: dict[str, np.ndarray]) -> dict:
    """Seconds for bytes and operations on this machine, by phase of the epoch."""
    old, new = torch.ones(COPIED // 4), torch.zeros(COPIED // 4)
    bandwidth = 2 * COPIED / min(clocked(lambda: new.copy_(old))[1] for _ in range(7))
    square = torch.ones(1024, 1024)
    rate = 2 * 1024**3 / min(clocked(lambda: square @ square)[1] for _ in range(7))
    results = {"gigabytes_per_second": bandwidth / 1e9, "gigaflops": rate / 1e9}
    for column, which in enumerate(("touched", "all")):
        parts = {part: max(size[column] / bandwidth, size[2] / rate) for part, size in sizes.items()}
        results[f"{which}_bytes"] = {part: int(size[column]) for part, size in sizes.items()}
        results[f"{which}_seconds"] = parts | {"epoch": sum(parts.values())}
    return results


def parity_with(contest: Contest, contender: str, steps: int, draws: int) -> dict:
    """Differences of losses and gradients from ours: step by step without dropout, on average with it."""
    still = contest.changed(edge_dropout=0.0)
    own, other = (first_gradients(build_learner(still, name), still) for name in (EDDA, contender))
    ours, theirs = (trajectory(build_learner(still, name), still, steps, 0) for name in (EDDA, contender))
    losses = np.abs(np.subtract(theirs, ours)) / np.abs(ours)
    gradients = [float((a - b).abs().max() / a.abs().max()) for a, b in zip(own, other, strict=True)]
    wide = contest.changed(initial_spread=10 * contest.settings.initial_spread)
    by_draw = [mean_losses(build_learner(wide, name), wide, -(-steps // 2), draws) for name in (EDDA, contender)]
    our_mean, mean = (float(np.mean(losses)) for losses in by_draw)
    return {
        "losses": float(losses.max()),
        "gradients": max(gradients),
        "our_mean": our_mean,
        "mean": mean,
        "standard_errors": apart(*by_draw),
    }


def apart(ours: list[float], theirs: list[float]) -> float:
    """Difference of two samples' means in standard errors; 0 where they are equal."""
    error = np.sqrt(np.var(ours, ddof=1) / len(ours) + np.var(theirs, ddof=1) / len(theirs))
    difference = np.mean(theirs) - np.mean(ours)
    return float(difference / error) if difference else 0.0


def mean_losses(learner: Learner, contest: Contest, steps: int, draws: int) -> list[float]:
    """Mean loss of the first steps, once for each draw of the masks."""
    return [float(np.mean(trajectory(learner, contest, steps, draw))) for draw in range(draws)]


def trajectory(learner: Learner, contest: Contest, steps: int, draw: int) -> list[float]:
    """Losses of the first steps from the start; the draw names the masks."""
    learner.model.load(contest.start().tensors())
    torch.manual_seed(draw)
    optimiser = adam(learner.model, contest.settings)
    batches = enumerate(turns(contest, steps))
    return [optimizer_step(optimiser, learner.loss(number, batch, (draw, step))) for step, (number, batch) in batches]


def turns(contest: Contest, steps: int) -> Iterator[tuple[int, Batch]]:
    """The first batch of each domain, the second of each, and so on, up to a number of steps."""
    batches = ([(number, batch) for batch in contest.batches(number)] for number in range(len(contest.world.domains)))
    rounds = (batch for turn in zip_longest(*batches) for batch in turn if batch)
    return islice(rounds, steps)


def first_gradients(learner: Learner, contest: Contest) -> list[torch.Tensor]:
    """Gradients at the first step, of the inter table and of the intra table that has one; the learner is new."""
    number, batch = next(turns(contest, 1))
    learner.loss(number, batch, (0, 0)).backward()
    model = learner.model
    inter, intra = (model.inter, model.intra) if isinstance(model, Plain) else (model.inter[0], model.intra.values())
    return [table.grad.to_dense() for table in (inter, *intra) if table.grad is not None]


def build_learner(contest: Contest, contender: str) -> Learner:
    """A contender as a model and its loss."""
    settings = contest.settings
    if contender in PEERS:
        plain = Plain(contest.start(), contest.world, settings, contender)
        return Learner(plain, lambda number, batch, _: plain.loss(number, build_triples(batch)))
    data, model = contest.changed(engine=ENGINES[contender]).data(), contest.start()

    def loss(number: int, batch: Batch, turn: tuple[int, int]) -> torch.Tensor:
        step = learning.build_step(data, number, batch, turn)
        return model.loss(step, settings.penalties(1.0), data.graphs.multiply)

    return Learner(model, loss)
