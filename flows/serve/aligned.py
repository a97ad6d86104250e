"""The aligned pairs of a run for one node: its partners in other domains, and the anchors that both reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Any

import pyarrow.compute as pc

from data_contracts.contracts import ITEM, PAIRS, REACH, USER
from data_contracts.store.artifact import Artifact
from data_contracts.store.dataset import ArtifactDataset
from model.serving.catalogue import Catalogue

_ANCHORS_SHOWN = 3
_MOST_PARTNERS = 5
"""Partners in each domain."""


@dataclass(frozen=True)
class Node:
    """A user or an item, as the logs name it."""

    kind: str
    id: str


@dataclass(frozen=True)
class Partner:
    """A node of another domain that tends to reach the same anchors.

    Attributes:
        domain, node: what it is.
        similarity: cosine of the reach vectors over shared anchors.
        is_same: it is the same user or item, in another domain.
        anchors: shared anchors, at most three, those with the largest products of weights first.
        shared: number of all shared anchors.
    """

    domain: str
    node: Node
    similarity: float
    is_same: bool
    anchors: tuple[Node, ...]
    shared: int


class AlignedNodes:
    """Looks up aligned pairs in the artifacts, which are read anew for each question.

    Args:
        pairs, reach: the run's artifacts.
        catalogues: of all domains.
    """

    def __init__(self, pairs: Artifact, reach: Artifact, catalogues: Mapping[str, Catalogue]) -> None:
        self._pairs, self._reach, self._catalogues = pairs, reach, catalogues

    @classmethod
    def open(cls, artifacts: Mapping[str, Artifact], catalogues: Mapping[str, Catalogue]) -> AlignedNodes | None:
        """The aligned pairs of a run; None if it has none."""
        if PAIRS.name not in artifacts or REACH.name not in artifacts:
            return None
        return cls(artifacts[PAIRS.name], artifacts[REACH.name], catalogues)

    def partners(self, domain: str, node: int) -> list[Partner]:
        """Partners of a node in other domains, by domain and rank; empty if there are none.

        Args:
            domain: of the node.
            node: its number in the domain's graph, users before items.
        """
        rows = _read(self._pairs, {"source_domain": [domain], "source_node": [node], "rank": range(_MOST_PARTNERS + 1)})
        rows = [row for row in rows if row["target_domain"] in self._catalogues]
        rows.sort(key=lambda row: (row["target_domain"], row["rank"]))
        reached = self._reached(domain, [node]).get(node, {})
        by_domain = {
            other: self._reached(other, [row["target_node"] for row in rows if row["target_domain"] == other])
            for other in {row["target_domain"] for row in rows}
        }
        partners = []
        for row in rows:
            other = by_domain[row["target_domain"]].get(row["target_node"], {})
            shared = sorted(
                reached.keys() & other.keys(), key=lambda anchor: (-reached[anchor] * other[anchor], anchor.id)
            )
            partners.append(
                Partner(
                    row["target_domain"],
                    self._name(row["target_domain"], row["target_node"]),
                    row["similarity"],
                    row["identity"],
                    tuple(shared[:_ANCHORS_SHOWN]),
                    len(shared),
                )
            )
        return partners

    def _reached(self, domain: str, nodes: list[int]) -> dict[int, dict[Node, float]]:
        """Node → the anchors that it reaches, with weights."""
        rows = _read(self._reach, {"domain": [domain], "node": nodes})
        return {
            row["node"]: {
                self._name(domain, anchor): weight
                for anchor, weight in zip(row["anchors"], row["weights"], strict=True)
            }
            for row in rows
        }

    def _name(self, domain: str, node: int) -> Node:
        catalogue = self._catalogues[domain]
        users = len(catalogue.user_ids)
        if node < users:
            return Node(USER, catalogue.user_ids[node].as_py())
        return Node(ITEM, catalogue.item_ids[node - users].as_py())


def _read(artifact: Artifact, wanted: Mapping[str, Sequence[str] | Sequence[int]]) -> list[dict[str, Any]]:
    """Rows that have in each column one of the wanted values."""
    conditions = [pc.field(name).isin(list(values)) for name, values in wanted.items()]
    rows: list[dict[str, Any]] = ArtifactDataset(artifact).to_table(filter=reduce(and_, conditions)).to_pylist()
    return rows
