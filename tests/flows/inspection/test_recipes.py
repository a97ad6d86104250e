"""Every recipe of docs/data/recipes.md, read from the page, finds in a world made by hand what must be found."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_contracts.contracts import CONTRACTS
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from data_contracts.store.runs import RunRecord
from data_contracts.store.store import Store
from flows.inspection.sql import ask

PAGE = (Path(__file__).parents[3] / "docs" / "data" / "recipes.md").read_text()
ME, TWIN, ITEM = "west-u000299", "u002207", "west-i00010"

NODES = {
    "west": [("user", 0, 7, ME, 2), ("user", 1, 3, "u1", 1), ("item", 2, 0, "a", 2), ("item", 3, 1, "b", 1),
             ("item", 4, 4, ITEM, 1)],
    "north": [("user", 0, 5, TWIN, 1), ("user", 1, 3, "u1", 1), ("item", 2, 1, "b", 3), ("item", 3, 9, "z", 1)],
}  # fmt: skip
WORLD: dict[str, dict[tuple[str, ...], list[dict[str, Any]]]] = {
    "nodes": {
        (domain,): [
            {"kind": kind, "node": node, "entity": entity, "id": id_, "train_degree": degree, "is_anchor": True}
            for kind, node, entity, id_, degree in rows
        ]
        for domain, rows in NODES.items()
    },
    "neighbours": {
        (): [
            {"domain": "", "item": 1, "neighbours": [4, 9], "weights": [0.5, 1.0]},
            {"domain": "", "item": 4, "neighbours": [0, 1, 9], "weights": [0.25, 0.25, 0.5]},
        ],
    },
    "reach": {
        ("west",): [
            {"node": 0, "anchors": [1, 2, 3], "weights": [0.25, 0.5, 0.125]},
            {"node": 1, "anchors": [3], "weights": [1.0]},
        ],
        ("north",): [{"node": 0, "anchors": [1, 2, 3], "weights": [0.25, 0.75, 0.5]}],
    },
    "pairs": {
        ("west",): [
            {"target_domain": "north", "source_node": 0, "target_node": target, "kind": "user",
             "similarity": similarity, "rank": rank, "identity": False}
            for target, similarity, rank in [(0, 0.75, 1), (1, 0.5, 2)]
        ] + [{"target_domain": "north", "source_node": 1, "target_node": 1, "kind": "user", "similarity": 1.0,
              "rank": 0, "identity": True}],
    },
    "metrics": {
        (): [
            {"seed": 1, "epoch": 3, "domain": domain, "split": split, "stratum": stratum, "metric": "auc",
             "value": value, "low": 0.5, "high": 1.0, "rows": 9, "users": 7}
            for domain, split, stratum, value in [
                ("west", "test", "all", 0.75), ("west", "test", "history 1-2", 0.25), ("west", "valid", "all", 0.5),
                ("north", "test", "all", 0.625),
            ]
        ],
    },
    "rejects": {
        (): [
            {"file": "a.csv", "line": 2, "reason": "arity", "text": "x,y,z"},
            {"file": "a.csv", "line": 4, "reason": "arity", "text": "x"},
            {"file": "a.csv", "line": 5, "reason": "cold", "text": "u\ti"},
        ],
    },
    "recommendations": {
        ("west",): [
            {"user_id": "u1", "item_id": "a", "score": 0.25, "rank": 1, "because_of": [], "because_of_domains": [],
             "because_of_shares": [], "evidence_share": 0.0},
            {"user_id": ME, "item_id": "b", "score": 1.5, "rank": 1, "because_of": ["z", "a"],
             "because_of_domains": [["north"], ["north", "west"]], "because_of_shares": [0.75, 0.25],
             "evidence_share": 0.5},
            {"user_id": ME, "item_id": "a", "score": 0.5, "rank": 2, "because_of": ["c"],
             "because_of_domains": [["west"]], "because_of_shares": [1.0], "evidence_share": 0.125},
        ],
    },
}  # fmt: skip

TWINS = [("north", TWIN, 1, 0.75), ("north", "u1", 2, 0.5)]
ANCHORS = [("item", "b", 0.125, 0.75), ("user", "u1", 0.25, 0.25)]
NEIGHBOURS = [("z", "north", 0.5), ("a", "west", 0.25), ("b", "north, west", 0.25)]
METRICS = [(1, "auc", 0.75, 0.5, 1.0, 9)]
REJECTS = [("a.csv", "arity", 2, 2, "x,y,z"), ("a.csv", "cold", 1, 5, "u\ti")]
POPULARITY = [(1, "b", 1.5, 1), (2, "a", 0.5, 2)]
WHY = [
    (1, "b", "z", ["north"], 0.75, 0.5),
    (1, "b", "a", ["north", "west"], 0.25, 0.5),
    (2, "a", "c", ["west"], 1.0, 0.125),
]
OWED = [("west", 0.375)]
FIVE = [TWINS, ANCHORS, METRICS, REJECTS, POPULARITY]


def recipes(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Artifact]:
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "edda-store")
    made = {name: _made(store, name) for name in WORLD}
    store.link_run(RunRecord.build("demo", made))
    return made


def _made(store: Store, name: str) -> Artifact:
    contract = CONTRACTS[name]

    def write(draft: Draft) -> None:
        for values, rows in WORLD[name].items():
            partition = dict(zip(contract.partitioned_by, values, strict=True))
            draft.write(pa.Table.from_pylist(rows, schema=contract.file_schema), **partition)

    return store.make(contract, {}, {}, write)


def test_the_page_answers_five_questions_in_each_tool_and_two_more_in_sql():
    assert [len(recipes(kind)) for kind in ("sql", "python polars", "python pandas")] == [8, 6, 6]


@pytest.mark.parametrize(("number", "expected"), list(enumerate([*FIVE[:2], NEIGHBOURS, *FIVE[2:], WHY, OWED])))
def test_sql_recipes_find_what_was_made_by_hand(artifacts, number, expected):
    with ask(artifacts, recipes("sql")[number]) as found:
        assert list(found.rows) == expected


@pytest.mark.parametrize(("number", "expected"), list(enumerate(FIVE, start=1)))
def test_polars_recipes_find_the_same(artifacts, number, expected):
    pytest.importorskip("polars")
    assert _value(recipes("python polars"), number).rows() == expected


@pytest.mark.parametrize(("number", "expected"), list(enumerate(FIVE, start=1)))
def test_pandas_recipes_find_the_same(artifacts, number, expected):
    pytest.importorskip("pandas")
    assert list(_value(recipes("python pandas"), number).itertuples(index=False, name=None)) == expected


def _value(blocks: list[str], number: int) -> Any:
    """What the last expression of a block gives, after the block with the loader."""
    *before, last = ast.parse(blocks[0] + blocks[number]).body
    assert isinstance(last, ast.Expr)
    names: dict[str, Any] = {}
    exec(compile(ast.Module(before, []), "recipe", "exec"), names)
    return eval(compile(ast.Expression(last.value), "recipe", "eval"), names)
