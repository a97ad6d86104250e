from pathlib import Path

import pyarrow as pa

from data_contracts.artifact import Artifact
from data_contracts.contracts import CONTRACTS
from data_contracts.store import Draft, Store
from flows.demo import gains_table, twins_table


def made(store: Store, name: str, columns: dict[str, list[object]], seed: int = 0, **partition: str) -> Artifact:
    contract = CONTRACTS[name]
    return store.make(
        contract, {"seed": seed}, {}, lambda draft: draft.write(pa.table(columns, contract.file_schema), **partition)
    )


def nodes_of(store: Store) -> Artifact:
    """Users a0, a1 in big; b0, b1, b2 in small; no items."""

    def write(draft: Draft) -> None:
        for domain, ids in (("big", ["a0", "a1"]), ("small", ["b0", "b1", "b2"])):
            count = len(ids)
            columns = {"kind": ["user"] * count, "node": list(range(count)), "entity": list(range(count)), "id": ids,
                       "train_degree": [1] * count, "is_anchor": [False] * count}  # fmt: skip
            draft.write(pa.table(columns, CONTRACTS["nodes"].file_schema), domain=domain)

    return store.make(CONTRACTS["nodes"], {}, {}, write)


def pairs_of(store: Store) -> Artifact:
    """big 0 finds its twin (small 1) second; big 1 finds its twin (small 2) first; small finds nothing."""
    columns = {"source_node": [0, 0, 0, 1], "target_node": [1, 0, 1, 2], "kind": ["user"] * 4,
               "similarity": [1.0, 0.5, 0.4, 0.9], "rank": [0, 1, 2, 1],
               "identity": [True, False, False, False]}  # fmt: skip
    return made(store, "pairs", columns, source_domain="big", target_domain="small")


def test_twins_are_counted_by_rank_both_ways_beside_chance(tmp_path: Path):
    store = Store(tmp_path)
    twins = {"source_domain": ["big"] * 3, "target_domain": ["small"] * 3, "source_user_id": ["a0", "a1", "gone"],
             "target_user_id": ["b1", "b2", "b0"]}  # fmt: skip
    artifacts = {"world": made(store, "world", twins), "nodes": nodes_of(store), "pairs": pairs_of(store)}
    assert twins_table(artifacts, 2).rows == (
        ("big → small", "2", "3", "50.0% (chance 33.33%)", "100.0% (chance 66.67%)"),
        ("small → big", "2", "2", "0.0% (chance 50.00%)", "0.0% (chance 100.00%)"),
    )


def metrics(store: Store, values: tuple[float, float], seed: int) -> Artifact:
    columns = {"seed": [seed] * 2, "epoch": [1, 1], "domain": ["books", "macro"], "split": ["test"] * 2,
               "metric": ["auc"] * 2, "value": list(values), "low": [0.0, 0.0], "high": [1.0, 1.0],
               "rows": [9, 9]}  # fmt: skip
    return made(store, "metrics", columns, seed)


def test_gains_are_the_difference_to_each_domain_alone(tmp_path: Path):
    store = Store(tmp_path)
    together, alone = metrics(store, (0.75, 0.8), 1), metrics(store, (0.7, 0.85), 2)
    table = gains_table({"metrics": together}, {"metrics": alone})
    assert table.header == ("domain", "interactions", "auc", "gain")
    assert table.rows == (("books", "", "0.700 → 0.750", "+0.050"), ("mean", "", "0.850 → 0.800", "-0.050"))
