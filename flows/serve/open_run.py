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
    view = exported_run(run, store)
    if not index:
        return Recommender(view.artifacts)
    from model.serving.approximate import find_index, open_index  # needs the extra `ann`

    artifact = find_index(view.store, view.artifacts)
    if artifact is None:
        raise UnknownError(f"run {run} has no index of what it serves yet; build it with: edda index {run}")
    return Recommender(view.artifacts, open_index(artifact))


def exported_run(run: str, store: str | None) -> RunView:
    """Look up a run that has embeddings, by its name or TOML file.

    Raises:
        UnknownError: the run has no embeddings.
    """
    view = find_run(run, store)
    if EMBEDDINGS.name not in view.artifacts:
        raise UnknownError(f"run {run} has no embeddings yet; {view.missing or 'make them with: edda export RUN.toml'}")
    if view.missing:
        log.warning("%s; using what was made before", view.missing)
    return view
