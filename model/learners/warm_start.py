"""Warm start: tables begin as those of an earlier training on other nodes, users and items told by the logs' ids."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from scipy import sparse
from torch import Tensor

from data_contracts.contracts import BEFORE, CHECKPOINT, GRAPH, INTERACTIONS, NODES, SPLITS, TRAIN
from data_contracts.node_mapping import previous_node_numbers
from data_contracts.store.artifact import Artifact
from model.data.dataset import Domain, Rows, World, load_rows, load_world
from model.edda.model import MODEL, Edda
from model.sparse.rows import Ints


@dataclass(frozen=True)
class RowsStart:
    """How the rows of one table begin; those neither kept nor near begin as without a warm start.

    Attributes:
        places: int32 [rows], the row of the earlier table that each one was, -1 for new ones.
        near: float32 [rows, rows], of new rows the kept ones that they are joined to by a train interaction, each row's
            weights summing up to 1.
    """

    places: Ints
    near: sparse.csr_array

    @classmethod
    def of(cls, places: Ints, domains: Sequence[Domain], numbers: Sequence[Ints]) -> RowsStart:
        """Find the neighbours of new rows.

        Args:
            places: as the attribute.
            domains: whose graphs say who is joined.
            numbers: the table's row of each node, by domain.
        """
        is_kept, edges = places >= 0, [np.empty(0, np.int64)]
        for domain, rows in zip(domains, numbers, strict=True):
            owners, neighbours = np.repeat(rows, np.diff(domain.indptr)), rows[domain.indices]
            wanted = ~is_kept[owners] & is_kept[neighbours]
            edges.append(owners[wanted].astype(np.int64) * places.size + neighbours[wanted])
        owners, neighbours = np.divmod(np.unique(np.concatenate(edges)), max(places.size, 1))
        weights = (1.0 / np.bincount(owners, minlength=places.size)[owners]).astype(np.float32)
        return cls(places, sparse.csr_array((weights, (owners, neighbours)), shape=(places.size,) * 2))

    def fill(self, table: Tensor, earlier: Tensor) -> None:
        """Put the rows in place, in a table on the CPU."""
        kept, near = np.flatnonzero(self.places >= 0), np.flatnonzero(np.diff(self.near.indptr))
        table[torch.from_numpy(kept)] = earlier[torch.from_numpy(self.places[kept]).long()]
        table[torch.from_numpy(near)] = torch.from_numpy(self.near[near] @ table.numpy())

    def counts(self) -> dict[str, int]:
        """Rows by how they begin."""
        kept, near = (int(np.count_nonzero(of)) for of in (self.places >= 0, np.diff(self.near.indptr)))
        return {"kept": kept, "from_neighbours": near, "as_usual": self.places.size - kept - near}


@dataclass(frozen=True)
class WarmStart:
    """What a training goes on from.

    Attributes:
        checkpoint: the earlier one.
        tables: by name, as in `Edda.tensors`, those that there were.
        seen: held-out rows that the earlier training learned from, so that their scores are no honest ones.
    """

    checkpoint: Artifact
    tables: Mapping[str, RowsStart]
    seen: int

    def fill(self, model: Edda) -> None:
        """Set tables and maps, the columns of this process, of a model on the CPU; what is new begins as it did.

        Raises:
            ValueError: the earlier tables have another width.
        """
        with safe_open(self.checkpoint.path / MODEL, "pt") as earlier:
            there = set(earlier.keys())
            for name, tensor in model.tensors().items():
                if name not in there:
                    continue
                own = self._own(earlier.get_slice(name), name, model)
                if name in self.tables:
                    self.tables[name].fill(tensor, own)
                else:
                    tensor.copy_(own)

    def _own(self, rows: Any, name: str, model: Edda) -> Tensor:
        """Of an earlier tensor this process's columns, read alone."""
        inter_width, intra_width = model.shape.widths
        width, found = inter_width if name == "inter" else intra_width, rows.get_shape()[1]
        if found != width:
            raise ValueError(
                f"checkpoint {self.checkpoint.key}: width of {name} is {found}, must be {width} to go on from it"
            )
        own: Tensor = rows[:, model.columns.own(width)]
        return own

    def statistics(self, kept: Collection[str]) -> dict[str, object]:
        """What a manifest says of it.

        Args:
            kept: names of the tables that the model has now.
        """
        tables = {name: start.counts() for name, start in self.tables.items() if name in kept}
        return {"from": self.checkpoint.key, "tables": tables, "held_out_rows_seen": self.seen}


def warm_start(parents: Mapping[str, Artifact], seed: int, world: World, rows: Sequence[Rows]) -> WarmStart | None:
    """What the parents offer to go on from; None without an earlier checkpoint of the seed among them.

    Args:
        parents: of the training.
        seed: of the training.
        world: to be trained on.
        rows: its interactions, by domain.
    """
    checkpoint = parents.get(f"{CHECKPOINT.name}-{seed}-{BEFORE}")
    if checkpoint is None:
        return None
    nodes, graph, interactions = (parents[f"{of.name}-{BEFORE}"] for of in (NODES, GRAPH, INTERACTIONS))
    earlier = load_world(nodes, graph)
    known = {domain.name: domain for domain in earlier.domains}
    named = {domain.name: parents[NODES.name].read(["kind", "id"], domain=domain.name) for domain in world.domains}
    places = {name: previous_node_numbers(nodes, table, name) for name, table in named.items()}
    union = np.full(world.nodes, -1, np.int32)
    for domain in world.domains:
        kept = np.flatnonzero(places[domain.name] >= 0)
        if domain.name in known:
            union[domain.union[kept]] = known[domain.name].union[places[domain.name][kept]]
    tables = {"inter": RowsStart.of(union, world.domains, [domain.union for domain in world.domains])}
    seen = 0
    for domain, of_domain in zip(world.domains, rows, strict=True):
        if domain.name in known:
            own = np.arange(domain.nodes, dtype=np.int32)
            tables[f"intra/{domain.name}"] = RowsStart.of(places[domain.name], [domain], [own])
            learned = load_rows(interactions, known[domain.name], earlier).of(TRAIN)
            users, items = union[of_domain.union_users], union[world.users + of_domain.union_items] - earlier.users
            seen += int(np.count_nonzero((of_domain.split != SPLITS.index(TRAIN)) & _among(learned, users, items)))
    return WarmStart(checkpoint, tables, seen)


def _among(learned: Rows, users: Ints, items: Ints) -> NDArray[np.bool_]:
    """Whether pairs of earlier numbers were learned from; negative numbers are nobody's."""
    known, wanted = (
        (of[0].astype(np.int64) << 32) + of[1] for of in ((learned.union_users, learned.union_items), (users, items))
    )
    return (users >= 0) & (items >= 0) & np.isin(wanted, known)
