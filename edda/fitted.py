"""Runs from Python: of a file, or of interactions in memory, and what they recommend."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
import tomli_w

from data_contracts.contracts import METRICS
from data_contracts.open_store import open_store
from data_contracts.store.artifact import Artifact
from data_contracts.store.files import write_alone
from flows.config.errors import NAME_RULE
from flows.config.run_config import RUN_NAME, RunSpec, flatten, store_location, store_override
from flows.orchestration.up_to_date import bring_up_to_date
from flows.output.console import watcher
from flows.runner.lookup import RunView, build_view
from flows.serve.open_run import exported_run, open_view
from model.serving.ids import UnknownError
from model.serving.recommender import Ranking, Recommender
from pipeline.logs.parquet import is_readable

Frame = Any
"""A pandas or Polars frame, an Arrow table, or anything else that speaks Arrow's C stream interface."""


@dataclass(frozen=True)
class Model:
    """A run that recommends.

    Attributes:
        view: the run's name, settings and artifacts.
    """

    view: RunView

    @cached_property
    def recommender(self) -> Recommender:
        """Answers for single users; `recommend` asks it."""
        return open_view(self.view)

    @property
    def domains(self) -> list[str]:
        """Names of the domains, ascending."""
        return self.recommender.domains

    @property
    def artifacts(self) -> Mapping[str, Artifact]:
        """By role, e.g. `pairs`; `read()` of each gives an Arrow table, `path` is its folder of Parquet files."""
        return self.view.artifacts

    def metrics(self) -> pa.Table:
        """The artifact `metrics`: value and 95 % interval by seed, domain, split, stratum and metric."""
        return self.artifacts[METRICS.name].read()

    def recommend(self, users: str | Sequence[str], domain: str | None = None, *, top: int = 20) -> pa.Table:
        """The best items for users, without those that they are known to have in the domain.

        Args:
            users: an id, or several.
            domain: of the items; None: every domain in which a user can be answered.
            top: items for each user and domain, at most.

        Returns:
            domain (string), user_id (string), rank (int64, from 1), item_id (string), score (double); no row for a user
            who has all items already.

        Raises:
            UnknownError: no such domain, or a user whom none of the domains can answer.
        """
        wanted = _as_ids(users, top)
        rows: list[dict[str, Any]] = []
        answered: set[str] = set()
        for name in self.domains if domain is None else [_as_text("domain", domain)]:
            for user, ranking in self.recommender.for_users(name, wanted, top).items():
                if ranking:
                    answered.add(user)
                    rows += _rows(name, user, ranking)
        if unknown := [user for user in wanted if user not in answered]:
            where = "no domain" if domain is None else f"not {domain}"
            raise UnknownError(
                f"{where} has items for user {unknown[0]!r}"
                + (f" and {len(unknown) - 1} others" if len(unknown) > 1 else "")
            )
        return pa.Table.from_pylist(rows, _LISTS)

    def recommend_for(self, items: str | Sequence[str], domain: str, *, top: int = 20) -> pa.Table:
        """The best items of a domain for somebody new who has these items, or this one, of any domain.

        Returns:
            As `recommend`, with an empty user_id.

        Raises:
            UnknownError: no such domain, or none of the items contributes anything in it.
        """
        ranking = self.recommender.for_new_user(_as_text("domain", domain), _as_ids(items, top), top)
        return pa.Table.from_pylist(_rows(domain, "", ranking), _LISTS)

    def similar(self, item: str, domain: str, *, top: int = 20) -> pa.Table:
        """The items of a domain that are most like one of its items; as `recommend`, with an empty user_id.

        Raises:
            UnknownError: no such domain, or no such item in it.
        """
        (wanted,) = _as_ids([item], top)
        ranking = self.recommender.similar(_as_text("domain", domain), wanted, top)
        return pa.Table.from_pylist(_rows(domain, "", ranking), _LISTS)


_LISTS = pa.schema(
    {"domain": pa.string(), "user_id": pa.string(), "rank": pa.int64(), "item_id": pa.string(), "score": pa.float64()}
)


def _rows(domain: str, user: str, ranking: Ranking) -> list[dict[str, Any]]:
    return [
        {"domain": domain, "user_id": user, "rank": scored.rank, "item_id": scored.item, "score": scored.score}
        for scored in ranking.items
    ]


def _as_ids(ids: Any, top: int) -> list[str]:
    """Ids of users or items as a list: one, or several of a list, an array or a column; also checks `top`.

    Raises:
        ValueError: `top` is below 1.
        TypeError: an id is no text, or `top` no integer.
    """
    if not isinstance(top, int | np.integer) or top < 1:
        error = ValueError if isinstance(top, int | np.integer) else TypeError
        raise error(f"top is {top!r}, must be an integer from 1 on")
    several = [ids] if isinstance(ids, str | bytes) or not hasattr(ids, "__iter__") else ids
    return [_as_text("id", each) for each in (several.to_pylist() if hasattr(several, "to_pylist") else several)]


def _as_text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} {value!r} is of type {type(value).__name__}, must be text, e.g. {str(value)!r}")
    return value


def run(path: str | Path, *overrides: str, store: str | None = None) -> Model:
    """Bring a run up to date, as the command `edda run` does; what exists is not made again.

    Args:
        path: its TOML file.
        overrides: of its settings, e.g. "train.epochs=5".
        store: path or address of the store; by default the file's, else $EDDA_STORE, else ./edda-store.

    Raises:
        ConfigError: the file or an override is wrong; all errors at once.
    """
    spec = RunSpec(Path(path), (*overrides, *store_override(store)))
    (outcome,) = bring_up_to_date([spec], None, watcher(), prefect=False)
    return Model(build_view(outcome))


def load(name: str, store: str | None = None) -> Model:
    """A finished run, by its name in the store or its TOML file.

    Raises:
        UnknownError: the run has no embeddings.
    """
    return Model(exported_run(name, store))


def fit(
    interactions: Frame | Mapping[str, Frame],
    *,
    user: str = "user_id",
    item: str = "item_id",
    domain: str = "domain",
    timestamp: str | None = None,
    name: str = "fit",
    store: str | None = None,
    **settings: Mapping[str, Any],
) -> Model:
    """Fit the model to interactions: each row is a positive.

    They are kept as Parquet in the store, beside the run's TOML file, so the same interactions with the same settings
    are not fitted twice, and `edda report`, `serve` and all other commands know the run by its name.

    Args:
        interactions: a frame with columns for user, item and domain; or by domain frames without the last, or sparse
            matrices of users × items, where an entry that is not 0 is an interaction. The user of row n is called
            "n" in all domains, the item of column n "<domain>-n".
        user, item, domain: names of the columns.
        timestamp: name of the column of times, if there is one.
        name: of the run.
        store: path of the store; by default $EDDA_STORE, else ./edda-store.
        settings: tables of the run's file, e.g. `train={"epochs": 20}`, `ingest={"split": {"method": "time", …}}`.

    Raises:
        ValueError: a frame has no such column or no rows, a matrix has NaN, or a setting or the name is wrong.
        TypeError: something is neither a frame nor a matrix, or a column or a setting is of a type that none can be.
    """
    if not isinstance(name, str) or not re.fullmatch(RUN_NAME, name):  # it becomes a path
        raise ValueError(f"edda.fit: name is {name!r}, must be {NAME_RULE}")
    columns = {"user": user, "item": item} | ({"timestamp": timestamp} if timestamp else {})
    if isinstance(interactions, Mapping):
        tables = {key: _as_table(each, columns, _as_text("domain", key)) for key, each in interactions.items()}
        _require_rows(tables, settings)
        keys = [{"domain": key} for key in tables]
    else:
        columns["domain"] = domain
        tables, keys = {"": _as_table(interactions, columns, None)}, [{}]
        _require_rows(tables, settings)
    root = open_store(store or store_location()).root
    paths = [_keep(root, table) for table in tables.values()]
    logs = [{"path": path, "columns": columns, **key} for path, key in zip(paths, keys, strict=True)]
    path = root / "frames" / f"{name}.toml"
    write_alone(path, _as_toml({"name": name, "logs": logs, **settings}).encode())
    return run(path, store=str(root))


def _require_rows(tables: Mapping[str, pa.Table], settings: Mapping[str, Any]) -> None:
    """Check that every domain has interactions, unless a setting lets it vanish, and that no two have the same ones.

    Raises:
        ValueError: one has none, or two are equal; names them.
    """
    ingest = settings.get("ingest")
    may_be_empty = isinstance(ingest, Mapping) and ingest.get("kept_share_at_least") == 0
    empty = [name for name, table in tables.items() if not table.num_rows]
    if len(empty) == len(tables) or (empty and not may_be_empty):
        where = f"domain {empty[0]!r} has" if empty and empty[0] else "there are"
        raise ValueError(f"edda.fit: {where} no interactions, must be at least one")
    for (name, table), (other, others) in combinations(tables.items(), 2):
        if table.equals(others):
            raise ValueError(f"edda.fit: domains {name!r} and {other!r} have the same interactions, must differ")


def _as_toml(values: Mapping[str, Any]) -> str:
    """Values as TOML.

    Raises:
        TypeError: TOML has no such value; names its key.
    """
    try:
        return tomli_w.dumps(values)
    except TypeError:
        for key, value in flatten(values):
            _require_toml(key, value)
        raise


def _require_toml(key: str, value: Any) -> None:
    try:
        tomli_w.dumps({key: value})
    except TypeError as error:
        kind = type(value).__name__
        rule = "a number, text, True or False, or a list or mapping of these; leave it out for its default"
        raise TypeError(f"edda.fit: {key} is {value!r} ({kind}), must be {rule}") from error


def _as_table(frame: Frame, columns: Mapping[str, str], domain: str | None) -> pa.Table:
    """The columns of a frame, or the entries of a domain's matrix, as Arrow has them.

    Raises:
        ValueError: it has no such column, or a matrix has NaN or other than two dimensions.
        TypeError: it is neither a frame nor a matrix, or a column is of a type that no log has.
    """
    if sp.issparse(frame) or isinstance(frame, np.ndarray):
        return _entries(frame, columns, domain)
    what = "interactions are" if domain is None else f"the interactions of domain {domain!r} are"
    try:
        table = frame if isinstance(frame, pa.Table) else pa.table(frame)
    except (TypeError, ValueError, NotImplementedError) as error:  # Arrow's errors are of all three
        if not hasattr(frame, "columns"):
            kind = type(frame).__name__
            raise TypeError(f"edda.fit: {what} a {kind}, must be a frame, an Arrow table or a matrix") from error
        reason = "; ".join(map(str, error.args)) if isinstance(error, pa.ArrowException) else str(error)
        remedy = "make each column one type, e.g. by astype(str), or drop it"
        raise TypeError(f"edda.fit: {what} a frame that Arrow cannot read: {reason}; {remedy}") from error
    for name in columns.values():
        times = table.column_names.count(name)
        if times != 1:
            found, known = f"column {name!r} {times} times" if times else f"no column {name!r}", table.column_names
            raise ValueError(f"edda.fit: the frame has {found}; it has {', '.join(known)}; name yours, e.g. user=…")
        if not is_readable(type_ := table.schema.field(name).type):
            raise TypeError(f"edda.fit: column {name!r} is {type_}, must be text, numbers, times or booleans")
    return pa.table({name: _as_plain_text(table[name]) for name in columns.values()})


def _entries(matrix: Any, columns: Mapping[str, str], domain: str | None) -> pa.Table:
    """A row for each entry of a matrix that is not 0."""
    if domain is None:
        raise TypeError('edda.fit: a matrix has no domain, must be given by domain, e.g. {"books": matrix}')
    if matrix.ndim != 2 or matrix.dtype.kind not in "biuf":
        found = f"{matrix.dtype} of {matrix.ndim} dimensions"
        raise ValueError(f"edda.fit: the matrix of domain {domain!r} is {found}, must be numbers of users × items")
    entries = sp.coo_array(matrix if sp.issparse(matrix) else np.ma.filled(matrix, 0))
    if np.isnan(entries.data).any():
        rule = "0 where there is no interaction; e.g. numpy.nan_to_num(matrix)"
        raise ValueError(f"edda.fit: the matrix of domain {domain!r} has NaN, must have {rule}")
    rows, places = entries.nonzero()
    items = [f"{domain}-{number}" for number in places.tolist()]
    return pa.table({columns["user"]: pa.array(rows).cast(pa.string()), columns["item"]: items})


def _as_plain_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text of any of Arrow's kinds as `string`, so that frames of all libraries are the same log; else unchanged."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return column.cast(pa.string()) if is_text else column


def _keep(root: Path, table: pa.Table) -> str:
    """Write a table into the store, named after its content, unless it is there; returns its path as a pattern."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content = sink.getvalue().to_pybytes()
    path = root / "frames" / f"{hashlib.sha256(content).hexdigest()[:20]}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != content:
        write_alone(path, content)
    return glob.escape(str(path.absolute()))
