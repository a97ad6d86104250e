"""Nodes: numbering every domain's users and items, and marking the anchors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.artifact import Artifact
from data_contracts.contracts import KINDS, NODES, TRAIN, USER
from data_contracts.places import earlier_places
from data_contracts.progress import Part, Progress, silent
from data_contracts.settings import ComputeSettings, GraphSettings
from data_contracts.store import Draft, Store

IntArray = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
Values = TypeVar("Values", IntArray, Mask)


def number_nodes(
    store: Store,
    settings: GraphSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,  # noqa: ARG001 - every stage has it
    progress: Progress = silent,
    before: Artifact | None = None,
) -> Artifact:
    """Number the users, then the items, of each domain in the order of their global numbers.

    An anchor is a user or item with train interactions in two or more domains, of one of `settings.anchor_kinds`.

    Args:
        store: where the artifact lives.
        settings: which kinds may be anchors.
        parents: `interactions`.
        compute: unused; numbering is two passes over the interactions, a file at a time.
        progress: told after each domain.
        before: the nodes that the interactions were numbered after; the statistics count whom of each domain they know.

    Returns:
        A `nodes` artifact; a domain without interactions has no partition.
    """
    interactions = parents["interactions"]

    def write(draft: Draft) -> None:
        domains = [partition["domain"] for partition in interactions.partitions()]
        shared = _shared_entities(interactions, domains)
        counts = {}
        for done, domain in enumerate(domains, start=1):
            table = _domain_nodes(interactions, domain, shared, settings.anchor_kinds)
            draft.write(table, domain=domain)
            counts[domain] = {**_of_kinds(table["kind"]), "anchors": pc.sum(table["is_anchor"]).as_py()}
            if before:
                is_known = earlier_places(before, table, domain) >= 0
                counts[domain]["known"] = _of_kinds(table["kind"].filter(pa.array(is_known)))
            progress(done, len(domains), "domains", Part(domain))
        draft.statistics["domains"] = counts

    return store.make(NODES, settings.keyed(), parents, write)


def _of_kinds(kinds: pa.ChunkedArray) -> dict[str, int]:
    return {f"{kind}s": pc.sum(pc.equal(kinds, kind)).as_py() or 0 for kind in KINDS}


def _shared_entities(interactions: Artifact, domains: Sequence[str]) -> dict[str, Mask]:
    """By kind and entity: whether it has train rows in two or more domains."""
    counts = {kind: np.empty(0, np.int32) for kind in KINDS}
    for domain in domains:
        present = {kind: np.empty(0, dtype=bool) for kind in KINDS}
        for rows in interactions.batches([*KINDS, "split"], domain=domain):
            is_train = _is_train(rows)
            for kind in KINDS:
                entities = _array(rows[kind])[is_train]
                present[kind] = _grown(present[kind], entities)
                present[kind][entities] = True
        for kind, is_present in present.items():
            counts[kind] = _grown(counts[kind], np.array([is_present.size - 1]))
            counts[kind][: is_present.size] += is_present
    return {kind: count >= 2 for kind, count in counts.items()}


def _domain_nodes(
    interactions: Artifact, domain: str, shared: Mapping[str, Mask], anchor_kinds: Sequence[str]
) -> pa.Table:
    found = {kind: _Found() for kind in KINDS}
    columns = [*KINDS, *(f"{kind}_id" for kind in KINDS), "split"]
    for rows in interactions.batches(columns, domain=domain):
        is_train = _is_train(rows)
        for kind in KINDS:
            found[kind].add(_array(rows[kind]), rows[f"{kind}_id"], is_train)
    parts = [found[kind].table(kind, shared[kind], kind in anchor_kinds) for kind in KINDS]
    table = pa.concat_tables(parts)
    return table.append_column("node", pa.array(np.arange(table.num_rows, dtype=np.int32)))


class _Found:
    """Entities of one kind found in a domain, a file of interactions at a time."""

    def __init__(self) -> None:
        self._degree = np.empty(0, np.int32)
        self._is_known = np.empty(0, dtype=bool)
        self._entities: list[IntArray] = [np.empty(0, np.int32)]
        self._ids: list[pa.ChunkedArray] = [pa.chunked_array([], pa.string())]

    def add(self, entities: IntArray, ids: pa.ChunkedArray, is_train: Mask) -> None:
        """Note entities not seen before, with their ids, and count train rows; a pair has one at most."""
        self._degree, self._is_known = _grown(self._degree, entities), _grown(self._is_known, entities)
        self._degree += np.bincount(entities[is_train], minlength=self._degree.size).astype(np.int32)
        first = np.full(self._degree.size, -1, np.int64)
        first[entities[::-1]] = np.arange(entities.size)[::-1]  # of equal entities the last one assigned stays
        new = np.flatnonzero((first >= 0) & ~self._is_known).astype(np.int32)
        self._is_known[new] = True
        self._entities.append(new)
        self._ids.append(ids.take(pa.array(first[new])))

    def table(self, kind: str, is_shared: Mask, may_anchor: bool) -> pa.Table:
        """The contract's columns but `node`, by entity."""
        entities = np.concatenate(self._entities)
        order = np.argsort(entities)
        entities = entities[order]
        degree = self._degree[entities]
        ids = pa.chunked_array([chunk for part in self._ids for chunk in part.chunks], pa.string())
        return pa.table(
            {
                "kind": pa.repeat(pa.scalar(kind), entities.size),
                "entity": pa.array(entities),
                "id": ids.take(pa.array(order)),
                "train_degree": pa.array(degree),
                "is_anchor": pa.array(_grown(is_shared, entities)[entities] & (degree > 0) & may_anchor),
            }
        )


def _is_train(rows: pa.Table) -> Mask:
    return _array(pc.equal(rows["split"], TRAIN))


def _grown(values: Values, entities: IntArray) -> Values:
    """Values by entity, with zeros for entities beyond their end."""
    grown: Values = np.pad(values, (0, max(int(entities.max(initial=-1)) + 1 - values.size, 0)))
    return grown


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
