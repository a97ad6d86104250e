"""Runs from Python: of a file, or of interactions in memory, and what they recommend."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
from flows.config.run_config import RunSpec, store_location, store_override
from flows.orchestration.up_to_date import bring_up_to_date
from flows.output.console import watcher
from flows.runner.lookup import RunView, build_view
from flows.serve.open_run import exported_run, open_view
from model.serving.ids import UnknownError
from model.serving.recommender import Ranking, Recommender

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
            domain (string), user_id (string), rank (int64, from 1), item_id (string), score (double).

        Raises:
            UnknownError: no such domain, or a user whom none of the domains can answer.
        """
        wanted = [users] if isinstance(users, str) else list(users)
        rows: list[dict[str, Any]] = []
        for name in self.domains if domain is None else [domain]:
            rankings = self.recommender.for_users(name, wanted, top)
            rows += [row for user, ranking in rankings.items() if ranking for row in _rows(name, user, ranking)]
        answered = {row["user_id"] for row in rows}
        if unknown := [user for user in wanted if user not in answered]:
            where = "no domain" if domain is None else f"not {domain}"
            raise UnknownError(
                f"{where} has items for user {unknown[0]!r}"
                + (f" and {len(unknown) - 1} others" if len(unknown) > 1 else "")
            )
        return pa.Table.from_pylist(rows, _LISTS)

    def recommend_for(self, items: Sequence[str], domain: str, *, top: int = 20) -> pa.Table:
        """The best items of a domain for somebody new who has these items, of any domain.

        Returns:
            As `recommend`, with an empty user_id.

        Raises:
            UnknownError: no such domain, or none of the items contributes anything in it.
        """
        ranking = self.recommender.for_new_user(domain, items, top)
        return pa.Table.from_pylist(_rows(domain, "", ranking), _LISTS)

    def similar(self, item: str, domain: str, *, top: int = 20) -> pa.Table:
        """The items of a domain that are most like one of its items; as `recommend`, with an empty user_id.

        Raises:
            UnknownError: no such domain, or no such item in it.
        """
        return pa.Table.from_pylist(_rows(domain, "", self.recommender.similar(domain, item, top)), _LISTS)


_LISTS = pa.schema(
    {"domain": pa.string(), "user_id": pa.string(), "rank": pa.int64(), "item_id": pa.string(), "score": pa.float64()}
)


def _rows(domain: str, user: str, ranking: Ranking) -> list[dict[str, Any]]:
    return [
        {"domain": domain, "user_id": user, "rank": scored.rank, "item_id": scored.item, "score": scored.score}
        for scored in ranking.items
    ]


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
        ValueError: a frame has no such column, or a setting is wrong.
    """
    root = open_store(store or store_location()).root
    columns = {"user": user, "item": item} | ({"timestamp": timestamp} if timestamp else {})
    if isinstance(interactions, Mapping):
        logs = [
            {"path": _keep(root, _as_table(of_domain, columns, name)), "columns": columns, "domain": name}
            for name, of_domain in interactions.items()
        ]
    else:
        columns["domain"] = domain
        logs = [{"path": _keep(root, _as_table(interactions, columns, "")), "columns": columns}]
    path = root / "frames" / f"{name}.toml"
    write_alone(path, tomli_w.dumps({"name": name, "logs": logs, **settings}).encode())
    return run(path, store=str(root))


def _as_table(frame: Frame, columns: Mapping[str, str], domain: str) -> pa.Table:
    """The columns of a frame, or the entries of a matrix, as Arrow has them.

    Raises:
        ValueError: it has no such column.
        TypeError: it is neither a frame nor a matrix.
    """
    if sp.issparse(frame) or isinstance(frame, np.ndarray):
        rows, places = sp.coo_array(frame).nonzero()
        items = [f"{domain}-{number}" for number in places.tolist()]
        return pa.table({columns["user"]: pa.array(rows).cast(pa.string()), columns["item"]: items})
    try:
        table = frame if isinstance(frame, pa.Table) else pa.table(frame)
    except (TypeError, ValueError) as error:
        kind = type(frame).__name__
        raise TypeError(f"edda.fit: interactions are a {kind}, must be a frame, an Arrow table or a matrix") from error
    for name in columns.values():
        if name not in table.column_names:
            known = ", ".join(table.column_names)
            raise ValueError(f"edda.fit: the frame has no column {name!r}; it has {known}; name yours, e.g. user=…")
    return pa.table({name: _as_plain_text(table[name]) for name in columns.values()})


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
