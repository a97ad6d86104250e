"""Every rule of a contract, broken once."""

import pickle
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.contracts import CONTRACTS
from data_contracts.schema import (
    Column,
    Contract,
    ContractError,
    Reference,
    Violation,
    check_table,
    describe,
    reference_violations,
    violations,
)

THING = Contract(
    "thing",
    1,
    "Things.",
    (
        Column("name", pa.string(), "its name"),
        Column("size", pa.int32(), "its size", "cm", minimum=1, maximum=9),
        Column("weight", pa.float64(), "its weight", above=0.0, nullable=True),
        Column("kind", pa.string(), "its kind", allowed=("big", "small")),
        Column("parts", pa.list_(pa.int32()), "its parts", minimum=0),
        Column("note", pa.string(), "a note", may_be_empty=True),
    ),
    key=("name",),
    sorted_by=("name",),
)
GOOD: dict[str, list[Any]] = {
    "name": ["a", "b", "c"],
    "size": [1, 5, 9],
    "weight": [0.5, None, 2.0],
    "kind": ["big", "small", "big"],
    "parts": [[0], [], [1, 2]],
    "note": ["", "x", ""],
}


def table(**columns: list[Any]) -> pa.Table:
    """A table of the right types that may hold nulls anywhere."""
    values = {**GOOD, **columns}
    return pa.table({column.name: pa.array(values[column.name], column.type) for column in THING.columns})


def messages(found: pa.Table, contract: Contract = THING) -> list[str]:
    return [str(violation) for violation in violations(contract, found, "thing/part-00000.parquet")]


def test_good_table_breaks_nothing() -> None:
    assert messages(table()) == []


def test_empty_table_breaks_nothing() -> None:
    assert messages(THING.file_schema.empty_table()) == []


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"name": ["a", None, "c"]}, "name[1] is None, must be not null"),
        ({"name": ["", "b", "c"]}, "name[0] is '', must be a non-empty string"),
        ({"size": [1, 0, 9]}, "size[1] is 0, must be ≥ 1"),
        ({"size": [1, 5, 10]}, "size[2] is 10, must be ≤ 9"),
        ({"weight": [0.0, 1.0, 1.0]}, "weight[0] is 0.0, must be > 0.0"),
        ({"weight": [1.0, float("nan"), 1.0]}, "weight[1] is nan, must be finite"),
        ({"weight": [1.0, 1.0, float("inf")]}, "weight[2] is inf, must be finite"),
        ({"kind": ["big", "huge", "big"]}, "kind[1] is 'huge', must be one of big, small"),
        ({"kind": ["big", None, "big"]}, "kind[1] is None, must be not null"),
        ({"parts": [[0], [1, -1], []]}, "parts.element[2] is -1, must be ≥ 0"),
        ({"parts": [[0], None, []]}, "parts[1] is None, must be not null"),
        ({"parts": [[0], [None], []]}, "parts.element[1] is None, must be not null"),
        ({"name": ["b", "a", "c"]}, "name[1] is 'a', must be sorted by name"),
        ({"name": ["a", "b", "b"]}, "(name)[2] is ('b') again, must be unique"),
    ],
)
def test_each_rule_is_checked(columns: dict[str, list[Any]], message: str) -> None:
    assert messages(table(**columns)) == [f"thing/part-00000.parquet: {message}"]


@pytest.mark.parametrize("few", [0, 10_000])
def test_a_key_that_rows_are_not_sorted_by_is_unique(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_contracts.schema._FEW_ROWS", few)
    unsorted = Contract(
        "unsorted", 1, "Things.", (Column("name", pa.string(), "a name"), Column("size", pa.int64(), "a size")),
        key=("name", "size"),
    )  # fmt: skip
    rows = pa.table({"name": ["b", "a", "b", "a"], "size": [1, 1, 2, 3]})
    assert messages(rows, unsorted) == []
    assert messages(pa.concat_tables([rows, rows.slice(1, 1)]), unsorted) == [
        "thing/part-00000.parquet: (name, size) is ('a', 1) again, must be unique"
    ]


def test_missing_extra_and_mistyped_columns_are_named() -> None:
    found = table().drop_columns("size").append_column("colour", pa.array(["red"] * 3))
    found = found.set_column(0, "name", pa.array([1, 2, 3]))
    assert [message.split(": ", 1)[1] for message in messages(found)] == [
        "colour is present, must be absent (known: name, size, weight, kind, parts, note)",
        "name is int64, must be of type string",
        "size is missing, must be a column of type int32",
    ]


def test_all_violations_come_in_one_error() -> None:
    broken = table(name=["c", "b", "a"], size=[0, 5, 10], kind=["x", "big", "big"])
    with pytest.raises(ContractError) as error:
        check_table(THING, broken)
    assert [(v.column, v.row) for v in error.value.violations] == [
        ("size", 0),
        ("size", 2),
        ("kind", 0),
        ("name", 1),
    ]
    assert len(str(error.value).splitlines()) == 4


def test_error_survives_pickling() -> None:
    error = ContractError((Violation("thing", "size", 3, "0", "≥ 1"),))
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.violations, str(copy)) == (error.violations, "thing: size[3] is 0, must be ≥ 1")


def unsorted(key: tuple[str, ...], sorted_by: tuple[str, ...]) -> Contract:
    columns = (Column("a", pa.int64(), "a", nullable=True), Column("b", pa.int64(), "b"))
    return Contract("pairs", 1, "Pairs.", columns, key=key, sorted_by=sorted_by)


numbers = st.integers(0, 3)


@given(st.lists(st.tuples(numbers, numbers), max_size=8))
def test_order_and_uniqueness_equal_the_obvious_check(rows: list[tuple[int, int]]) -> None:
    found = pa.table({"a": pa.array([r[0] for r in rows], pa.int64()), "b": pa.array([r[1] for r in rows], pa.int64())})
    for key, sorted_by in ((("a", "b"), ("a", "b")), (("a", "b"), ("b", "a")), (("b",), ("a",)), (("a", "b"), ())):
        ordered = [tuple({"a": a, "b": b}[name] for name in sorted_by) for a, b in rows]
        keys = [tuple({"a": a, "b": b}[name] for name in key) for a, b in rows]
        is_sorted, is_unique = ordered == sorted(ordered), len(set(keys)) == len(keys)
        rules = {v.rule.split()[0] for v in violations(unsorted(key, sorted_by), found, "pairs")}
        assert ("sorted" not in rules) == is_sorted
        if is_sorted:
            assert ("unique" not in rules) == is_unique


def test_null_in_a_key_is_a_value_of_its_own() -> None:
    found = pa.table({"a": pa.array([None, None, 1], pa.int64()), "b": [1, 2, 1]})
    assert list(violations(unsorted(("a", "b"), ()), found, "pairs")) == []
    again = pa.table({"a": pa.array([None, None], pa.int64()), "b": [1, 1]})
    assert [v.rule for v in violations(unsorted(("a", "b"), ()), again, "pairs")] == ["unique"]


REFERENCE = Reference(("domain", "node"), "nodes", ("domain", "node"))
NODES = pa.table({"domain": ["d", "d"], "node": pa.array([0, 1], pa.int32())})


def test_reference_that_exists_is_fine() -> None:
    rows = pa.table({"domain": ["d", "d", "d"], "node": pa.array([1, 0, 1], pa.int32())})
    assert list(reference_violations(REFERENCE, rows, NODES, "graph")) == []


def test_reference_into_nothing_is_named_and_counted() -> None:
    rows = pa.table({"domain": ["d", "e", "d"], "node": pa.array([1, 0, 7], pa.int32())})
    (found,) = reference_violations(REFERENCE, rows, NODES, "graph")
    assert "2 such values" in str(found)
    assert found.rule == "in nodes (domain, node)"


def test_references_of_list_elements_are_checked() -> None:
    lists = Reference(("domain", "neighbours"), "nodes", ("domain", "node"))
    rows = pa.table({"domain": ["d", "d"], "neighbours": pa.array([[], [0, 5]], pa.list_(pa.int32()))})
    (found,) = reference_violations(lists, rows, NODES, "graph")
    assert found.found == "('d', 5), 1 such values,"


def test_a_reference_may_be_to_some_of_a_parents_rows() -> None:
    items = Reference(("item",), "nodes", ("node",), where=("domain", "e"))
    nodes = pa.table({"domain": ["d", "e", "e"], "node": pa.array([7, 0, 1], pa.int32())})
    rows = pa.table({"item": pa.array([0, 1], pa.int32())})
    assert items.read_columns == ("node", "domain")
    assert list(reference_violations(items, rows, nodes, "neighbours")) == []
    (found,) = reference_violations(items, pa.table({"item": pa.array([1, 7], pa.int32())}), nodes, "neighbours")
    assert (found.found, found.rule) == ("(7), 1 such values,", "in nodes (node) where domain is e")


def test_no_rows_refer_to_nothing() -> None:
    assert list(reference_violations(REFERENCE, NODES.slice(0, 0), NODES, "graph")) == []


def test_rules_hold_for_the_elements_of_lists_of_lists() -> None:
    nested = Contract("n", 1, "nested", (Column("names", pa.list_(pa.list_(pa.string())), "names", nullable=True),), ())
    check_table(nested, pa.table({"names": [[["a"], []], None, []]}, nested.file_schema))
    with pytest.raises(ContractError, match=r"names.element.element\[1\] is '', must be a non-empty string"):
        check_table(nested, pa.table({"names": [[["a"], [""]]]}, nested.file_schema))


def test_description_tells_unit_and_rules() -> None:
    lines = describe(THING)
    assert lines["size"] == "its size [cm] (≥ 1; ≤ 9)"
    assert lines["weight"] == "its weight (> 0.0; may be null)"
    assert lines["kind"] == "its kind (one of big, small)"


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS)
def test_contracts_speak_of_their_own_columns(contract: Contract) -> None:
    names = {column.name for column in contract.columns}
    assert {*contract.key, *contract.sorted_by, *contract.partitioned_by} <= names
    for reference in contract.references:
        assert set(reference.columns) <= names
        assert set(reference.read_columns) <= {column.name for column in CONTRACTS[reference.contract].columns}
