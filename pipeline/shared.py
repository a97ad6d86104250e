"""Shared: the users and items of two matrices that are the same, by position or by id."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from data_contracts.contracts import KINDS
from pipeline.nodes import DomainNodes, IntArray, Mask

Places = tuple[npt.ArrayLike, npt.ArrayLike]
"""Positions in a source and in a target, of one length: those at one place are the same user or item."""

NOTHING: Places = ((), ())


def shared_places(source_ids: npt.ArrayLike, target_ids: npt.ArrayLike) -> Places:
    """Where equal ids are.

    Args:
        source_ids: [n], ids of the rows (or columns) of one matrix, of any type that can be sorted.
        target_ids: [m], of the other.

    Returns:
        int64 positions in each, aligned; both empty where no id is in both.

    Raises:
        ValueError: an id stands twice in one of them.
    """
    ids = np.asarray(source_ids), np.asarray(target_ids)
    for name, of_side in zip(("source_ids", "target_ids"), ids, strict=True):
        found, counts = np.unique(of_side, return_counts=True)
        for repeated in found[counts > 1][:1]:
            raise ValueError(f"{name}: {str(repeated)!r} stands there twice, ids must be distinct; merge its rows")
    _, *places = np.intersect1d(*ids, assume_unique=True, return_indices=True)
    return places[0], places[1]


def numbered_alike(matrices: tuple[sp.csr_array, sp.csr_array], users: Places, items: Places) -> list[DomainNodes]:
    """Two matrices' nodes, numbered so that what is shared has one number; it is an anchor with edges in both.

    Args:
        matrices: [users, items] each, an entry for each edge.
        users: shared rows.
        items: shared columns.

    Raises:
        ValueError: positions of unequal number, outside their matrix, or repeated.
    """
    parts = []
    for axis, (kind, places) in enumerate(zip(KINDS, (users, items), strict=True)):
        degrees = tuple(np.asarray(matrix.sum(axis=1 - axis, dtype=np.int64)) for matrix in matrices)
        positions = _checked(f"shared_{kind}s", places, (degrees[0].size, degrees[1].size))
        parts.append(_of_kind(degrees, positions))
    return [
        DomainNodes(name, matrices[side].shape[0], *(np.concatenate([part[side][i] for part in parts]) for i in (0, 1)))
        for side, name in enumerate(("source", "target"))
    ]


def _of_kind(degrees: tuple[npt.NDArray[np.int64], ...], places: list[IntArray]) -> list[tuple[IntArray, Mask]]:
    """Numbers and anchors of each side."""
    entities = [np.arange(of_side.size, dtype=np.int32) for of_side in degrees]
    entities[1] += np.int32(degrees[0].size)
    entities[1][places[1]] = places[0]
    lives = np.logical_and(*(of_side[where] > 0 for of_side, where in zip(degrees, places, strict=True)))
    return [(own, np.isin(np.arange(own.size), where[lives])) for own, where in zip(entities, places, strict=True)]


def _checked(name: str, places: Places, sizes: tuple[int, int]) -> list[IntArray]:
    positions: list[npt.NDArray[Any]] = [np.asarray(part) for part in places]
    if positions[0].shape != positions[1].shape:
        raise ValueError(f"{name}: {positions[0].size} and {positions[1].size} positions, must be as many of each side")
    for side, part, size in zip(("source", "target"), positions, sizes, strict=True):
        for wrong in part[(part < 0) | (part >= size)][:1]:
            raise ValueError(f"{name}: {wrong} of the {side}, must be ≥ 0 and < {size}, the matrix's size")
        if np.unique(part).size < part.size:
            raise ValueError(f"{name}: a position of the {side} stands there twice, each must stand there once")
    return [part.astype(np.int32) for part in positions]
