"""A domain's reach vectors in files, and their restriction to the anchors that two domains share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from data_contracts.contracts import KINDS
from data_contracts.store.artifact import Artifact
from pipeline.compute.array_folder import ArrayFolder, DiskArrays
from pipeline.compute.dtypes import Ints, Longs
from pipeline.compute.row_kernels import fill_unit_rows, unit_lengths
from pipeline.compute.rows import CsrRows, group_equal_rows, ragged_arrays
from pipeline.compute.scratch import ensure_folder
from pipeline.graph import DomainNodes, read_nodes


@dataclass(frozen=True)
class DomainVectors:
    """The nodes of a domain and their reach vectors.

    Attributes:
        nodes: of the domain.
        rows: distinct reach vectors as far as one file holds equal ones; columns are anchor nodes.
        row_of: int32 [nodes], each node's row.
    """

    nodes: DomainNodes
    rows: CsrRows
    row_of: Ints

    def unit_rows(self, anchors: Ints) -> sp.csr_array:
        """float32 [rows, anchors]: the vectors over the given anchors, each scaled to length 1; zero rows stay.

        Args:
            anchors: int32, nodes.
        """
        column_of = np.full(self.nodes.entity.size, -1, np.int32)
        column_of[anchors] = np.arange(anchors.size, dtype=np.int32)
        lengths, norms = np.empty(self.rows.size, np.int64), np.empty(self.rows.size, np.float64)
        unit_lengths(*self.rows, column_of, lengths, norms)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        unit = CsrRows(indptr, np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32))
        fill_unit_rows(tuple(self.rows), column_of, norms, *unit)
        matrix = unit.to_scipy(anchors.size)
        matrix.sort_indices()
        return matrix


def store_vectors(nodes: Artifact, reach: Artifact, domain: str, folder: DiskArrays) -> None:
    """Copy a domain's vectors from the artifacts to a folder, a file at a time, unless an earlier attempt did."""

    def blocks() -> Iterator[sp.csr_array]:
        for table in reach.batches(["anchors", "weights"], domain=domain):
            indptr, (anchors, weights) = ragged_arrays(table, ["anchors", "weights"])
            yield CsrRows(indptr, anchors, weights).to_scipy(domain_nodes.entity.size)

    domain_nodes = read_nodes(nodes, domain)
    ensure_folder(folder.path, lambda unfinished: write_vectors(DiskArrays(unfinished), domain_nodes, blocks()))


def write_vectors(folder: ArrayFolder, nodes: DomainNodes, vectors: Iterable[sp.csr_array]) -> None:
    """Write a domain's vectors, float32 [n, nodes] for each block of consecutive nodes; equal ones of a block once."""
    row_of = [np.empty(0, np.int64)]

    def distinct_rows() -> Iterator[CsrRows]:
        rows = 0
        for block in vectors:
            representatives, group_of = group_equal_rows(block)
            row_of.append(group_of + rows)
            rows += representatives.size
            yield CsrRows.from_scipy(block[representatives])

    (folder / "rows").write_rows(distinct_rows())
    (folder / "nodes").write_arrays(
        users=np.array([nodes.users]),
        entity=nodes.entity,
        is_anchor=nodes.is_anchor,
        row_of=np.concatenate(row_of).astype(np.int32),
    )


def open_vectors(domain: str, folder: ArrayFolder) -> DomainVectors:
    """The vectors that `write_vectors` wrote; those on disk are mapped."""
    arrays = (folder / "nodes").arrays()
    nodes = DomainNodes(domain, int(arrays["users"][0]), arrays["entity"], arrays["is_anchor"])
    return DomainVectors(nodes, (folder / "rows").rows(), arrays["row_of"])


def shared_anchors(source: DomainNodes, target: DomainNodes) -> tuple[Ints, Ints]:
    """The nodes in both domains of the anchors that they share, aligned by position, users before items."""
    shared: tuple[list[Ints], list[Ints]] = ([], [])
    for kind in KINDS:
        anchors = [nodes.anchors_of_kind(kind) for nodes in (source, target)]
        entities = source.entity[anchors[0]], target.entity[anchors[1]]
        _, *positions = np.intersect1d(*entities, assume_unique=True, return_indices=True)
        for blocks, candidates, indices in zip(shared, anchors, positions, strict=True):
            blocks.append(candidates[indices])
    return np.concatenate(shared[0]), np.concatenate(shared[1])


@dataclass(frozen=True)
class DistinctRows:
    """Nodes grouped by equal vectors, so that each vector is joined once.

    Attributes:
        rows: float32 [groups, columns], the non-zero distinct vectors, in the order of their first node.
        group_of: int32 [nodes], each node's group; -1 for zero vectors.
    """

    rows: sp.csr_array
    group_of: Ints

    @classmethod
    def build(cls, rows: sp.csr_array, row_of: npt.NDArray[np.integer]) -> DistinctRows:
        """Group nodes by equal vectors.

        Args:
            rows: float32 [n, columns], indices sorted.
            row_of: int [nodes], each node's row.
        """
        used, first = np.unique(row_of, return_index=True)
        ordered = used[np.argsort(first)]
        filled = ordered[np.diff(rows.indptr)[ordered] > 0]
        representatives, group_of_filled = group_equal_rows(rows[filled])
        group_of_row = np.full(rows.shape[0], -1, np.int32)
        group_of_row[filled] = group_of_filled
        return cls(rows[filled[representatives]], group_of_row[row_of])


def rows_by_group(group_of: Ints, groups: int) -> tuple[Longs, Ints]:
    """(indptr, nodes): the nodes of each group, ascending."""
    grouped = np.flatnonzero(group_of >= 0).astype(np.int32)
    sizes = np.bincount(group_of[grouped], minlength=groups)
    by_group = grouped[np.argsort(group_of[grouped], kind="stable")]
    return np.concatenate([[0], np.cumsum(sizes)]), by_group
