"""Alignment: the losses that pull mapped intra vectors of aligned pairs together, and signs of collapse of the maps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import linear

from data_contracts.seeding import generator
from data_contracts.store.artifact import Artifact
from model.data.dataset import MultiDomainData
from model.edda.contrast import INFO_NCE
from model.edda.losses import pair_distance
from model.edda.model import Edda
from model.sparse.group_scores import GroupPattern, group_pattern, group_windows
from model.sparse.matrix import Matrix, SpmmEngine, csr, spmm, take_rows, with_transpose

_GROUP = 256
"""Pairs that InfoNCE compares with each other."""
_CONTRASTED = 8_192
"""Pairs of two domains that it compares in an epoch, at most."""
_SAMPLED_ROWS = 4096
"""Rows of a table, at most, from which the health of its map is measured."""


@dataclass(frozen=True)
class AlignmentBatch:
    """The aligned pairs of one ordered pair of domains: the input of one alignment step.

    Attributes:
        source, target: indices of the domains.
        source_rows, target_rows: int64, the distinct nodes among the pairs' sources and targets.
        difference: maps the sources' vectors, followed by the targets', to one difference for each pair.
    """

    source: int
    target: int
    source_rows: Tensor
    target_rows: Tensor
    difference: Matrix

    def to(self, device: torch.device) -> AlignmentBatch:
        """The batch on a device."""
        source_rows, target_rows = self.source_rows.to(device), self.target_rows.to(device)
        return AlignmentBatch(self.source, self.target, source_rows, target_rows, self.difference.to(device))


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
                    batches.append(_build_batch(source, target, *nodes))
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


def draw_contrast(batch: AlignmentBatch, seed: int, epoch: int) -> GroupPattern:
    """Which mapped vectors of a batch, sources then targets, InfoNCE compares in an epoch.

    Pairs are dealt into groups at random, and if there are many only some are; within a group each pair's source is
    compared with the targets of all pairs but those that have its source or its target, which are no negatives.
    """
    pairs = batch.difference.forward.indices.view(-1, 2).numpy()
    pairs = generator(seed, "pair contrast", batch.source, batch.target, epoch).permutation(pairs)[:_CONTRASTED]
    is_left_out = np.empty((len(pairs), min(_GROUP, len(pairs))), np.bool_)
    for group, window in group_windows(len(pairs), _GROUP):
        alike = pairs[group, None, :] == pairs[None, window, :]
        is_left_out[group] = alike.any(axis=2)
    sources, targets = pairs.T
    nodes = batch.source_rows.numel() + batch.target_rows.numel()
    return group_pattern(np.stack([sources, targets, targets]), nodes, sources, is_left_out)


def alignment_loss(
    model: Edda, batch: AlignmentBatch, multiply: SpmmEngine, contrast: GroupPattern | None = None
) -> Tensor:
    """The loss of the pairs' mapped layer-0 intra vectors; only rows of aligned nodes are touched.

    Their mean distance [EDDA], or with a contrast the mean of -log softmax of a pair's cosine over those of its group
    (InfoNCE, temperature 0.2).
    """
    mapped = []
    for domain, rows in ((batch.source, batch.source_rows), (batch.target, batch.target_rows)):
        partial = linear(take_rows(model.intra[domain], rows), model.maps[domain])
        mapped.append(model.processes.all_reduce(partial))
    vectors = torch.cat(mapped)
    if contrast is not None:
        return INFO_NCE.loss(contrast, INFO_NCE.sums(contrast, vectors, multiply), None)
    return pair_distance(spmm(batch.difference, vectors, multiply))


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


def _build_batch(source: int, target: int, sources: np.ndarray, targets: np.ndarray) -> AlignmentBatch:
    source_rows, source_positions = np.unique(sources, return_inverse=True)
    target_rows, target_positions = np.unique(targets, return_inverse=True)
    columns = np.stack([source_positions, target_positions + source_rows.size], axis=1).ravel()
    signs = np.tile(np.array([1.0, -1.0], np.float32), sources.size)
    difference = csr(np.arange(0, columns.size + 1, 2), columns, signs, source_rows.size + target_rows.size)
    return AlignmentBatch(
        source,
        target,
        source_rows=torch.from_numpy(source_rows.astype(np.int64)),
        target_rows=torch.from_numpy(target_rows.astype(np.int64)),
        difference=with_transpose(difference),
    )


def _variances(vectors: Tensor) -> NDArray[np.float64]:
    """Variance of each column; empty for an empty table."""
    array = vectors.cpu().numpy()
    with np.errstate(invalid="ignore", over="ignore"):  # training's own check finds tables that are not finite
        return np.var(array, axis=0, dtype=np.float64) if array.size else np.empty(0)


def _deviation(variances: Sequence[NDArray[np.float64]]) -> float:
    joined = np.concatenate(variances)
    return float(np.sqrt(np.mean(joined))) if joined.size else 0.0
