from pathlib import Path

import pyarrow as pa

from data_contracts.contracts import CONTRACTS
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from data_contracts.store.store import Store
from flows.cli.demo import RUN, demo_runs, ranking_table
from flows.config.run_config import RunSpec
from flows.output.twins import twins_table


def made(store: Store, name: str, columns: dict[str, list[object]], seed: int = 0, **partition: str) -> Artifact:
    contract = CONTRACTS[name]
    return store.make(
        contract, {"seed": seed}, {}, lambda draft: draft.write(pa.table(columns, contract.file_schema), **partition)
    )


def make_nodes(store: Store) -> Artifact:
    """Users a0, a1 in big; b0, b1, b2 in small; no items."""

    def write(draft: Draft) -> None:
        for domain, ids in (("big", ["a0", "a1"]), ("small", ["b0", "b1", "b2"])):
            count = len(ids)
            columns = {
                "kind": ["user"] * count,
                "node": list(range(count)),
                "entity": list(range(count)),
                "id": ids,
                "train_degree": [1] * count,
                "is_anchor": [False] * count,
            }
            draft.write(pa.table(columns, CONTRACTS["nodes"].file_schema), domain=domain)

    return store.make(CONTRACTS["nodes"], {}, {}, write)


def make_pairs(store: Store) -> Artifact:
    """big 0 finds its twin (small 1) second; big 1 finds its twin (small 2) first; small finds nothing."""
    columns = {
        "target_domain": ["small"] * 4,
        "source_node": [0, 0, 0, 1],
        "target_node": [1, 0, 1, 2],
        "kind": ["user"] * 4,
        "similarity": [1.0, 0.5, 0.4, 0.9],
        "rank": [0, 1, 2, 1],
        "identity": [True, False, False, False],
    }
    return made(store, "pairs", columns, source_domain="big")


def test_twins_are_counted_by_rank_both_ways_beside_chance(tmp_path: Path):
    store = Store(tmp_path)
    twins = {
        "source_domain": ["big"] * 3,
        "target_domain": ["small"] * 3,
        "source_user_id": ["a0", "a1", "gone"],
        "target_user_id": ["b1", "b2", "b0"],
    }
    artifacts = {"world": made(store, "world", twins), "nodes": make_nodes(store), "pairs": make_pairs(store)}
    assert twins_table(artifacts, 2).rows == (
        ("big → small", "2", "3", "50.0% (chance 33.33%)", "100.0% (chance 66.67%)"),
        ("small → big", "2", "2", "0.0% (chance 50.00%)", "0.0% (chance 100.00%)"),
    )


def metrics(store: Store, seed: int, values: dict[str, tuple[float, float]]) -> Artifact:
    """Test metrics of one domain and of the mean."""
    size = 2 * len(values)
    columns = {
        "seed": [seed] * size,
        "epoch": [1] * size,
        "domain": ["books", "macro"] * len(values),
        "split": ["test"] * size,
        "stratum": ["all"] * size,
        "metric": [name for name in values for _ in range(2)],
        "value": [value for pair in values.values() for value in pair],
        "low": [0.0] * size,
        "high": [1.0] * size,
        "rows": [9] * size,
        "users": [8] * size,
    }
    return made(store, "metrics", columns, seed)


def test_runs_stand_side_by_side_by_their_full_ranking(tmp_path: Path):
    store = Store(tmp_path)
    both = {"auc": (0.9, 0.8), "full_recall@20": (0.5, 0.25), "full_ndcg@20": (0.125, 0.75)}
    first = metrics(store, 1, both | {"full_ndcg@20": (0.0, 1.0)})
    table = ranking_table({"walks": {"metrics": first}, "EDDA": {"metrics": metrics(store, 2, both)}})
    assert table.title.endswith("full_recall@20 / full_ndcg@20")
    assert table.header == ("domain", "interactions", "walks", "EDDA")
    assert table.rows == (
        ("books", "", "0.500 / 0.000", "0.500 / 0.125"),
        ("macro", "", "0.250 / 1.000", "0.250 / 0.750"),
    )


def test_the_demo_compares_popularity_walks_each_domain_alone_and_the_product():
    configs = {name: run.config for name, run in demo_runs(RunSpec(RUN, ("blend.evidence=true",))).items()}
    assert [config.name for config in configs.values()] == ["demo-popularity", "demo-walks", "demo-alone", "demo"]
    models = {name: (config.train.model, config.blend.evidence) for name, config in configs.items()}
    assert models == {
        "popularity": ("popularity", False),
        "walks alone": ("walks", True),
        "each domain alone": ("edda", True),
        "EDDA": ("edda", True),
    }
    alone = configs["each domain alone"]
    assert (alone.train.tables, alone.train.aligns, alone.neighbours.scope) == ("intra", False, "domain")
