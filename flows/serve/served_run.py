"""The generation of a run that is served, and the change to a new one while requests go on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import EMBEDDINGS
from data_contracts.store.runs import generation_id
from flows.runner.lookup import RunView, recorded_run
from flows.serve.aligned import AlignedNodes
from flows.serve.item_filters import ItemFilters, read_id_list
from flows.serve.items_file import ItemsFile
from flows.serve.open_run import exported_run, open_view, require_embeddings
from model.serving.catalogue import Catalogue
from model.serving.explanations import REASONS
from model.serving.recommender import Recommender
from model.serving.scorer import served_artifacts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunSource:
    """What to serve.

    Attributes:
        run: a run's name in the store, or its TOML file.
        store: path or address of the store; None as for `open_run`.
        index: search with the run's index.
        items: file of titles, pictures and other columns of items; by default the run's `serve.items`.
        allow, deny: files of items' ids, one a line: the only ones that are listed, and those that never are.
    """

    run: str
    store: str | None = None
    index: bool = False
    items: Path | None = None
    allow: Path | None = None
    deny: Path | None = None


@dataclass(frozen=True)
class Generation:
    """One whole generation of a run, opened for requests; never changes.

    Attributes:
        run: the run's name.
        id: of its configuration, as `edda runs` shows it; empty in records without one.
        key: of the embeddings, which changes whenever what is served does.
        made: when the embeddings were made, ISO 8601.
        recommender: ranks.
        catalogues: of the recommender, by domain.
        filters: which items may be listed.
        items: titles, pictures and other columns; None without an items file.
        aligned: the aligned pairs; None if the run has none.
    """

    run: str
    id: str
    key: str
    made: str
    recommender: Recommender
    catalogues: Mapping[str, Catalogue]
    filters: ItemFilters
    items: ItemsFile | None
    aligned: AlignedNodes | None

    @property
    def label(self) -> str:
        """The run with its generation, as commands take it."""
        return f"{self.run}@{self.id}" if self.id else self.run


class ServedRun:
    """A run that is served. Its present generation is read once for each request and swapped as a whole.

    Args:
        source: what to serve; the run is opened here, with all its domains, and answers one request for each.

    Raises:
        FileNotFoundError: no such run, or no such file.
        UnknownError: it has no embeddings, or no index.
        ValueError: a file is malformed.
    """

    def __init__(self, source: RunSource) -> None:
        self._source = source
        self._view = exported_run(source.run, source.store)
        self.generation = _open(self._view, source)
        self._wanted: SimpleQueue[None] = SimpleQueue()  # its `put` may be called by a signal handler

    def want_reload(self) -> None:
        """Let the thread of `keep_up_to_date` open the run again; returns at once."""
        self._wanted.put(None)

    def keep_up_to_date(self, seconds: float | None) -> threading.Thread:
        """Start a thread that reloads when that is wanted and, if given, looks for a new generation every few seconds.

        Args:
            seconds: between two looks; None: it never looks by itself.
        """

        def watch() -> None:
            while True:
                try:
                    self._wanted.get(timeout=seconds)
                    self.reload()
                except Empty:
                    self.reload(only_if_changed=True)

        thread = threading.Thread(target=watch, name="edda-reload", daemon=True)
        thread.start()
        return thread

    def reload(self, *, only_if_changed: bool = False) -> None:
        """Open what the run's name means now and serve it from the next request on.

        Requests in progress end with what they began with. If it cannot be opened, the present generation stays.
        """
        present = self.generation
        try:
            view = recorded_run(self._view.name, self._view.store)
            if only_if_changed and _keys(view) == _keys(self._view):
                return
            view = require_embeddings(view)
            self.generation = _open(view, self._source)
            self._view = view
        except Exception as error:  # whatever it is, requests are answered by what is open
            log.error("cannot reload, %s stays: %s: %s", present.label, type(error).__name__, error)
            return
        log.info("serving %s, made %s", self.generation.label, self.generation.made)


def _keys(view: RunView) -> dict[str, str]:
    """Role → key of what a run serves; empty if it has no embeddings."""
    if EMBEDDINGS.name not in view.artifacts:
        return {}
    return {role: artifact.folder.name for role, artifact in served_artifacts(view.artifacts).items()}


def _open(view: RunView, source: RunSource) -> Generation:
    recommender = open_view(view, index=source.index)
    catalogues = {name: recommender.catalogue(name) for name in recommender.domains}
    items, allow, deny = read_lists(source, view)
    filters = ItemFilters(catalogues, items, allow, deny)
    _say_unknown_ids(catalogues, {"the items file": items.ids if items else None, "--allow": allow, "--deny": deny})
    _load_compiled_code(recommender, list(catalogues.values()))
    embeddings = view.artifacts[EMBEDDINGS.name]
    return Generation(
        run=view.name.partition("@")[0],
        id=generation_id(dict(view.config)) if view.config else "",
        key=embeddings.folder.name,
        made=str(embeddings.manifest.made["at"]),
        recommender=recommender,
        catalogues=catalogues,
        filters=filters,
        items=items,
        aligned=AlignedNodes.open(view.artifacts, catalogues),
    )


def _say_unknown_ids(catalogues: Mapping[str, Catalogue], lists: Mapping[str, Sequence[str] | None]) -> None:
    """Say how many ids of a list are items of the run; warn of one that has none, as of another run's file."""
    for name, ids in lists.items():
        if ids is None or (name == "--deny" and not ids):
            continue
        given = pa.array(set(ids), pa.large_string())
        is_known = np.logical_or.reduce([pc.is_in(given, catalogue.item_ids) for catalogue in catalogues.values()])
        known, example = int(is_known.sum()), f", such as {ids[0]!r}" if ids else ""
        if known:
            log.info("%s: %s of %s ids are items of the run", name, f"{known:,}", f"{len(given):,}")
        else:
            log.warning("%s: none of %s ids%s is an item of the run", name, f"{len(given):,}", example)


def read_lists(source: RunSource, view: RunView) -> tuple[ItemsFile | None, list[str] | None, list[str]]:
    """The items file, by default that of the run's settings, the only ids that are listed, and those that never are.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is malformed.
    """
    path = source.items or view.config.get("serve", {}).get("items")
    items = ItemsFile(Path(path)) if path else None
    allow = read_id_list(source.allow) if source.allow else None
    return items, allow, read_id_list(source.deny) if source.deny else []


def _load_compiled_code(recommender: Recommender, catalogues: Sequence[Catalogue]) -> None:
    """Ask for one recommendation in each domain, so that the first request does not wait for compiled code."""
    for catalogue in catalogues:
        if len(catalogue.user_ids) and len(catalogue.item_ids):
            recommender.for_user(catalogue.domain, catalogue.user_ids[0].as_py(), 1, REASONS)
