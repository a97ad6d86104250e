"""Sides: a domain's reach vectors in files, and the part of two domains' vectors that lies on anchors they share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from data_contracts.contracts import KINDS
from data_contracts.store.artifact import Artifact
from pipeline.compute.row_kernels import unit_lengths, unit_parts
from pipeline.compute.rows import Rows, compressed, distinct_rows, ragged_arrays, scipy_rows, spill_rows, spilled_rows
from pipeline.compute.scratch import Folder, Memory, made, spill_arrays, spilled_arrays
from pipeline.graph import DomainNodes, IntArray, read_nodes


@dataclass(frozen=True)
class Side:
    """One domain of a pair.

    Attributes:
        nodes: its nodes.
        rows: its reach vectors; columns are anchor nodes. Equal ones are kept once as far as one file holds them.
        row_of: int32 [nodes], each node's vector among them.
    """

    nodes: DomainNodes
    rows: Rows
    row_of: IntArray

    def unit_rows(self, anchors: IntArray) -> sp.csr_array:
        """float32 [rows, anchors]: the vectors over the given anchors, each scaled to length 1; zero rows stay.

        Args:
            anchors: int32, nodes.
        """
        column_of = np.full(self.nodes.entity.size, -1, np.int32)
        column_of[anchors] = np.arange(anchors.size, dtype=np.int32)
        size = self.rows.indptr.size - 1
        lengths, norms = np.empty(size, np.int64), np.empty(size, np.float64)
        unit_lengths(*self.rows, column_of, lengths, norms)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        unit = Rows(indptr, np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32))
        unit_parts(tuple(self.rows), column_of, norms, *unit)
        rows = scipy_rows(unit, anchors.size)
        rows.sort_indices()
        return rows


def spill_side(nodes: Artifact, reach: Artifact, domain: str, folder: Path) -> None:
    """Keep a domain's vectors in files, one file of the artifact at a time; what an earlier attempt kept stays."""

    def parts() -> Iterator[sp.csr_array]:
        for table in reach.batches(["anchors", "weights"], domain=domain):
            indptr, (anchors, weights) = ragged_arrays(table, ["anchors", "weights"])
            yield scipy_rows(Rows(indptr, anchors, weights), numbered.entity.size)

    numbered = read_nodes(nodes, domain)
    made(folder, lambda unfinished: keep_side(unfinished, numbered, parts()))


def keep_side(folder: Folder, nodes: DomainNodes, vectors: Iterable[sp.csr_array]) -> None:
    """Keep a domain's vectors, which come in parts, float32 [part of nodes, nodes]; equal ones of a part once."""
    row_of = [np.empty(0, np.int64)]

    def distinct() -> Iterator[Rows]:
        rows = 0
        for part in vectors:
            representatives, place = distinct_rows(part)
            row_of.append(place + rows)
            rows += representatives.size
            yield compressed(part[representatives])

    spill_rows(folder / "rows", distinct())
    spill_arrays(
        folder / "nodes",
        users=np.array([nodes.users]),
        entity=nodes.entity,
        is_anchor=nodes.is_anchor,
        row_of=np.concatenate(row_of).astype(np.int32),
    )


def spilled_side(domain: str, folder: Folder) -> Side:
    """The side that `keep_side` kept."""
    arrays = spilled_arrays(folder / "nodes")
    nodes = DomainNodes(domain, int(arrays["users"][0]), arrays["entity"], arrays["is_anchor"])
    return Side(nodes, spilled_rows(folder / "rows"), arrays["row_of"])


def side_at_hand(folder: Folder) -> Memory:
    """What `keep_side` kept, found once for many joins."""
    memory = Memory()
    (memory / "rows").arrays = spilled_rows(folder / "rows")._asdict()
    (memory / "nodes").arrays = spilled_arrays(folder / "nodes")
    return memory


def shared_anchors(source: DomainNodes, target: DomainNodes) -> tuple[IntArray, IntArray]:
    """Nodes in both domains of the anchors that live in both, aligned by position, users before items."""
    found: tuple[list[IntArray], list[IntArray]] = ([], [])
    for kind in KINDS:
        anchors = [side.anchors_of_kind(kind) for side in (source, target)]
        entities = source.entity[anchors[0]], target.entity[anchors[1]]
        _, *positions = np.intersect1d(*entities, assume_unique=True, return_indices=True)
        for nodes, candidates, where in zip(found, anchors, positions, strict=True):
            nodes.append(candidates[where])
    return np.concatenate(found[0]), np.concatenate(found[1])


@dataclass(frozen=True)
class Groups:
    """Nodes by their vector: equal vectors are joined once.

    Attributes:
        rows: float32 [groups, columns] the non-zero distinct vectors, in the order of their first node.
        group_of: int32 [nodes], each node's group; -1 for zero vectors.
    """

    rows: sp.csr_array
    group_of: IntArray

    @classmethod
    def of(cls, rows: sp.csr_array, row_of: npt.NDArray[np.integer]) -> Groups:
        """Group nodes by equal vectors.

        Args:
            rows: float32 [n, columns], indices sorted.
            row_of: int [nodes], each node's row.
        """
        used, first = np.unique(row_of, return_index=True)
        ordered = used[np.argsort(first)]
        filled = ordered[np.diff(rows.indptr)[ordered] > 0]
        representatives, place = distinct_rows(rows[filled])
        group_of_row = np.full(rows.shape[0], -1, np.int32)
        group_of_row[filled] = place
        return cls(rows[filled[representatives]], group_of_row[row_of])


def members(group_of: IntArray, groups: int) -> tuple[npt.NDArray[np.int64], IntArray]:
    """(indptr, nodes) of groups of nodes, nodes ascending."""
    grouped = np.flatnonzero(group_of >= 0).astype(np.int32)
    sizes = np.bincount(group_of[grouped], minlength=groups)
    by_group = grouped[np.argsort(group_of[grouped], kind="stable")]
    return np.concatenate([[0], np.cumsum(sizes)]), by_group
