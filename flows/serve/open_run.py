"""Open a recorded run for recommending."""

from __future__ import annotations

import logging

from data_contracts.contracts import EMBEDDINGS
from flows.runner.lookup import RunView, find_run
from model.serving.ids import UnknownError
from model.serving.recommender import Recommender

log = logging.getLogger(__name__)


def open_run(run: str, store: str | None, *, index: bool = False) -> Recommender:
    """Open the recommender of a run.

    Args:
        run: a run's name in the store, or its TOML file.
        store: path or address of the store; by default the file's, else $EDDA_STORE, else ./edda-store.
        index: search with the run's approximate index instead of exactly.

    Raises:
        UnknownError: the run has no embeddings, or no index.
    """
    return open_view(exported_run(run, store), index=index)


def open_view(view: RunView, *, index: bool = False) -> Recommender:
    """Open the recommender of a run that was looked up, as `open_run` does.

    Raises:
        UnknownError: the run has no index.
    """
    if not index:
        return Recommender(view.artifacts)
    from model.serving.approximate import find_index, open_index  # needs the extra `ann`

    artifact = find_index(view.store, view.artifacts)
    if artifact is None:
        raise UnknownError(f"run {view.name} has no index of what it serves yet; build it with: edda index {view.name}")
    return Recommender(view.artifacts, open_index(artifact))


def exported_run(run: str, store: str | None) -> RunView:
    """Look up a run that has embeddings, by its name or TOML file.

    Raises:
        UnknownError: the run has no embeddings.
    """
    return require_embeddings(find_run(run, store))


def require_embeddings(view: RunView) -> RunView:
    """The same run, which has embeddings; a warning if it is not finished.

    Raises:
        UnknownError: it has none.
    """
    if EMBEDDINGS.name not in view.artifacts:
        remedy = view.missing or "make them with: edda export RUN.toml"
        raise UnknownError(f"run {view.name} has no embeddings yet; {remedy}")
    if view.missing:
        log.warning("%s; using what was made before", view.missing)
    return view
