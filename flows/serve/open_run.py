"""Open a recorded run for recommending."""

from __future__ import annotations

import logging

from data_contracts.contracts import EMBEDDINGS
from data_contracts.open_store import store_of
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from flows.runner.lookup import find_run
from model.serving.ids import UnknownError
from model.serving.recommender import Recommender

log = logging.getLogger(__name__)


def open_run(run: str, store: str | None, *, index: bool = False) -> Recommender:
    """The recommender of a run.

    Args:
        run: a run's name in the store, or its TOML file.
        store: folder of all artifacts, or its address; without it the file's, else the default.
        index: search by the run's index, in place of exactly.

    Raises:
        UnknownError: the run has no embeddings, or no index.
    """
    _, artifacts, home = exported_run(run, store)
    if not index:
        return Recommender(artifacts)
    from model.serving.approximate import find_index, open_index

    found = find_index(home, artifacts)
    if found is None:
        raise UnknownError(f"run {run} has no index of what it serves yet; make it with: edda index {run}")
    return Recommender(artifacts, open_index(found))


def exported_run(run: str, store: str | None) -> tuple[str, dict[str, Artifact], Store]:
    """A run's name, its artifacts and the store they are in.

    Raises:
        UnknownError: the run has no embeddings.
    """
    name, artifacts, missing = find_run(run, store)
    if EMBEDDINGS.name not in artifacts:
        raise UnknownError(f"run {run} has no embeddings yet; {missing or 'make them with: edda export RUN.toml'}")
    if missing:
        log.warning("%s; what follows was made before", missing)
    return name, artifacts, store_of(artifacts[EMBEDDINGS.name])
