"""Alignment: pulling the mapped intra vectors of aligned pairs together, and watching that the maps do not collapse."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import linear

from data_contracts.seeding import generator
from data_contracts.store.artifact import Artifact
from data_contracts.store.files import partition_of
from model.data.dataset import World
from model.edda.losses import pair_distance
from model.edda.model import Edda
from model.sparse.matrix import Matrix, Multiply, csr, product, take_rows, with_transpose

_LOOKED_AT = 4096
"""Rows of a table that are mapped to see how its map is, at most."""


@dataclass(frozen=True)
class AlignedPairs:
    """The aligned pairs of one ordered pair of domains.

    Attributes:
        source, target: positions of the domains.
        source_rows, target_rows: int64, the distinct nodes among the pairs' sources and targets.
        difference: for each pair its source's vector minus its target's, out of all sources' then all targets' vectors.
    """

    source: int
    target: int
    source_rows: Tensor
    target_rows: Tensor
    difference: Matrix

    def to(self, device: torch.device) -> AlignedPairs:
        """The pairs on a device."""
        rows = self.source_rows.to(device), self.target_rows.to(device)
        return AlignedPairs(self.source, self.target, *rows, self.difference.to(device))


def load_pairs(pairs: Artifact, world: World, private: Collection[int] | None = None) -> Iterator[AlignedPairs]:
    """Every ordered pair of domains that has aligned pairs, in the world's order.

    Args:
        pairs: the artifact.
        world: the domains.
        private: places of the domains that have an intra table, which alone are aligned; all by default.
    """
    number = {domain.name: place for place, domain in enumerate(world.domains)}
    filled = [partition_of(entry.path) for entry in pairs.manifest.files if entry.rows]
    places = {tuple(number[domain] for domain in partition.values()): partition for partition in filled}
    for (source, target), partition in sorted(places.items()):
        if private is not None and not {source, target} <= set(private):
            continue
        table = pairs.read(["source_node", "target_node"], **partition)
        yield _aligned(source, target, table["source_node"].to_numpy(), table["target_node"].to_numpy())


def pairs_of_epoch(pairs: Sequence[AlignedPairs], targets: int, seed: int, epoch: int) -> Iterator[AlignedPairs]:
    """The ordered pairs of domains that an epoch aligns, in their order: of each source at most so many targets.

    Differs: [EDDA] aligns all, whose number is the square of the domains'.
    """
    for source, found in groupby(pairs, key=lambda of: of.source):
        of_source = list(found)
        draws = generator(seed, "alignment", source, epoch)
        chosen = draws.choice(len(of_source), min(targets, len(of_source)), replace=False, shuffle=False)
        yield from (of_source[number] for number in sorted(chosen.tolist()))


def alignment_loss(model: Edda, pairs: AlignedPairs, multiply: Multiply) -> Tensor:
    """Mean distance of the pairs' mapped layer-0 intra vectors [EDDA]; only the paired rows are touched."""
    sources = _mapped(model, pairs.source, take_rows(model.intra[pairs.source], pairs.source_rows))
    targets = _mapped(model, pairs.target, take_rows(model.intra[pairs.target], pairs.target_rows))
    return pair_distance(product(pairs.difference, torch.cat([sources, targets]), multiply))


@torch.no_grad()
def map_health(model: Edda, domain: int) -> dict[str, float]:
    """Signs of collapse: without negatives, a map of zeros is a trivial minimum of the alignment loss.

    Returns:
        `map_norm`, the Frobenius norm of the domain's map, and `map_spread`, the root mean square deviation of its
        mapped vectors from their mean over that of the vectors themselves; both near 0 when collapsed. Of a large
        table every so many rows are looked at.
    """
    columns, rows, weights = model.columns, model.intra[domain], model.maps[domain]
    table = rows[:: -(-rows.shape[0] // _LOOKED_AT) or 1]
    spread = _deviation(columns.every(_variances(table)))
    outputs = (weights[part] for part in columns.parts(model.shape.widths[1]))
    mapped = _deviation([_variances(columns.total(linear(table, part))) for part in outputs])
    norm = float(np.linalg.norm(np.concatenate(columns.every(weights.cpu().numpy()), axis=1)))
    return {"map_norm": norm, "map_spread": mapped / spread if spread else 0.0}


def _aligned(source: int, target: int, sources: np.ndarray, targets: np.ndarray) -> AlignedPairs:
    source_rows, source_places = np.unique(sources, return_inverse=True)
    target_rows, target_places = np.unique(targets, return_inverse=True)
    columns = np.stack([source_places, target_places + source_rows.size], axis=1).ravel()
    signs = np.tile(np.array([1.0, -1.0], np.float32), sources.size)
    difference = csr(np.arange(0, columns.size + 1, 2), columns, signs, source_rows.size + target_rows.size)
    rows = torch.from_numpy(source_rows.astype(np.int64)), torch.from_numpy(target_rows.astype(np.int64))
    return AlignedPairs(source, target, *rows, with_transpose(difference))


def _mapped(model: Edda, domain: int, vectors: Tensor) -> Tensor:
    return model.columns.total(linear(vectors, model.maps[domain]))


def _variances(vectors: Tensor) -> NDArray[np.float64]:
    """Variance of each column; none of an empty table."""
    array = vectors.cpu().numpy()
    with np.errstate(invalid="ignore", over="ignore"):  # tables that are no numbers are found by training's own check
        return np.var(array, axis=0, dtype=np.float64) if array.size else np.empty(0)


def _deviation(variances: Sequence[NDArray[np.float64]]) -> float:
    every = np.concatenate(variances)
    return float(np.sqrt(np.mean(every))) if every.size else 0.0
