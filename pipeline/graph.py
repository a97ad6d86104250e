"""Graph: the train interactions of each domain as a symmetric bipartite graph in compressed rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import scipy.sparse as sp

from data_contracts.artifact import Artifact
from data_contracts.contracts import GRAPH, ITEM, TRAIN, USER
from data_contracts.progress import Part, Progress, silent
from data_contracts.settings import ComputeSettings
from data_contracts.store import Draft, Store
from pipeline.nodes import DomainNodes, read_nodes
from pipeline.ragged import ragged_arrays, ragged_tables


@dataclass(frozen=True)
class DomainGraph:
    """One domain's undirected train graph; users are nodes 0 … users - 1, items follow.

    Attributes:
        domain: its name.
        users: how many of the nodes are users.
        indptr: int64 [nodes + 1], where each node's neighbours start.
        indices: int32 [2 * edges], neighbours, ascending within a node.
    """

    domain: str
    users: int
    indptr: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int32]

    @classmethod
    def of(cls, domain: str, by_user: sp.csr_array) -> DomainGraph:
        """The graph of a matrix of users × items with an entry for each edge, distinct, ascending within a row."""
        users = by_user.shape[0]
        by_item = by_user.tocsc()
        indices = np.concatenate([by_user.indices + users, by_item.indices]).astype(np.int32)
        indptr = np.concatenate([by_user.indptr, by_item.indptr[1:] + np.int64(by_user.nnz)]).astype(np.int64)
        return cls(domain, users, indptr, indices)

    @property
    def nodes(self) -> int:
        """Users and items."""
        return self.indptr.size - 1

    @property
    def degrees(self) -> npt.NDArray[np.int64]:
        """int64 [nodes], neighbours of each node."""
        return np.diff(self.indptr)

    def transitions(self) -> sp.csr_array:
        """float32 [nodes, nodes], P = D^-1 A: row v holds the chances of one step from v; zero for isolated nodes."""
        chances = np.repeat(1.0 / np.maximum(self.degrees, 1), self.degrees).astype(np.float32)
        return sp.csr_array((chances, self.indices, self.indptr), shape=(self.nodes, self.nodes))


def edges_of(interactions: sp.csr_array | sp.csr_matrix) -> sp.csr_array:
    """A matrix of users × items with a 1 for each entry that is not zero; the given one is left as it is."""
    distinct = sp.csr_array(interactions, copy=True)
    distinct.eliminate_zeros()
    distinct.sum_duplicates()
    return sp.csr_array((np.ones(distinct.nnz, np.int8), distinct.indices, distinct.indptr), shape=distinct.shape)


def build_graph(
    store: Store,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,  # noqa: ARG001 - every stage has it
    progress: Progress = silent,
) -> Artifact:
    """Join each domain's users and items by their distinct train interactions.

    Args:
        store: where the artifact lives.
        parents: `interactions` and `nodes`.
        compute: unused; building is one sort per domain.
        progress: told after each domain.

    Returns:
        A `graph` artifact with one row per node, isolated nodes included.
    """
    interactions, nodes = parents["interactions"], parents["nodes"]

    def write(draft: Draft) -> None:
        domains = [partition["domain"] for partition in nodes.partitions()]
        edges = {}
        for done, domain in enumerate(domains, start=1):
            graph = _train_graph(interactions, read_nodes(nodes, domain))
            for table in ragged_tables(0, graph.indptr, {"neighbours": graph.indices}):
                draft.write(table, domain=domain)
            edges[domain] = graph.indices.size // 2
            progress(done, len(domains), "domains", Part(domain))
        draft.statistics["edges"] = edges

    return store.make(GRAPH, {}, parents, write)


def _train_graph(interactions: Artifact, nodes: DomainNodes) -> DomainGraph:
    """Train rows are distinct pairs, sorted by user, then item."""
    ends: dict[str, list[npt.NDArray[np.int32]]] = {USER: [], ITEM: []}
    places = {kind: _places(nodes.entity[nodes.of_kind(kind)]) for kind in ends}
    for rows in interactions.batches([USER, ITEM, "split"], domain=nodes.domain):
        train = rows.filter(pc.equal(rows["split"], TRAIN))
        for kind, parts in ends.items():
            parts.append(places[kind].take(train[kind].to_numpy()))
    users, items = (np.concatenate(parts) for parts in ends.values())
    shape = (nodes.users, nodes.entity.size - nodes.users)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=shape[0]))])
    by_user = sp.csr_array((np.ones(items.size, np.int8), items, indptr), shape=shape)
    return DomainGraph.of(nodes.domain, by_user)


def _places(entities: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Entity → its place among these."""
    places = np.zeros(int(entities.max(initial=-1)) + 1, np.int32)
    places[entities] = np.arange(entities.size, dtype=np.int32)
    return places


def read_graph(graph: Artifact, nodes: DomainNodes) -> DomainGraph:
    """The graph of one domain."""
    indptr, (indices,) = ragged_arrays(graph.read(["neighbours"], domain=nodes.domain), ["neighbours"])
    return DomainGraph(nodes.domain, nodes.users, indptr, indices)
