"""SQL queries over artifacts: each artifact is a view in DuckDB, with its partition columns.

DuckDB sees neither files nor the network. Statements may hide a COPY in a WITH, and functions read files, so what a
statement may touch is not decided by its text: DuckDB scans Arrow data sets that Python reads, and everything else is
switched off and locked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from data_contracts.store.artifact import Artifact

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, Statement
    from pyarrow.dataset import Dataset

_FETCHED = 1024
"""Rows that are fetched from DuckDB at a time."""

_LOCKED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,  # a table's name is no variable of this program
    "temp_directory": "",  # nothing is spilled to disk
    "lock_configuration": True,
}
"""DuckDB without files, network, extensions that are not built in, and without a way to switch them on."""

_NO_FILES: Mapping[str, Path] = MappingProxyType({})


class QueryError(ValueError):
    """SQL that is wrong, or that does more than read."""


@dataclass(frozen=True)
class QueryResult:
    """The result of a query: distinct names of columns, and rows, which are fetched as they are consumed."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]


@contextmanager
def ask(
    artifacts: Mapping[str, Artifact], sql: str, missing: str | None = None, joined: Mapping[str, Path] = _NO_FILES
) -> Iterator[QueryResult]:
    """Run one SELECT over artifacts; it cannot change anything, and reads nothing but them and the files given.

    Args:
        artifacts: by role; a role's view has underscores in place of its hyphens (`checkpoint_2022`).
        sql: one DuckDB statement that reads: SELECT, FROM, WITH, DESCRIBE, SUMMARIZE, SHOW.
        missing: which artifacts an unfinished run lacks, as text for the error message.
        joined: further files by the names of their views.

    Raises:
        QueryError: the statement is wrong, there is not exactly one, or it would write; the message names the views.
        OSError: a file is missing or damaged.
    """
    import duckdb

    from data_contracts.store.dataset import ArtifactDataset
    from flows.inspection.joined_files import open_joined_files

    scanned = {role.replace("-", "_"): ArtifactDataset(artifact) for role, artifact in artifacts.items()}
    views: dict[str, Dataset] = {**scanned, **open_joined_files(joined, scanned)}
    try:
        with duckdb.connect(config=_LOCKED) as connection:
            kinds = [_kind(statement) for statement in connection.extract_statements(sql)]
            if kinds != ["SELECT"]:
                rule = "must be one statement that reads, e.g. select * from pairs limit 5"
                raise QueryError(f"--sql is {', '.join(kinds) or 'nothing'}, {rule}")
            for name, view in views.items():
                connection.register(name, view)
            connection.execute(sql)
            yield QueryResult(_distinct(column[0] for column in connection.description), _rows(connection))
    except duckdb.Error as error:
        for view in scanned.values():
            if view.error is not None:
                raise view.error from error
        hint = f"; {missing}" if missing else ""
        raise QueryError(f"{error}\nviews: {', '.join(views) or 'none'}{hint}") from error


def _kind(statement: Statement) -> str:
    try:
        return str(statement.type.name)
    except ValueError:  # DuckDB has kinds of statements that its Python package cannot name
        return "UNKNOWN"


def parse_joined_files(texts: Sequence[str]) -> dict[str, Path]:
    """Parse texts `NAME=FILE`.

    Raises:
        ValueError: a text has another form, or a name occurs twice.
    """
    files: dict[str, Path] = {}
    for text in texts:
        name, _, file = text.partition("=")
        if not (name and file):
            raise ValueError(f"--with is {text!r}, must be NAME=FILE, e.g. prices=prices.csv")
        if name in files:
            raise ValueError(f"--with names {name!r} twice; choose two names")
        files[name] = Path(file)
    return files


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
