"""Warm start: tables begin as those of an earlier training on other nodes, matched by the logs' user and item ids."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from scipy import sparse
from torch import Tensor

from data_contracts.contracts import CHECKPOINT, GRAPH, INTERACTIONS, NODES, SPLITS, TRAIN
from data_contracts.roles import Role
from data_contracts.statistics import InitialRowCounts, WarmStartStatistics
from data_contracts.store.artifact import Artifact
from data_contracts.store.node_mapping import previous_node_numbers
from model.compute.mapped_tensors import check_tensors
from model.data.dataset import DomainData, Interactions, MultiDomainData, load_dataset, load_interactions
from model.edda.model import TENSORS_FILE, Edda
from model.sparse.rows import Ints


@dataclass(frozen=True)
class RowInitialiser:
    """Initial rows of one table: copied from the earlier one, averaged from neighbours, or drawn.

    Attributes:
        earlier_rows: int32 (rows), each row's number in the earlier table, -1 for new ones.
        neighbours: float32 (rows, rows), for new rows the copied ones that they share a train interaction with; each
            row's weights sum up to 1.
    """

    earlier_rows: Ints
    neighbours: sparse.csr_array

    @classmethod
    def build(cls, earlier_rows: Ints, domains: Sequence[DomainData], table_rows: Sequence[Ints]) -> RowInitialiser:
        """Find the neighbours of new rows.

        Args:
            earlier_rows: as the attribute.
            domains: whose graphs the table's nodes are joined by.
            table_rows: the table's row of each node, by domain.
        """
        is_copied, edges = earlier_rows >= 0, [np.empty(0, np.int64)]
        for domain, rows in zip(domains, table_rows, strict=True):
            owners, neighbours = np.repeat(rows, np.diff(domain.indptr)), rows[domain.indices]
            wanted = ~is_copied[owners] & is_copied[neighbours]
            edges.append(owners[wanted].astype(np.int64) * earlier_rows.size + neighbours[wanted])
        owners, neighbours = np.divmod(np.unique(np.concatenate(edges)), max(earlier_rows.size, 1))
        weights = (1.0 / np.bincount(owners, minlength=earlier_rows.size)[owners]).astype(np.float32)
        matrix = sparse.csr_array((weights, (owners, neighbours)), shape=(earlier_rows.size,) * 2)
        return cls(earlier_rows, matrix)

    def initialise(self, table: Tensor, earlier: Tensor) -> None:
        """Overwrite the copied and the averaged rows of a table on the CPU."""
        copied, averaged = np.flatnonzero(self.earlier_rows >= 0), np.flatnonzero(np.diff(self.neighbours.indptr))
        table[torch.from_numpy(copied)] = earlier[torch.from_numpy(self.earlier_rows[copied]).long()]
        table[torch.from_numpy(averaged)] = torch.from_numpy(self.neighbours[averaged] @ table.numpy())

    def counts(self) -> InitialRowCounts:
        """Number of rows by how they begin."""
        copied = int(np.count_nonzero(self.earlier_rows >= 0))
        averaged = int(np.count_nonzero(np.diff(self.neighbours.indptr)))
        drawn = self.earlier_rows.size - copied - averaged
        return {"kept": copied, "from_neighbours": averaged, "as_usual": drawn}


@dataclass(frozen=True)
class WarmStart:
    """The earlier training that a training starts from.

    Attributes:
        checkpoint: the earlier one.
        tables: by name as in `Edda.tensors`, those of the earlier training.
        held_out_rows_seen: held-out rows that the earlier training trained on, which flatters their scores.
    """

    checkpoint: Artifact
    tables: Mapping[str, RowInitialiser]
    held_out_rows_seen: int

    def initialise(self, model: Edda) -> None:
        """Set this process's columns of tables and maps of a model on the CPU; new tensors stay as they were drawn.

        Raises:
            ValueError: the earlier tables have another width.
        """
        inter_width, intra_width = model.shape.widths
        with safe_open(check_tensors(self.checkpoint, TENSORS_FILE), "pt") as file:
            names = set(file.keys())
            for name, tensor in model.tensors().items():
                if name not in names:
                    continue
                earlier = file.get_slice(name)
                width, earlier_width = inter_width if name == "inter" else intra_width, earlier.get_shape()[1]
                if earlier_width != width:
                    raise ValueError(
                        f"checkpoint {self.checkpoint.key}: width of {name} is {earlier_width}, must be {width} to go "
                        "on from it"
                    )
                own_columns: Tensor = earlier[:, model.processes.own_columns(width)]
                if name in self.tables:
                    self.tables[name].initialise(tensor, own_columns)
                else:
                    tensor.copy_(own_columns)

    def statistics(self, names: Collection[str]) -> WarmStartStatistics:
        """Statistics for the manifest.

        Args:
            names: of the tables that the model has now.
        """
        tables = {name: initialiser.counts() for name, initialiser in self.tables.items() if name in names}
        return {"from": self.checkpoint.key, "tables": tables, "held_out_rows_seen": self.held_out_rows_seen}


def build_warm_start(
    parents: Mapping[str, Artifact], seed: int, dataset: MultiDomainData, interactions: Sequence[Interactions]
) -> WarmStart | None:
    """The warm start from the earlier checkpoint of a seed among the parents; None if there is none.

    Args:
        parents: of the training.
        seed: of the training.
        dataset: to be trained on.
        interactions: by domain.
    """
    checkpoint = parents.get(str(Role(CHECKPOINT, seed).previous))
    if checkpoint is None:
        return None
    nodes, graph, earlier_interactions = (
        parents[str(Role(contract).previous)] for contract in (NODES, GRAPH, INTERACTIONS)
    )
    earlier = load_dataset(nodes, graph)
    earlier_domains = {domain.name: domain for domain in earlier.domains}
    earlier_nodes, union_rows = _match_nodes(nodes, parents[NODES.name], earlier_domains, dataset)
    tables = {
        "inter": RowInitialiser.build(union_rows, dataset.domains, [domain.union_nodes for domain in dataset.domains])
    }
    seen = 0
    for domain, of_domain in zip(dataset.domains, interactions, strict=True):
        if domain.name in earlier_domains:
            rows = np.arange(domain.nodes, dtype=np.int32)
            tables[f"intra/{domain.name}"] = RowInitialiser.build(earlier_nodes[domain.name], [domain], [rows])
            trained = load_interactions(earlier_interactions, earlier_domains[domain.name], earlier).for_split(TRAIN)
            users = union_rows[of_domain.union_users]
            items = union_rows[dataset.users + of_domain.union_items] - earlier.users
            is_held_out = of_domain.split != SPLITS.index(TRAIN)
            seen += int(np.count_nonzero(is_held_out & _are_among(trained, users, items)))
    return WarmStart(checkpoint, tables, seen)


def _match_nodes(
    earlier_nodes: Artifact, nodes: Artifact, earlier_domains: Mapping[str, DomainData], dataset: MultiDomainData
) -> tuple[dict[str, Ints], Ints]:
    """The earlier number of each node, -1 for new ones: by domain, and among the nodes of all domains."""
    by_domain: dict[str, Ints] = {}
    union = np.full(dataset.nodes, -1, np.int32)
    for domain in dataset.domains:
        ids = nodes.read(["kind", "id"], domain=domain.name)
        numbers = by_domain[domain.name] = previous_node_numbers(earlier_nodes, ids, domain.name)
        known = np.flatnonzero(numbers >= 0)
        if domain.name in earlier_domains:
            union[domain.union_nodes[known]] = earlier_domains[domain.name].union_nodes[numbers[known]]
    return by_domain, union


def _are_among(trained: Interactions, users: Ints, items: Ints) -> NDArray[np.bool_]:
    """Whether pairs of earlier numbers over all domains are among interactions; negative numbers are not."""
    known, wanted = (
        (pair_users.astype(np.int64) << 32) + pair_items
        for pair_users, pair_items in ((trained.union_users, trained.union_items), (users, items))
    )
    return (users >= 0) & (items >= 0) & np.isin(wanted, known)
