"""SQL queries over artifacts: each artifact is a view in DuckDB, with its partition columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_contracts.store.artifact import Artifact

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_FETCHED = 1024
"""Rows that are fetched from DuckDB at a time."""


class QueryError(ValueError):
    """SQL that is wrong, or that does more than read."""


@dataclass(frozen=True)
class QueryResult:
    """The result of a query: distinct names of columns, and rows, which are fetched as they are consumed."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]


@contextmanager
def ask(artifacts: Mapping[str, Artifact], sql: str, missing: str | None = None) -> Iterator[QueryResult]:
    """Run one SELECT over artifacts; it cannot change anything.

    Args:
        artifacts: by role; a role's view has underscores in place of its hyphens (`checkpoint_2022`).
        sql: one DuckDB statement that reads: SELECT, FROM, WITH, DESCRIBE, SUMMARIZE, SHOW.
        missing: which artifacts an unfinished run lacks, as text for the error message.

    Raises:
        QueryError: the statement is wrong, there is not exactly one, or it would write; the message names the views.
    """
    import duckdb

    views = {role.replace("-", "_"): artifact for role, artifact in artifacts.items()}
    try:
        with duckdb.connect() as connection:
            statements = connection.extract_statements(sql)
            if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                kinds = ", ".join(statement.type.name for statement in statements) or "nothing"
                raise QueryError(
                    f"--sql is {kinds}, must be one statement that reads, e.g. select * from pairs limit 5"
                )
            for name, artifact in views.items():
                _create_view(connection, name, artifact)
            connection.execute(sql)
            yield QueryResult(_distinct(column[0] for column in connection.description), _rows(connection))
    except duckdb.Error as error:
        hint = f"; {missing}" if missing else ""
        raise QueryError(f"{error}\nviews: {', '.join(views) or 'none'}{hint}") from error


def _create_view(connection: DuckDBPyConnection, name: str, artifact: Artifact) -> None:
    """Create a view with columns in the contract's order; partition values stay text, so `0042` does not become 42."""
    columns = ", ".join(f'"{column.name}"' for column in artifact.contract.columns)
    files = ", ".join(f"'{_quoted(str(path))}'" for path in artifact.files())
    if files:
        hive = bool(artifact.contract.partitioned_by)
        source = f"read_parquet([{files}], hive_partitioning = {hive}, hive_types_autocast = false)"
    else:
        source = f'"{name}_without_rows"'
        connection.register(f"{name}_without_rows", artifact.read())
    connection.execute(f'create view "{name}" as select {columns} from {source}')


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def _distinct(names: Iterator[str]) -> tuple[str, ...]:
    """Names with `_1` appended to those that occur again."""
    distinct: dict[str, None] = {}
    for name in names:
        while name in distinct:
            name += "_1"  # noqa: PLW2901
        distinct[name] = None
    return tuple(distinct)


def _rows(connection: DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while rows := connection.fetchmany(_FETCHED):
        yield from rows
