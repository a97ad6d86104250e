"""Do domains pull a shared table apart? Gradients of each domain's loss, compared between epochs of a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations_with_replacement

import pyarrow as pa
import torch
from torch import Tensor

from data_contracts.contracts import GRADIENTS
from data_contracts.progress import Progress, silent
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.train import CheckpointSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from data_contracts.store.store import Store
from model.compute.threads import torch_threads
from model.learners.divergence import EpochGuard
from model.learners.edda import EddaLearner, build_edda, draw_steps
from model.training.stage import load_training_data

_Row = tuple[int, str, str, str, str, float | None]
"""Epoch, table, domain, other domain, metric, value."""


def measure_gradients(
    store: Store,
    settings: CheckpointSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,
    progress: Progress = silent,
) -> Artifact:
    """Train for `settings.train.epochs` and measure the domains' gradients before epochs 1, 2, 4, 8 … and the last one.

    A domain's gradient is that of its mean loss, without penalty, over all of its batches of the epoch, drawn as the
    epoch itself draws them. Gradients of two domains are compared as those of every other batch of the one and the
    remaining ones of the other; so are the two halves of one domain, which shows how much of a conflict is chance.

    Args:
        store: where the artifact lives.
        settings: of the model EDDA and its optimisation, and the seed; nothing is selected.
        parents: as for `model.training.stage.train`.
        compute: threads.
        progress: called after each epoch.

    Returns:
        A `gradients` artifact. `norm` is that of a domain's gradient on a table; `cosine` is of two domains' gradients
        on the inter table, or of one domain's halves; `negative` is the share of rows of the inter table, of those that
        both read, on which the two have a negative cosine; `rows` is the number of these rows.

    Raises:
        ValueError: the model is not EDDA.
        DivergedError: a loss is not finite any more.
    """
    if settings.train.model != "edda":
        raise ValueError(f"train.model is {settings.train.model!r}, must be 'edda' to measure gradients by domain")

    def write(draft: Draft) -> None:
        rows: list[_Row] = []
        with torch_threads(compute.threads, 1):
            data = load_training_data(settings, parents)
            learner, last = build_edda(data), settings.train.epochs
            for epoch in range(1, last + 1):
                if epoch & (epoch - 1) == 0 or epoch == last:
                    rows += _compare(learner, epoch)
                guard = EpochGuard(settings.seed, epoch, 0, settings.train.learning_rate)
                learner.train_epoch(guard)
                progress(epoch, last, "epochs")
        table = pa.table(list(map(pa.array, zip(*rows, strict=True))), GRADIENTS.file_schema)
        draft.write(table.sort_by([(column, "ascending") for column in GRADIENTS.sorted_by]))

    return store.make(GRADIENTS, settings.keyed(), parents, write)


def _compare(learner: EddaLearner, epoch: int) -> Iterator[_Row]:
    """Norms of every domain's gradients, and cosines on the inter table of every two and of each one's halves."""
    names = learner.data.domain_names
    inter, intra = domain_gradients(learner, epoch)
    for kind, gradients in (("inter", inter), ("intra", intra)):
        for domain, halves in gradients.items():
            yield epoch, kind, names[domain], "", "norm", float(halves.sum(dim=0).norm())
    for first, second in combinations_with_replacement(sorted(inter), 2):
        left, right = inter[first][0], inter[second][1]
        products = (left * right).sum(dim=1)
        is_common = (left.norm(dim=1) > 0) & (right.norm(dim=1) > 0)
        rows, scale = int(is_common.sum()), float(left.norm() * right.norm())
        values = {
            "rows": float(rows),
            "cosine": float(products.sum()) / scale if scale else None,
            "negative": float((products[is_common] < 0).sum()) / rows if rows else None,
        }
        for metric, value in values.items():
            yield epoch, "inter", names[first], names[second], metric, value


def domain_gradients(learner: EddaLearner, epoch: int) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """The gradient of each domain's mean loss over the batches of an epoch, which is not trained.

    Args:
        learner: between two epochs.
        epoch: whose batches, negatives and dropped edges are drawn.

    Returns:
        By the index of a domain its gradient on the inter table, and on its own; (2, rows, width), of those that exist:
        the parts of its batches with even numbers and of those with odd ones, whose sum is the gradient.
    """
    data, model = learner.data, learner.model
    gradients: tuple[dict[int, Tensor], dict[int, Tensor]] = ({}, {})
    batches: dict[int, list[int]] = {}
    for step in draw_steps(data, epoch, learner.thresholds):
        tables = list(model.step_tables(step))
        loss = model.loss(step, (0.0, 0.0), data.graphs.multiply, data.objective)
        found = torch.autograd.grad(loss, [table for _, table, _ in tables])
        sizes = batches.setdefault(step.domain, [])
        half = len(sizes) % 2
        sizes.append(step.size)
        for (kind, table, _), gradient in zip(tables, found, strict=True):
            halves = gradients[kind].setdefault(step.domain, table.new_zeros((2, *table.shape)))
            halves[half] += gradient * step.size
    inter, intra = (
        {domain: halves / sum(batches[domain]) for domain, halves in of_kind.items()} for of_kind in gradients
    )
    return inter, intra
