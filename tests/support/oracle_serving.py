"""Served scores by brute force, with SciPy, from published artifacts and without code of `model.serving`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp

from data_contracts.store.artifact import Artifact


class Served:
    """The artifacts of a run with evidence, as matrices over the union of all domains."""

    def __init__(self, artifacts: Mapping[str, Artifact]) -> None:
        nodes = {p["domain"]: artifacts["nodes"].read(domain=p["domain"]) for p in artifacts["nodes"].partitions()}
        self.nodes = {domain: table.to_pylist() for domain, table in nodes.items()}
        self.number = {(row["kind"], row["id"]): row["entity"] for rows in self.nodes.values() for row in rows}
        users, items = (1 + max(n for (k, _), n in self.number.items() if k == kind) for kind in ("user", "item"))
        self.train: dict[str, set[tuple[str, str]]] = {}
        for domain in nodes:
            table = artifacts["interactions"].read(["user_id", "item_id", "split"], domain=domain).to_pylist()
            self.train[domain] = {(row["user_id"], row["item_id"]) for row in table if row["split"] == "train"}
        known = sp.lil_array((users, items))
        for user, item in set().union(*self.train.values()):
            known[self.number["user", user], self.number["item", item]] = 1.0
        self.known = known.tocsr()
        neighbours = sp.lil_array((items, items))
        for row in artifacts["neighbours"].read().to_pylist():
            neighbours[row["item"], row["neighbours"]] = row["weights"]
        self.neighbours = neighbours.tocsr()
        self.weights = {row["domain"]: row for row in artifacts["blend-1"].read().to_pylist() if row["chosen"]}
        tables = {domain: artifacts["embeddings"].read(domain=domain).to_pylist() for domain in nodes}
        self.vectors = {
            (domain, row["kind"], row["id"]): np.array(row["vector"]) for domain in nodes for row in tables[domain]
        }

    def items(self, domain: str) -> list[str]:
        """Ids of a domain's items by their numbers."""
        return [row["id"] for row in self.nodes[domain] if row["kind"] == "item"]

    def users(self, domain: str) -> list[str]:
        """Ids of a domain's users by their numbers."""
        return [row["id"] for row in self.nodes[domain] if row["kind"] == "user"]

    def history(self, user: str) -> list[str]:
        """Ids of a user's train items in any domain."""
        return sorted({item for pairs in self.train.values() for owner, item in pairs if owner == user})

    def evidence(self, domain: str, history: list[str]) -> np.ndarray:
        """Evidence of a history for every item of a domain."""
        rows = [self.number["item", item] for item in history]
        columns = [self.number["item", item] for item in self.items(domain)]
        return np.asarray(self.neighbours[rows].sum(axis=0)).ravel()[columns]

    def dots(self, domain: str, vector: np.ndarray) -> np.ndarray:
        """Dot products of a vector with every item of a domain."""
        return np.array([vector @ self.vectors[domain, "item", item] for item in self.items(domain)])

    def blended(
        self, domain: str, dots: np.ndarray, history: list[str], weights: Mapping[str, float] | None = None
    ) -> np.ndarray:
        """The served score of every item of a domain."""
        chosen = {**self.weights[domain], **(weights or {})}
        if not history or not chosen["evidence"]:
            return dots
        weighted = chosen["evidence"] * len(history) ** chosen["growth"] * self.evidence(domain, history)
        return (chosen["vectors"] * dots + weighted) / (1 + weighted.std() / chosen["spread"])

    def for_user(self, domain: str, user: str) -> list[tuple[str, float]]:
        """All items that may be recommended to a user, best first, ties by number."""
        scores = self.blended(domain, self.dots(domain, self.vectors[domain, "user", user]), self.history(user))
        return self.ranked(domain, scores, {item for owner, item in self.train[domain] if owner == user})

    def ranked(self, domain: str, scores: np.ndarray, left_out: set[str]) -> list[tuple[str, float]]:
        """Ids and scores, best first, ties by number."""
        items = self.items(domain)
        order = np.argsort(-scores.astype(np.float32), kind="stable")
        return [(items[index], scores[index]) for index in order if items[index] not in left_out]
