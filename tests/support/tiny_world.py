"""Small worlds for the model's tests: interactions by hand, nodes and graph made from them, and chosen pairs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_contracts.contracts import BLEND, COVERAGE_FILE, INTERACTIONS, PAIRS
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import GraphSettings, NeighboursSettings
from data_contracts.settings.ranking import BlendSettings, EvaluateSettings, ExportSettings
from data_contracts.settings.train import CheckpointSettings, TrainSettings
from data_contracts.statistics import IngestedDomainStatistics, columns_of_coverage
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from data_contracts.store.runs import RunRecord
from data_contracts.store.store import Store
from model.data.batches import Batch
from model.serving.export import export_embeddings
from model.training.stage import train
from pipeline.graph import build_graph, number_nodes
from pipeline.neighbours.stage import build_neighbours

Log = Mapping[str, Sequence[tuple[str, str, str] | tuple[str, str, str, int]]]
"""By domain: user, item, split and, where it is not 1, count."""

Weights = Mapping[str, tuple[float, float]]
"""By domain: the factors of vectors and of evidence."""


@dataclass(frozen=True)
class Tiny:
    """A store and the artifacts that training reads."""

    store: Store
    parents: dict[str, Artifact]

    def without_pairs(self) -> dict[str, Artifact]:
        return {role: artifact for role, artifact in self.parents.items() if role != "pairs"}


@dataclass(frozen=True)
class TinyRun:
    """A recorded run: its store's folder, and its artifacts by role."""

    store: Path
    artifacts: dict[str, Artifact]


def build(store: Store, log: Log, *, every_pair: bool = False) -> Tiny:
    """Artifacts of a log; pairs join shared users and items and, with `every_pair`, other nodes of equal rank."""
    compute = ComputeSettings(threads=1)
    parents = {"interactions": _interactions(store, log)}
    parents["nodes"] = number_nodes(store, GraphSettings(), parents, compute)
    parents["graph"] = build_graph(store, GraphSettings(), parents, compute)
    parents["pairs"] = _pairs(store, parents["nodes"], list(log), every_pair)
    return Tiny(store, parents)


def seeded(train: TrainSettings, seed: int, validation: EvaluateSettings) -> CheckpointSettings:
    """The settings that `train` takes."""
    return CheckpointSettings(train=train, seed=seed, validation=validation)


def exported(world: Tiny, name: str, weights: Weights | None = None) -> dict[str, Artifact]:
    """Train briefly, export, and record as a run; with weights the scores have evidence besides vectors."""
    settings = TrainSettings(width=8, epochs=2, batch_size=64, learning_rate=0.01, alignment=0.3)
    compute = ComputeSettings(threads=1)
    checkpoint = train(
        world.store,
        seeded(settings, 1, EvaluateSettings(candidates=5)),
        world.parents,
        compute,
    )
    parents = {**world.without_pairs(), "checkpoint-1": checkpoint}
    made = {"embeddings": export_embeddings(world.store, ExportSettings(), parents, compute)}
    if weights is not None:
        graph = {role: parents[role] for role in ("nodes", "graph")}
        made["neighbours"] = build_neighbours(world.store, NeighboursSettings(), graph, compute)
        fitted = {**parents, "neighbours": made["neighbours"]}
        made["blend-1"] = make_blend(world.store, fitted, weights)
    world.store.link_run(RunRecord.build(name, {**parents, **made}))
    return {**parents, **made}


def make_blend(store: Store, parents: Mapping[str, Artifact], weights: Weights) -> Artifact:
    """A `blend` artifact with weights given by hand, instead of fitted ones; the spread of vectors is 0.5."""
    rows = [
        {
            "domain": domain, "share": 0.5, "vectors": vectors, "evidence": evidence, "spread": 0.5, "growth": 0.5,
            "full_ndcg@20": 0.0, "full_recall@20": 0.0, "users": 0, "chosen": True,
        }
        for domain, (vectors, evidence) in sorted(weights.items())
    ]  # fmt: skip

    def write(draft: Draft) -> None:
        draft.write(pa.Table.from_pylist(rows, schema=BLEND.file_schema))

    return store.make(BLEND, {**BlendSettings().keyed(), "rows": rows}, parents, write)


def random_log(seed: int, sizes: Mapping[str, tuple[int, int, int]]) -> dict[str, list[tuple[str, str, str]]]:
    """Users prefer items of their own parity; domains share users and items with low numbers.

    Args:
        seed: of the draws.
        sizes: users, items and interactions of each domain.
    """
    random = np.random.default_rng(seed)
    log: dict[str, list[tuple[str, str, str]]] = {}
    for index, (domain, (users, items, rows)) in enumerate(sizes.items()):
        user = random.integers(0, users, rows)
        item = random.integers(0, items // 2, rows) * 2 + np.where(random.random(rows) < 0.9, user % 2, 1 - user % 2)
        pairs = sorted({(int(u), int(i)) for u, i in zip(user, item, strict=True)})
        split = random.choice(["train", "valid", "test"], len(pairs), p=[0.7, 0.1, 0.2])
        names = [(_name("u", u, index), _name("i", i, index), str(s)) for (u, i), s in zip(pairs, split, strict=True)]
        log[domain] = names
    return log


def rows_of(batch: Batch) -> list[list[int]]:
    """Nodes of each row of a batch: the user, the positive, its negatives."""
    users = batch.pattern.users.forward.indices.numpy()[:, None]
    return batch.nodes[np.concatenate([users, batch.pattern.items.indices.numpy().reshape(users.size, -1)], 1)].tolist()


def _name(kind: str, number: int, domain: int) -> str:
    return f"{kind}{number:04d}" if number < 6 else f"{kind}{number:04d}-{domain}"


def _interactions(store: Store, log: Log) -> Artifact:
    rows = {domain: [(*row, 1)[:4] for row in part] for domain, part in log.items()}
    number = [
        {name: rank for rank, name in enumerate(sorted({row[column] for part in rows.values() for row in part}))}
        for column in (0, 1)
    ]

    def write(draft: Draft) -> None:
        for domain, part in rows.items():
            ordered = sorted(part, key=lambda row: (number[0][row[0]], number[1][row[1]], row[2]))
            table = [
                {
                    "user_id": user, "item_id": item, "user": number[0][user], "item": number[1][item],
                    "split": split, "timestamp": None, "count": count,
                }
                for user, item, split, count in ordered
            ]  # fmt: skip
            draft.write(pa.Table.from_pylist(table, schema=INTERACTIONS.file_schema), domain=domain)
        draft.statistics |= {
            "domains": {domain: _ingested(part) for domain, part in rows.items()},
            "users": len({user for part in rows.values() for user, *_ in part}),
            "items": len({item for part in rows.values() for _, item, *_ in part}),
        }

    return store.make(
        INTERACTIONS, {"log": {name: [list(row) for row in part] for name, part in rows.items()}}, {}, write
    )


def _ingested(rows: list[tuple[Any, ...]]) -> IngestedDomainStatistics:
    splits = Counter(split for _, _, split, _ in rows)
    return {
        "users": len({user for user, *_ in rows}), "items": len({item for _, item, *_ in rows}),
        "train": splits["train"], "valid": splits["valid"], "test": splits["test"],
        "duplicates": sum(count - 1 for *_, count in rows), "leaked": 0, "cold": 0,
    }  # fmt: skip


def _pairs(store: Store, nodes: Artifact, domains: list[str], every_pair: bool) -> Artifact:
    tables = {domain: nodes.read(["kind", "node", "id"], domain=domain).to_pylist() for domain in domains}

    def write(draft: Draft) -> None:
        for source in domains:
            for target in domains:
                rows = _joined(tables[source], tables[target], every_pair) if source != target else []
                if rows:
                    rows = [{**row, "target_domain": target} for row in rows]
                    draft.write(pa.Table.from_pylist(rows, schema=PAIRS.file_schema), source_domain=source)
        (draft.folder / COVERAGE_FILE).write_text(json.dumps(columns_of_coverage([])))
        draft.statistics |= {"checked": {"nodes": 0}, "pairs_of_domains": 0, "copied": 0}

    return store.make(PAIRS, {"every_pair": every_pair}, {"nodes": nodes}, write)


def _joined(sources: list[dict[str, Any]], targets: list[dict[str, Any]], every_pair: bool) -> list[dict[str, Any]]:
    same = {(node["kind"], node["id"]): node["node"] for node in targets}
    rows = []
    for index, source in enumerate(sources):
        partner = same.get((source["kind"], source["id"]))
        if partner is not None:
            rows.append(_pair(source, partner, 0))
        elif every_pair and index < len(targets) and targets[index]["kind"] == source["kind"]:
            rows.append(_pair(source, targets[index]["node"], 1))
    return rows


def _pair(source: dict[str, Any], partner: int, rank: int) -> dict[str, Any]:
    return {
        "source_node": source["node"], "target_node": partner, "kind": source["kind"],
        "similarity": 1.0, "rank": rank, "identity": rank == 0,
    }  # fmt: skip
