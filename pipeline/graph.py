"""Node numbers of every domain, and its train interactions as a symmetric bipartite graph in CSR form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from data_contracts.contracts import GRAPH, ITEM, KINDS, NODES, TRAIN, USER
from data_contracts.progress import FinishedPart, Progress, silent
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import GraphSettings
from data_contracts.statistics import DomainNodesStatistics, GraphStatistics, KindCounts, NodesStatistics
from data_contracts.store.artifact import NO_ARTIFACTS, Artifact, Artifacts
from data_contracts.store.draft import Draft
from data_contracts.store.node_mapping import previous_node_numbers
from data_contracts.store.store import Store
from pipeline.compute.dtypes import Ints, Longs, Mask
from pipeline.compute.rows import ragged_arrays, ragged_tables

Values = TypeVar("Values", Ints, Mask)


def number_nodes(
    store: Store,
    settings: GraphSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,  # noqa: ARG001 - every stage has it
    progress: Progress = silent,
    previous: Artifacts = NO_ARTIFACTS,
) -> Artifact:
    """Number the users, then the items, of each domain in the order of their global numbers.

    An anchor is a user or item with train interactions in two or more domains, of one of `settings.anchor_kinds`.

    Args:
        store: where the artifact lives.
        settings: which kinds may be anchors.
        parents: `interactions`.
        compute: unused; numbering is two passes over the interactions, a file at a time.
        progress: called after each domain.
        previous: in an update the earlier `nodes`; the statistics count how many nodes of each domain are among them.

    Returns:
        A `nodes` artifact; a domain without interactions has no partition.
    """
    interactions = parents["interactions"]

    def write(draft: Draft) -> None:
        domains = [partition["domain"] for partition in interactions.partitions()]
        shared = _shared_entities(interactions, domains)
        statistics = NodesStatistics(domains={})
        for done, domain in enumerate(domains, start=1):
            table = _domain_nodes(interactions, domain, shared, settings.anchor_kinds)
            draft.write(table, domain=domain)
            counts = _count_kinds(table["kind"])
            anchors = pc.sum(table["is_anchor"]).as_py()
            statistics["domains"][domain] = DomainNodesStatistics(
                users=counts["users"], items=counts["items"], anchors=anchors
            )
            if NODES.name in previous:
                is_known = previous_node_numbers(previous[NODES.name], table, domain) >= 0
                statistics["domains"][domain]["known"] = _count_kinds(table["kind"].filter(pa.array(is_known)))
            progress(done, len(domains), "domains", FinishedPart(domain))
        draft.statistics |= statistics

    return store.make(NODES, settings.keyed(), parents, write)


def _count_kinds(kinds: pa.ChunkedArray) -> KindCounts:
    users, items = (pc.sum(pc.equal(kinds, kind)).as_py() or 0 for kind in KINDS)
    return KindCounts(users=users, items=items)


def _shared_entities(interactions: Artifact, domains: Sequence[str]) -> dict[str, Mask]:
    """By kind and entity: whether it has train rows in two or more domains."""
    counts = {kind: np.empty(0, np.int32) for kind in KINDS}
    for domain in domains:
        present = {kind: np.empty(0, dtype=bool) for kind in KINDS}
        for rows in interactions.batches([*KINDS, "split"], domain=domain):
            is_train = pc.equal(rows["split"], TRAIN).to_numpy()
            for kind in KINDS:
                entities = rows[kind].to_numpy()[is_train]
                present[kind] = _extended(present[kind], entities)
                present[kind][entities] = True
        for kind, is_present in present.items():
            counts[kind] = _extended(counts[kind], np.array([is_present.size - 1]))
            counts[kind][: is_present.size] += is_present
    return {kind: count >= 2 for kind, count in counts.items()}


def _domain_nodes(
    interactions: Artifact, domain: str, shared: Mapping[str, Mask], anchor_kinds: Sequence[str]
) -> pa.Table:
    seen = {kind: _SeenEntities() for kind in KINDS}
    columns = [*KINDS, *(f"{kind}_id" for kind in KINDS), "split"]
    for rows in interactions.batches(columns, domain=domain):
        is_train = pc.equal(rows["split"], TRAIN).to_numpy()
        for kind in KINDS:
            seen[kind].add(rows[kind].to_numpy(), rows[f"{kind}_id"], is_train)
    table = pa.concat_tables([seen[kind].table(kind, shared[kind], kind in anchor_kinds) for kind in KINDS])
    return table.append_column("node", pa.array(np.arange(table.num_rows, dtype=np.int32)))


class _SeenEntities:
    """Distinct entities of one kind in a domain, collected from its files of interactions one by one."""

    def __init__(self) -> None:
        self._degree = np.empty(0, np.int32)
        self._is_seen = np.empty(0, dtype=bool)
        self._entities: list[Ints] = [np.empty(0, np.int32)]
        self._ids: list[pa.ChunkedArray] = [pa.chunked_array([], pa.string())]

    def add(self, entities: Ints, ids: pa.ChunkedArray, is_train: Mask) -> None:
        """Add entities not seen before, with their ids, and count train rows, of which a pair has at most one."""
        self._degree, self._is_seen = _extended(self._degree, entities), _extended(self._is_seen, entities)
        self._degree += np.bincount(entities[is_train], minlength=self._degree.size).astype(np.int32)
        first = np.full(self._degree.size, -1, np.int64)
        first[entities[::-1]] = np.arange(entities.size)[::-1]  # of equal entities the last one assigned stays
        new = np.flatnonzero((first >= 0) & ~self._is_seen).astype(np.int32)
        self._is_seen[new] = True
        self._entities.append(new)
        self._ids.append(ids.take(pa.array(first[new])))

    def table(self, kind: str, is_shared: Mask, may_anchor: bool) -> pa.Table:
        """The columns of the contract except `node`, by entity."""
        entities = np.concatenate(self._entities)
        order = np.argsort(entities)
        entities = entities[order]
        degree = self._degree[entities]
        ids = pa.chunked_array([chunk for ids in self._ids for chunk in ids.chunks], pa.string())
        return pa.table(
            {
                "kind": pa.repeat(pa.scalar(kind), entities.size),
                "entity": pa.array(entities),
                "id": ids.take(pa.array(order)),
                "train_degree": pa.array(degree),
                "is_anchor": pa.array(_extended(is_shared, entities)[entities] & (degree > 0) & may_anchor),
            }
        )


def _extended(values: Values, entities: Ints) -> Values:
    """Values by entity, extended with zeros up to the largest of these entities."""
    extended: Values = np.pad(values, (0, max(int(entities.max(initial=-1)) + 1 - values.size, 0)))
    return extended


@dataclass(frozen=True)
class DomainNodes:
    """One domain's nodes as arrays, in node order, users first.

    Attributes:
        domain: its name.
        users: how many of the nodes are users.
        entity: int32 [nodes], the global number within the node's kind.
        is_anchor: bool [nodes].
    """

    domain: str
    users: int
    entity: Ints
    is_anchor: Mask

    def range_of_kind(self, kind: str) -> slice:
        """The node numbers of a kind."""
        return slice(0, self.users) if kind == USER else slice(self.users, self.entity.size)

    def anchors_of_kind(self, kind: str) -> Ints:
        """Anchor nodes of a kind, ascending."""
        nodes = self.range_of_kind(kind)
        anchors: Ints = np.flatnonzero(self.is_anchor[nodes]).astype(np.int32)
        return anchors + np.int32(nodes.start)


def read_nodes(nodes: Artifact, domain: str) -> DomainNodes:
    """The nodes of one domain."""
    table = nodes.read(["kind", "entity", "is_anchor"], domain=domain)
    users = pc.sum(pc.equal(table["kind"], USER)).as_py() or 0
    return DomainNodes(domain, users, table["entity"].to_numpy(), table["is_anchor"].to_numpy())


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
    indptr: Longs
    indices: Ints

    @classmethod
    def from_matrix(cls, domain: str, by_user: sp.csr_array) -> DomainGraph:
        """The graph of a matrix of users × items with an entry for each edge, distinct, ascending within a row."""
        users = by_user.shape[0]
        by_item = by_user.tocsc()
        indices = np.concatenate([by_user.indices + users, by_item.indices]).astype(np.int32)
        indptr = np.concatenate([by_user.indptr, by_item.indptr[1:] + np.int64(by_user.nnz)]).astype(np.int64)
        return cls(domain, users, indptr, indices)

    @property
    def nodes(self) -> int:
        """Number of users and items together."""
        return self.indptr.size - 1

    @property
    def degrees(self) -> Longs:
        """int64 [nodes], number of neighbours of each node."""
        return np.diff(self.indptr)


def build_edges(interactions: sp.csr_array | sp.csr_matrix) -> sp.csr_array:
    """int8 [users, items], a 1 for each entry that is not zero; the given matrix is not changed.

    Raises:
        ValueError: it has another number of dimensions, or NaN, which may mean that nothing is there.
    """
    if np.ndim(interactions) != 2:
        found = f"a {type(interactions).__name__} of {np.ndim(interactions)} dimensions"
        raise ValueError(f"interactions: {found}, must be a matrix of users × items")
    distinct = sp.csr_array(interactions, copy=True)
    if np.isnan(distinct.data).any():
        raise ValueError("interactions: NaN, must be 0 where there is no interaction; e.g. numpy.nan_to_num(matrix)")
    distinct.eliminate_zeros()
    distinct.sum_duplicates()
    return sp.csr_array((np.ones(distinct.nnz, np.int8), distinct.indices, distinct.indptr), shape=distinct.shape)


def build_graph(
    store: Store,
    settings: GraphSettings,  # noqa: ARG001 - every stage has them
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,  # noqa: ARG001 - every stage has it
    progress: Progress = silent,
) -> Artifact:
    """Build the graph of each domain, with an edge for each distinct train interaction of a user and an item.

    Args:
        store: where the artifact lives.
        settings: unused, and no part of the key.
        parents: `interactions` and `nodes`.
        compute: unused; building is one sort per domain.
        progress: called after each domain.

    Returns:
        A `graph` artifact with one row per node, isolated nodes included.
    """
    interactions, nodes = parents["interactions"], parents["nodes"]

    def write(draft: Draft) -> None:
        domains = [partition["domain"] for partition in nodes.partitions()]
        statistics = GraphStatistics(edges={})
        for done, domain in enumerate(domains, start=1):
            graph = _train_graph(interactions, read_nodes(nodes, domain))
            for table in ragged_tables(0, graph.indptr, {"neighbours": graph.indices}):
                draft.write(table, domain=domain)
            statistics["edges"][domain] = graph.indices.size // 2
            progress(done, len(domains), "domains", FinishedPart(domain))
        draft.statistics |= statistics

    return store.make(GRAPH, {}, parents, write)


def _train_graph(interactions: Artifact, nodes: DomainNodes) -> DomainGraph:
    """Train rows are distinct pairs, sorted by user, then item."""
    ends: dict[str, list[Ints]] = {USER: [], ITEM: []}
    numbers = {kind: _inverse_index(nodes.entity[nodes.range_of_kind(kind)]) for kind in ends}
    for rows in interactions.batches([USER, ITEM, "split"], domain=nodes.domain):
        train = rows.filter(pc.equal(rows["split"], TRAIN))
        for kind, blocks in ends.items():
            blocks.append(numbers[kind].take(train[kind].to_numpy()))
    users, items = (np.concatenate(blocks) for blocks in ends.values())
    shape = (nodes.users, nodes.entity.size - nodes.users)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=shape[0]))])
    by_user = sp.csr_array((np.ones(items.size, np.int8), items, indptr), shape=shape)
    return DomainGraph.from_matrix(nodes.domain, by_user)


def _inverse_index(entities: Ints) -> Ints:
    """int32 [largest entity + 1], the index of each entity among these; 0 for others."""
    index = np.zeros(int(entities.max(initial=-1)) + 1, np.int32)
    index[entities] = np.arange(entities.size, dtype=np.int32)
    return index


def read_graph(graph: Artifact, nodes: DomainNodes) -> DomainGraph:
    """The graph of one domain."""
    indptr, (indices,) = ragged_arrays(graph.read(["neighbours"], domain=nodes.domain), ["neighbours"])
    return DomainGraph(nodes.domain, nodes.users, indptr, indices)
