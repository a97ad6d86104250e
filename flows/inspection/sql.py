"""Questions in SQL to artifacts: each is a view in DuckDB, its partition columns among the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_contracts.store.artifact import Artifact

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_FETCHED = 1024
"""Rows that are taken from DuckDB at a time."""


class QueryError(ValueError):
    """SQL that is wrong, or does more than look."""


@dataclass(frozen=True)
class Answer:
    """What a query found: the columns' names, each once, and the rows, read as they are asked for."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]


@contextmanager
def ask(artifacts: Mapping[str, Artifact], sql: str, missing: str | None = None) -> Iterator[Answer]:
    """Run one SELECT over artifacts; nothing can be changed by it.

    Args:
        artifacts: by role; a role's view has underscores in place of its hyphens (`checkpoint_2022`).
        sql: one statement of DuckDB's that reads: SELECT, FROM, WITH, DESCRIBE, SUMMARIZE, SHOW.
        missing: what of an unfinished run there is no view of, in words; told where the statement is wrong.

    Raises:
        QueryError: the statement is wrong, there is not one, or it would write; the message names the views.
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
            yield Answer(_distinct(column[0] for column in connection.description), _rows(connection))
    except duckdb.Error as error:
        hint = f"; {missing}" if missing else ""
        raise QueryError(f"{error}\nviews: {', '.join(views) or 'none'}{hint}") from error


def _create_view(connection: DuckDBPyConnection, name: str, artifact: Artifact) -> None:
    """Columns in the contract's order; partition values stay text, so that `0042` is no number."""
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
    """A name that comes again gets `_1` behind it."""
    found: dict[str, None] = {}
    for name in names:
        while name in found:
            name += "_1"  # noqa: PLW2901
        found[name] = None
    return tuple(found)


def _rows(connection: DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while rows := connection.fetchmany(_FETCHED):
        yield from rows
