"""Nodes: numbering every domain's users and items, and marking the anchors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.artifact import Artifact
from data_contracts.contracts import ITEM, KINDS, NODES, TRAIN, USER
from data_contracts.progress import Progress, silent
from data_contracts.settings import ComputeSettings, GraphSettings
from data_contracts.store import Draft, Store

IntArray = npt.NDArray[np.int32]


def number_nodes(
    store: Store,
    settings: GraphSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,  # noqa: ARG001 - every stage has it
    progress: Progress = silent,
) -> Artifact:
    """Number the users, then the items, of each domain in the order of their global numbers.

    An anchor is a user or item with train interactions in two or more domains, of one of `settings.anchor_kinds`.

    Args:
        store: where the artifact lives.
        settings: which kinds may be anchors.
        parents: `interactions`.
        compute: unused; numbering is one pass over the interactions.
        progress: told after each domain.

    Returns:
        A `nodes` artifact; a domain without interactions has no partition.
    """
    interactions = parents["interactions"]

    def write(draft: Draft) -> None:
        domains = [partition["domain"] for partition in interactions.partitions()]
        shared = {kind: _shared_entities(interactions, domains, kind) for kind in KINDS}
        counts = {}
        for done, domain in enumerate(domains, start=1):
            table = _domain_nodes(interactions, domain, shared, settings.anchor_kinds)
            draft.write(table, domain=domain)
            counts[domain] = {
                "users": pc.sum(pc.equal(table["kind"], USER)).as_py(),
                "items": pc.sum(pc.equal(table["kind"], ITEM)).as_py(),
                "anchors": pc.sum(table["is_anchor"]).as_py(),
            }
            progress(done, len(domains), "domains")
        draft.statistics["domains"] = counts

    return store.make(NODES, settings.keyed(), parents, write)


def _shared_entities(interactions: Artifact, domains: Sequence[str], kind: str) -> IntArray:
    """Entities of a kind with train rows in two or more domains, ascending."""
    present = [np.unique(_train(interactions, domain, kind)) for domain in domains]
    entities, counts = np.unique(np.concatenate([np.empty(0, np.int32), *present]), return_counts=True)
    return entities[counts >= 2]


def _train(interactions: Artifact, domain: str, kind: str) -> IntArray:
    table = interactions.read([kind, "split"], domain=domain)
    return _array(table.filter(pc.equal(table["split"], TRAIN))[kind])


def _domain_nodes(
    interactions: Artifact, domain: str, shared: Mapping[str, IntArray], anchor_kinds: Sequence[str]
) -> pa.Table:
    rows = interactions.read(["user", "item", "user_id", "item_id", "split"], domain=domain)
    edges = rows.filter(pc.equal(rows["split"], TRAIN)).group_by(["user", "item"]).aggregate([])
    parts = [_kind_nodes(rows, edges, kind, shared[kind], kind in anchor_kinds) for kind in KINDS]
    table = pa.concat_tables(parts)
    return table.append_column("node", pa.array(np.arange(table.num_rows, dtype=np.int32)))


def _kind_nodes(rows: pa.Table, edges: pa.Table, kind: str, shared: IntArray, may_anchor: bool) -> pa.Table:
    entities, first = np.unique(_array(rows[kind]), return_index=True)
    degrees = np.zeros(entities.size, np.int32)
    linked, counts = np.unique(_array(edges[kind]), return_counts=True)
    degrees[np.searchsorted(entities, linked)] = counts
    is_anchor = np.isin(entities, shared) & (degrees > 0) & may_anchor
    return pa.table(
        {
            "kind": pa.array([kind] * entities.size, pa.string()),
            "entity": pa.array(entities, pa.int32()),
            "id": rows[f"{kind}_id"].take(pa.array(first)),
            "train_degree": pa.array(degrees),
            "is_anchor": pa.array(is_anchor),
        }
    )


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
    entity: IntArray
    is_anchor: npt.NDArray[np.bool_]

    def of_kind(self, kind: str) -> slice:
        """Range of node numbers of a kind."""
        return slice(0, self.users) if kind == USER else slice(self.users, self.entity.size)

    def anchors_of_kind(self, kind: str) -> IntArray:
        """Anchor nodes of a kind, ascending."""
        nodes = self.of_kind(kind)
        positions: IntArray = np.flatnonzero(self.is_anchor[nodes]).astype(np.int32)
        return positions + np.int32(nodes.start)


def read_nodes(nodes: Artifact, domain: str) -> DomainNodes:
    """The nodes of one domain."""
    table = nodes.read(["kind", "entity", "is_anchor"], domain=domain)
    users = pc.sum(pc.equal(table["kind"], USER)).as_py() or 0
    return DomainNodes(domain, users, _array(table["entity"]), _array(table["is_anchor"]))


def _array(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    return np.asarray(column.combine_chunks().to_numpy(zero_copy_only=False))
