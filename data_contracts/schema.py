"""The language of contracts: rules for the columns of an artifact's table, and the check that a table follows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.literals import Scalar, literal, strings


@dataclass(frozen=True)
class Column:
    """One column: its Arrow type, its meaning, and the rules that its values must follow.

    Rules of a list column apply to the list's elements, at any depth. Floats must always be finite, and strings must
    not be empty unless `may_be_empty`.
    """

    name: str
    type: pa.DataType
    meaning: str
    unit: str = ""
    nullable: bool = False
    minimum: Scalar | None = None
    maximum: Scalar | None = None
    above: Scalar | None = None
    allowed: tuple[str, ...] = ()
    may_be_empty: bool = False


@dataclass(frozen=True)
class Reference:
    """`columns` of this table must occur among `target_columns` of a parent artifact (list columns: every element)."""

    columns: tuple[str, ...]
    contract: str
    target_columns: tuple[str, ...]
    where: tuple[str, Scalar] | None = None
    """A column of the parent and a value: only rows with that value count; None: all rows count."""

    @property
    def read_columns(self) -> tuple[str, ...]:
        """The parent's columns that the check reads."""
        return self.target_columns if self.where is None else (*self.target_columns, self.where[0])


@dataclass(frozen=True)
class Contract:
    """What every artifact of one kind guarantees.

    A change of meaning, columns or algorithm raises `version`, which changes the artifacts' keys.
    """

    name: str
    version: int
    meaning: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    sorted_by: tuple[str, ...] = ()
    partitioned_by: tuple[str, ...] = ()
    references: tuple[Reference, ...] = ()
    files: tuple[str, ...] = field(default=())
    """Names (glob patterns) of files beside the table, such as tensors."""

    @property
    def file_schema(self) -> pa.Schema:
        """Schema of one Parquet file: every column that is not in its path."""
        return pa.schema([pa.field(c.name, c.type, c.nullable) for c in self.file_columns])

    @property
    def file_columns(self) -> tuple[Column, ...]:
        """Every column that is not in the file's path."""
        return tuple(c for c in self.columns if c.name not in self.partitioned_by)


@dataclass(frozen=True)
class Violation:
    """One broken rule: where, what was found, and what the rule says."""

    artifact: str
    column: str
    row: int | None
    found: str
    rule: str

    def __str__(self) -> str:
        position = self.column if self.row is None else f"{self.column}[{self.row}]"
        return f"{self.artifact}: {position} is {self.found}, must be {self.rule}"


class ContractError(ValueError):
    """All violations in one artifact, as one picklable error."""

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        super().__init__(violations)
        self.violations = violations

    def __str__(self) -> str:
        return "\n".join(str(violation) for violation in self.violations)


def check_table(contract: Contract, table: pa.Table, label: str = "") -> None:
    """Check the rows of one file, without partition columns.

    Raises:
        ContractError: the table violates the contract; the error has every violation.
    """
    broken = tuple(violations(contract, table, label or contract.name))
    if broken:
        raise ContractError(broken)


def violations(contract: Contract, table: pa.Table, label: str) -> Iterator[Violation]:
    """Every rule that one file's rows break, with the first row that breaks it."""
    wrong_shape = tuple(_schema_violations(contract, table.schema, label))
    yield from wrong_shape
    if wrong_shape:
        return
    for column in contract.file_columns:
        yield from _column_violations(column, table[column.name], label)
    yield from _order_violations(contract, table, label)


def _schema_violations(contract: Contract, schema: pa.Schema, label: str) -> Iterator[Violation]:
    expected = {c.name: c for c in contract.file_columns}
    for name in schema.names:
        if name not in expected:
            yield Violation(label, name, None, "present", f"absent (known: {', '.join(expected)})")
    for name, column in expected.items():
        if name not in schema.names:
            yield Violation(label, name, None, "missing", f"a column of type {column.type}")
        elif not schema.field(name).type.equals(column.type):
            yield Violation(label, name, None, str(schema.field(name).type), f"of type {column.type}")


def _column_violations(column: Column, values: pa.ChunkedArray, label: str) -> Iterator[Violation]:
    if values.null_count and not column.nullable:
        yield _first(column.name, label, values, pc.is_null(values), "not null")
    name = column.name
    while _is_list(values.type):
        values = pa.chunked_array([chunk.flatten() for chunk in values.chunks], values.type.value_type)
        name = f"{name}.element"
        if values.null_count:
            yield _first(name, label, values, pc.is_null(values), "not null")
    for rule, broken in _broken_rules(column, values):
        if pc.any(broken).as_py():
            yield _first(name, label, values, broken, rule)


def _broken_rules(column: Column, values: pa.ChunkedArray) -> Iterator[tuple[str, Any]]:
    if pa.types.is_floating(values.type):
        yield "finite", pc.invert(pc.is_finite(values))
    if pa.types.is_string(values.type) and not column.may_be_empty:
        yield "a non-empty string", pc.equal(pc.binary_length(values), literal(0))
    if column.minimum is not None:
        yield f"≥ {column.minimum}", pc.less(values, literal(column.minimum))
    if column.above is not None:
        yield f"> {column.above}", pc.less_equal(values, literal(column.above))
    if column.maximum is not None:
        yield f"≤ {column.maximum}", pc.greater(values, literal(column.maximum))
    if column.allowed:
        known = pc.is_in(values, value_set=strings(column.allowed))
        yield f"one of {', '.join(map(str, column.allowed))}", pc.and_(pc.is_valid(values), pc.invert(known))


def _first(name: str, label: str, values: Any, broken: Any, rule: str) -> Violation:
    row = pc.index(broken, literal(True)).as_py()
    return Violation(label, name, row, repr(values[row].as_py()), rule)


def _order_violations(contract: Contract, table: pa.Table, label: str) -> Iterator[Violation]:
    """Check the order of consecutive rows and, in the same pass if rows are sorted by the key, that keys are unique."""
    key = tuple(name for name in contract.key if name not in contract.partitioned_by)
    if table.num_rows < 2:
        return
    by_sort = set(contract.sorted_by[: len(key)]) == set(key)
    if contract.sorted_by:
        equal: Any = literal(True)
        for depth, name in enumerate(contract.sorted_by, start=1):
            before, after = table[name].slice(0, table.num_rows - 1), table[name].slice(1)
            row = pc.index(pc.and_(equal, pc.greater(before, after)), literal(True)).as_py()
            if row >= 0:
                yield Violation(
                    label, name, row + 1, repr(after[row].as_py()), f"sorted by {', '.join(contract.sorted_by)}"
                )
                return
            equal = pc.and_(equal, pc.equal(before, after))
            if by_sort and depth == len(key):
                row = pc.index(equal, literal(True)).as_py()
                if row >= 0:
                    yield _repeated(key, [table[name][row].as_py() for name in key], row + 1, label)
    if key and not by_sort and (values := _find_repeated(table.select(key))):
        yield _repeated(key, values, None, label)


def _find_repeated(rows: pa.Table) -> Sequence[Scalar]:
    """Values of a row that occurs more than once; empty if all are distinct."""
    if rows.num_rows <= _FEW_ROWS:
        counted = Counter(zip(*(column.to_pylist() for column in rows.columns), strict=True))
        return next((values for values, count in counted.items() if count > 1), ())
    counts = rows.group_by(rows.column_names, use_threads=False).aggregate([([], "count_all")])
    if counts.num_rows == rows.num_rows:
        return ()
    row = pc.index(pc.greater(counts["count_all"], literal(1)), literal(True)).as_py()
    return [counts[name][row].as_py() for name in rows.column_names]


_FEW_ROWS = 10_000
"""Rows that are compared sooner than Arrow's query engine, and pandas with it, is imported."""


def _repeated(key: tuple[str, ...], values: Sequence[Scalar], row: int | None, label: str) -> Violation:
    return Violation(label, f"({', '.join(key)})", row, f"({', '.join(map(repr, values))}) again", "unique")


def reference_violations(reference: Reference, table: pa.Table, target: pa.Table, label: str) -> Iterator[Violation]:
    """Rows of a table whose reference does not occur in its target.

    Args:
        reference: the rule.
        table: rows with the reference's `columns`, partition columns included.
        target: the parent's rows with the reference's `read_columns`.
        label: the table's name in violations.
    """
    if reference.where is not None:
        target = target.filter(pc.equal(target[reference.where[0]], reference.where[1]))
    wanted = _reference_rows(reference.columns, reference.target_columns, table)
    missing = wanted.join(
        target.select(reference.target_columns), list(reference.target_columns), join_type="left anti"
    )
    if missing.num_rows:
        first = ", ".join(repr(missing[name][0].as_py()) for name in reference.target_columns)
        rule = f"in {reference.contract} ({', '.join(reference.target_columns)})"
        rule += f" where {reference.where[0]} is {reference.where[1]}" if reference.where else ""
        columns = f"({', '.join(reference.columns)})"
        yield Violation(label, columns, None, f"({first}), {missing.num_rows} such values,", rule)


def _reference_rows(columns: tuple[str, ...], names: tuple[str, ...], table: pa.Table) -> pa.Table:
    """Distinct referenced values under the target's column names, with list columns flattened."""
    distinct = []
    for chunk in table.select(columns).to_batches():
        arrays = {name: chunk.column(column) for name, column in zip(names, columns, strict=True)}
        ragged = [name for name, array in arrays.items() if _is_list(array.type)]
        if ragged:
            parent = pc.list_parent_indices(arrays[ragged[0]])
            arrays = {n: a.flatten() if n in ragged else a.take(parent) for n, a in arrays.items()}
        distinct.append(pa.table(arrays).group_by(list(names)).aggregate([]))
    if not distinct:
        types = [table.schema.field(column).type for column in columns]
        values = [type_.value_type if _is_list(type_) else type_ for type_ in types]
        return pa.table({name: pa.array([], type_) for name, type_ in zip(names, values, strict=True)})
    return pa.concat_tables(distinct).group_by(list(names)).aggregate([])


def _is_list(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def describe(contract: Contract) -> Mapping[str, str]:
    """One line of text per column: meaning, unit and rules, for inspection and documentation."""
    lines = {}
    for column in contract.columns:
        bounds = [f"≥ {column.minimum}"] if column.minimum is not None else []
        bounds += [f"> {column.above}"] if column.above is not None else []
        bounds += [f"≤ {column.maximum}"] if column.maximum is not None else []
        bounds += ["one of " + ", ".join(map(str, column.allowed))] if column.allowed else []
        bounds += ["may be null"] if column.nullable else []
        unit = f" [{column.unit}]" if column.unit else ""
        lines[column.name] = f"{column.meaning}{unit}" + (f" ({'; '.join(bounds)})" if bounds else "")
    return lines
