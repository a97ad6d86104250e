"""Alignment: the losses that pull mapped intra vectors of aligned pairs together, and signs of collapse of the maps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import groupby

import numpy as np
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import linear

from data_contracts.seeding import generator
from data_contracts.store.artifact import Artifact
from model.compute.threads import share_rows
from model.data.dataset import MultiDomainData
from model.edda.losses import ordered_sum
from model.edda.model import Edda
from model.edda.pair_kernels import pull_pairs
from model.sparse.matrix import Csr, Matrix, SpmmEngine, csr, with_transpose
from model.sparse.rows import Ints

RowGradient = tuple[Parameter, Tensor, Tensor]
"""A parameter, distinct rows of it (int64), and their gradients."""

_CPU = torch.device("cpu")
_SAMPLED_ROWS = 4096
"""Rows of a table, at most, from which the health of its map is measured."""


@dataclass(frozen=True, eq=False)
class AlignmentBatch:
    """The aligned pairs of one ordered pair of domains: the input of one alignment step.

    What a step needs is derived from them at the first one, as of hundreds of domains few pairs are drawn.

    Attributes:
        source, target: indices of the domains.
        sources, targets: int32 (pairs), the pairs' nodes.
        device: of the steps.
    """

    source: int
    target: int
    sources: Ints
    targets: Ints
    device: torch.device = _CPU

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return self.sources.size

    @cached_property
    def source_rows(self) -> Tensor:
        """int64, the distinct nodes among the sources."""
        return torch.from_numpy(np.unique(self.sources).astype(np.int64)).to(self.device)

    @cached_property
    def target_rows(self) -> Tensor:
        """int64, the distinct nodes among the targets."""
        return torch.from_numpy(np.unique(self.targets).astype(np.int64)).to(self.device)

    @cached_property
    def partners(self) -> Matrix:
        """Ones: for each source the targets that it is paired with. On the CPU."""
        rows, positions = np.unique(self.sources, return_inverse=True)
        columns, partners = np.unique(self.targets, return_inverse=True)
        order, lengths = np.argsort(positions, kind="stable"), np.bincount(positions, minlength=rows.size)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        return with_transpose(csr(indptr, partners[order], np.ones(self.pairs, np.float32), columns.size))

    @cached_property
    def difference(self) -> Matrix:
        """Maps the sources' vectors, followed by the targets', to one difference for each pair. On the device."""
        partners = self.partners.forward
        sources = np.repeat(np.arange(partners.rows), np.diff(partners.indptr.numpy()))
        columns = np.stack([sources, partners.indices.numpy() + partners.rows], axis=1).ravel()
        signs = np.tile(np.array([1.0, -1.0], np.float32), self.pairs)
        indptr = np.arange(0, columns.size + 1, 2)
        return with_transpose(csr(indptr, columns, signs, partners.rows + partners.columns)).to(self.device)

    def to(self, device: torch.device) -> AlignmentBatch:
        """The batch for steps on a device."""
        return replace(self, device=device)


def load_alignment(
    pairs: Artifact, dataset: MultiDomainData, intra_domains: Collection[int] | None = None
) -> Iterator[AlignmentBatch]:
    """A batch for every ordered pair of domains that has aligned pairs, in the order of the domains.

    Args:
        pairs: the artifact.
        dataset: the domains.
        intra_domains: indices of the domains that have an intra table, which alone are aligned; all by default.
    """
    index = {domain.name: number for number, domain in enumerate(dataset.domains)}
    chosen = set(index.values() if intra_domains is None else intra_domains)
    for partition in sorted(pairs.partitions(), key=lambda partition: index[partition["source_domain"]]):
        source = index[partition["source_domain"]]
        if source not in chosen:
            continue
        batches = []
        for table in pairs.batches(["target_domain", "source_node", "target_node"], **partition):
            targets = pc.run_end_encode(table["target_domain"].combine_chunks())
            ends = zip(targets.run_ends.to_pylist(), targets.values.to_pylist(), strict=True)
            start = 0
            for stop, name in ends:
                target, rows = index[name], table.slice(start, stop - start)
                start = stop
                if target in chosen:
                    nodes = rows["source_node"].to_numpy(), rows["target_node"].to_numpy()
                    batches.append(AlignmentBatch(source, target, *nodes))
        yield from sorted(batches, key=lambda batch: batch.target)


def draw_alignment(batches: Sequence[AlignmentBatch], targets: int, seed: int, epoch: int) -> Iterator[AlignmentBatch]:
    """The batches of an epoch, in their order: for each source domain at most `targets` target domains, drawn.

    Differs: [EDDA] aligns all ordered pairs of domains, whose number is quadratic in the domains.
    """
    for source, grouped in groupby(batches, key=lambda batch: batch.source):
        of_source = list(grouped)
        draws = generator(seed, "alignment", source, epoch)
        chosen = draws.choice(len(of_source), min(targets, len(of_source)), replace=False, shuffle=False)
        yield from (of_source[number] for number in sorted(chosen.tolist()))


@torch.no_grad()
def alignment_step(
    model: Edda, batch: AlignmentBatch, weight: float, multiply: SpmmEngine
) -> tuple[float, list[RowGradient]]:
    """The alignment loss of a batch [EDDA] and its gradient, in closed form.

    The loss is the mean distance (not squared) of the pairs' mapped layer-0 intra vectors. Only rows of aligned nodes
    are touched. Made of torch's differentiable functions, a step of a small pair of domains would mostly wait for these
    to be called.

    Args:
        model: tables and maps.
        batch: the pairs.
        weight: the gradient is that of the loss times this.
        multiply: the engine of products, where the pairs are not on the CPU.

    Returns:
        The loss, and the gradients of both tables and both maps; 0 for pairs at distance 0.
    """
    domains = (batch.source, batch.source_rows), (batch.target, batch.target_rows)
    vectors = [model.intra[domain].index_select(0, rows) for domain, rows in domains]
    maps = [model.maps[domain] for domain, _ in domains]
    mapped = [model.processes.all_reduce(linear(*each)) for each in zip(vectors, maps, strict=True)]
    pull = _pull_rows if batch.device.type == "cpu" else partial(_pull_by_products, multiply=multiply)
    loss, pulls = pull(batch, mapped, weight / batch.pairs)
    gradients: list[RowGradient] = []
    for (domain, rows), taken, own_map, pulled in zip(domains, vectors, maps, pulls, strict=True):
        outputs = torch.arange(own_map.shape[0], device=batch.device)
        gradients += [(model.intra[domain], rows, pulled @ own_map), (own_map, outputs, pulled.T @ taken)]
    return loss, gradients


def _pull_rows(batch: AlignmentBatch, mapped: Sequence[Tensor], weight: float) -> tuple[float, list[Tensor]]:
    """Mean distance of the pairs, and the gradient of the weighted sum of their distances by the mapped vectors."""
    lengths, pulls = np.empty(batch.pairs, np.float32), [torch.empty_like(vectors) for vectors in mapped]

    def pull(first: int, last: int, partners: Csr, tensors: Sequence[Tensor]) -> None:
        vectors, others, gradient = (tensor.numpy() for tensor in tensors)
        pattern = partners.indptr.numpy(), partners.indices.numpy()
        pull_pairs(first, last, *pattern, vectors, others, np.float32(weight), lengths, gradient)

    patterns = batch.partners.forward, batch.partners.backward
    for partners, *tensors in zip(patterns, mapped, reversed(mapped), pulls, strict=True):
        operations = batch.pairs * tensors[0].shape[1]
        share_rows(partners.rows, operations, partial(pull, partners=partners, tensors=tensors))
    return float(lengths.astype(np.float64).mean()), pulls


def _pull_by_products(
    batch: AlignmentBatch, mapped: Sequence[Tensor], weight: float, multiply: SpmmEngine
) -> tuple[float, list[Tensor]]:
    """`_pull_rows` where the pairs are not on the CPU."""
    differences = multiply(batch.difference.forward, torch.cat(list(mapped)))
    lengths = torch.linalg.vector_norm(differences, dim=1)
    scale = torch.where(lengths > 0, weight / lengths, 0.0)
    pulls = multiply(batch.difference.backward, scale.unsqueeze(1) * differences)
    return float(ordered_sum(lengths)) / batch.pairs, list(torch.split(pulls, [vectors.shape[0] for vectors in mapped]))


@torch.no_grad()
def map_health(model: Edda, domain: int) -> dict[str, float]:
    """Signs of collapse: without negatives, a map of zeros is a trivial minimum of the alignment loss.

    Returns:
        `map_norm`, the Frobenius norm of the domain's map, and `map_spread`, the root mean square deviation of its
        mapped vectors from their mean over that of the vectors themselves; both near 0 when collapsed. A large table
        is measured at evenly spaced rows.
    """
    processes, rows, weights = model.processes, model.intra[domain], model.maps[domain]
    table = rows[:: -(-rows.shape[0] // _SAMPLED_ROWS) or 1]
    spread = _deviation(processes.all_gather(_variances(table)))
    outputs = (weights[columns] for columns in processes.column_ranges(model.shape.widths[1]))
    mapped = _deviation([_variances(processes.all_reduce(linear(table, output))) for output in outputs])
    norm = float(np.linalg.norm(np.concatenate(processes.all_gather(weights.cpu().numpy()), axis=1)))
    return {"map_norm": norm, "map_spread": mapped / spread if spread else 0.0}


def _variances(vectors: Tensor) -> NDArray[np.float64]:
    """Variance of each column; empty for an empty table."""
    array = vectors.cpu().numpy()
    with np.errstate(invalid="ignore", over="ignore"):  # training's own check finds tables that are not finite
        return np.var(array, axis=0, dtype=np.float64) if array.size else np.empty(0)


def _deviation(variances: Sequence[NDArray[np.float64]]) -> float:
    joined = np.concatenate(variances)
    return float(np.sqrt(np.mean(joined))) if joined.size else 0.0
