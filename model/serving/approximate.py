"""Approximate search: candidates from a graph over each domain's items (HNSW) and from a user's evidence.

The served score is a sum of two parts. A top item has a large dot product, and then a search of the graph by inner
product finds it, or it has evidence, and then it is a neighbour of the history. The union of both is scored exactly.
Needs faiss, the extra `ann`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from data_contracts.contracts import INDEX
from data_contracts.progress import Progress, silent
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from data_contracts.store.files import damaged_file_error
from data_contracts.store.manifest import artifact_key
from data_contracts.store.store import Store
from model.serving.exact import TopK, top_items
from model.serving.scorer import DomainScorer, DomainScorers, Query, served_artifacts
from model.sparse.rows import Ints, Longs

try:
    import faiss
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("an index needs faiss, which is not installed; run `pip install -e '.[ann]'`") from error

SETTINGS = {
    "links": 32,
    "build_breadth": 200,
    "search_breadth": 256,
    "candidates_by_vectors": 40,
    "candidates_by_evidence": 1024,
}
"""Links of an item; breadth of a search while the index is built, and at least when it is queried; candidates by inner
product beyond the requested and the excluded items; candidates by evidence, at most."""

Floats = NDArray[np.float64]

_BLOCK = 16_384
"""Items added to an index at once."""
_COMPARED_USERS = 200
"""Users, at most, for whom a domain's index is compared with exact search."""
_RECALL_AT = 20


def build_index(store: Store, artifacts: Mapping[str, Artifact], progress: Progress = silent) -> Artifact:
    """Index every domain's items and compare each index with exact search, one user at a time on one thread.

    Built on one thread, so that the same vectors give the same bytes.

    Args:
        store: where the artifact lives.
        artifacts: the run's, by role.
        progress: called after each block of items.

    Returns:
        An `index` artifact; its parents are all artifacts that recommendations depend on, because it measures recall.
    """

    def write(draft: Draft) -> None:
        with threadpool_limits(1):
            scorers = DomainScorers(artifacts)
            rows = [_build_domain_index(scorers[name], draft, progress) for name in scorers.domains]
        draft.write(pa.Table.from_pylist(rows, schema=INDEX.file_schema))

    return store.make(INDEX, SETTINGS, served_artifacts(artifacts), write)


def find_index(store: Store, artifacts: Mapping[str, Artifact]) -> Artifact | None:
    """The index of a run's recommendations, or None."""
    keys = {role: parent.key for role, parent in served_artifacts(artifacts).items()}
    return store.find(INDEX, artifact_key(INDEX, SETTINGS, keys))


class IndexSearch:
    """Finds top items as `model.serving.exact.top_items` does, by indexes; may be used from several threads.

    The search is exact if a quarter of all items would be candidates, if too few candidates are found, or if only some
    items are allowed.

    Args:
        indexes: faiss's index of each domain's items.
    """

    def __init__(self, indexes: Mapping[str, Any]) -> None:
        self._indexes = indexes

    def __call__(self, scorer: DomainScorer, query: Query, top: int) -> TopK:
        """As `top_items`; some of the best items may be missing, but all scores are exact."""
        index = self._indexes[scorer.catalogue.domain]
        wanted = top + SETTINGS["candidates_by_vectors"] + int(np.diff(query.indptr).max(initial=0))
        if wanted * 4 > index.ntotal or query.allowed is not None:
            return top_items(scorer, query, top)
        breadth = faiss.SearchParametersHNSW(  # type: ignore[attr-defined] # its stubs lack it
            efSearch=max(SETTINGS["search_breadth"], 2 * wanted)
        )
        _, nearest = index.search(np.ascontiguousarray(query.vectors), wanted, params=breadth)
        rows = [_rank_candidates(scorer, query[row : row + 1], nearest[row], top) for row in range(len(query))]
        if not rows:
            return np.empty((0, top), np.int32), np.empty((0, top), np.float32)
        items, scores = zip(*rows, strict=True)
        return np.concatenate(items, dtype=np.int32, casting="same_kind"), np.concatenate(scores)


def open_index(artifact: Artifact) -> IndexSearch:
    """Read an `index` artifact into memory.

    Raises:
        OSError: a file is missing or damaged.
    """
    sizes = {row["domain"]: row["items"] for row in artifact.read(["domain", "items"]).to_pylist()}
    return IndexSearch({domain: _open_domain_index(artifact, domain, size) for domain, size in sizes.items()})


def _open_domain_index(artifact: Artifact, domain: str, size: int) -> Any:
    path = artifact.checked(_index_file(domain))
    try:
        index = faiss.read_index(str(path))
    except RuntimeError as error:
        raise damaged_file_error(path, artifact.folder, error) from error
    items = index.ntotal if isinstance(index, faiss.IndexHNSWFlat) else "no"
    if items != size:
        raise damaged_file_error(path, artifact.folder, f"it has {items} items, must have {size}")
    return index


def _rank_candidates(scorer: DomainScorer, query: Query, nearest: Longs, top: int) -> TopK:
    """The top items of one user among the nearest to the user's vector and those with the most evidence."""
    evidence = scorer.user_evidence(query)
    most = SETTINGS["candidates_by_evidence"] + query.excluded.size
    neighbours = evidence.items
    if neighbours.size > most:
        neighbours = neighbours[np.argpartition(-evidence.weighted, most)[:most]]
    candidates = np.setdiff1d(np.union1d(nearest[nearest >= 0], neighbours), query.excluded, assume_unique=True)
    if candidates.size < top:
        return top_items(scorer, query, top)
    scores = evidence.blend(scorer.catalogue.items[candidates] @ query.vectors[0], candidates)
    best = np.argsort(-scores, kind="stable")[:top]
    return candidates[None, best], scores[None, best]


def _build_domain_index(scorer: DomainScorer, draft: Draft, progress: Progress) -> dict[str, Any]:
    """Write one domain's index; returns its row of the table."""
    catalogue = scorer.catalogue
    size, width = catalogue.items.shape
    index = faiss.IndexHNSWFlat(width, SETTINGS["links"], faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = SETTINGS["build_breadth"]
    for start in range(0, size, _BLOCK):
        index.add(np.ascontiguousarray(catalogue.items[start : start + _BLOCK]))
        progress(min(start + _BLOCK, size), size, "items", catalogue.domain)
    path = draft.folder / _index_file(catalogue.domain)
    path.parent.mkdir(exist_ok=True)
    faiss.write_index(index, str(path))
    return {"domain": catalogue.domain, "items": size, **_compare(scorer, IndexSearch({catalogue.domain: index}))}


def _compare(scorer: DomainScorer, search: IndexSearch) -> dict[str, float]:
    """Recall and speed of a search, and the speed of the exact one, over evenly spaced users."""
    size = len(scorer.catalogue.users)
    users = np.arange(0, size, -(-size // _COMPARED_USERS) or 1)
    exact, exact_seconds = _time_queries(scorer, users, top_items)
    approximate, approximate_seconds = _time_queries(scorer, users, search)
    missed = sum((~np.isin(wanted[wanted >= 0], items)).sum() for wanted, items in zip(exact, approximate, strict=True))
    return {
        "recall": 1.0 - float(missed / max((exact >= 0).sum(), 1)),
        **_latencies("exact", exact_seconds),
        **_latencies("index", approximate_seconds),
    }


def _time_queries(scorer: DomainScorer, users: Longs, search: Callable[..., TopK]) -> tuple[Ints, Floats]:
    """The top items of each user, queried one at a time, and the seconds that each query took."""
    answers, seconds = [], np.empty(users.size)
    if users.size:
        search(scorer, scorer.query(users[:1]), _RECALL_AT)  # loads compiled code before the clock starts
    for number in range(users.size):
        began = time.perf_counter()
        answers.append(search(scorer, scorer.query(users[number : number + 1]), _RECALL_AT)[0])
        seconds[number] = time.perf_counter() - began
    return np.concatenate(answers or [np.empty((0, 0), np.int32)]), seconds


def _latencies(name: str, seconds: Floats) -> dict[str, float]:
    """Median and 99th percentile in milliseconds."""
    times = np.percentile(seconds * 1e3, [50, 99]) if seconds.size else [0.0, 0.0]
    return {f"{name}_p50": float(times[0]), f"{name}_p99": float(times[1])}


def _index_file(domain: str) -> str:
    return f"items/{quote(domain, safe='')}.faiss"
