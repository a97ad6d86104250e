"""Approximate search: candidates from a graph over each domain's items (HNSW) and from a user's evidence.

The served score is a sum of two parts. An item that is among the best has a large dot product, and then a search of the
graph by inner product finds it, or it has evidence, and then the history's neighbours do. The union of both is scored
exactly. Needs faiss, the extra `ann`.
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
from data_contracts.store.artifact import Artifact, artifact_key
from data_contracts.store.draft import Draft
from data_contracts.store.store import Store
from model.serving.exact import Best, best_items
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
"""Links of an item; how many items a search keeps in view while the index is built, and at least when it is asked;
candidates by inner product beside the items asked for and those left out; most candidates by evidence."""

Floats = NDArray[np.float64]

_BLOCK = 16_384
"""Items added at once."""
_ASKED = 200
"""Users, at most, by whom a domain's index is compared with exact search."""
_RECALL_AT = 20


def build_index(store: Store, artifacts: Mapping[str, Artifact], progress: Progress = silent) -> Artifact:
    """Index every domain's items and compare each index with exact search, one user at a time on one thread.

    Built on one thread, so that the same vectors give the same bytes.

    Args:
        store: where the artifact lives.
        artifacts: the run's, by role.
        progress: told after each block of items.

    Returns:
        An `index` artifact, made of all that the lists depend on, since what it finds of them is measured.
    """

    def write(draft: Draft) -> None:
        with threadpool_limits(1):
            scorers = DomainScorers(artifacts)
            rows = [_indexed(scorers[name], draft, progress) for name in scorers.domains]
        draft.write(pa.Table.from_pylist(rows, schema=INDEX.file_schema))

    return store.make(INDEX, SETTINGS, served_artifacts(artifacts), write)


def find_index(store: Store, artifacts: Mapping[str, Artifact]) -> Artifact | None:
    """The index of what a run serves, or None."""
    keys = {role: parent.key for role, parent in served_artifacts(artifacts).items()}
    return store.find(INDEX, artifact_key(INDEX, SETTINGS, keys))


class IndexSearch:
    """Finds best items as `model.serving.exact.best_items` does, by indexes; safe to use from several threads.

    Exact where finding candidates beside the items left out means a quarter of all, and where there are too few.

    Args:
        indexes: faiss's index of each domain's items.
    """

    def __init__(self, indexes: Mapping[str, Any]) -> None:
        self._indexes = indexes

    def __call__(self, scorer: DomainScorer, query: Query, top: int) -> Best:
        """As `best_items`, with items that are nearly the best; their scores are exact."""
        index = self._indexes[scorer.catalogue.domain]
        wanted = top + SETTINGS["candidates_by_vectors"] + int(np.diff(query.indptr).max(initial=0))
        if wanted * 4 > index.ntotal:
            return best_items(scorer, query, top)
        breadth = faiss.SearchParametersHNSW(  # type: ignore[attr-defined] # its stubs lack it
            efSearch=max(SETTINGS["search_breadth"], 2 * wanted)
        )
        _, near = index.search(np.ascontiguousarray(query.vectors), wanted, params=breadth)
        rows = [_best_of(scorer, query[row : row + 1], near[row], top) for row in range(len(query))]
        if not rows:
            return np.empty((0, top), np.int32), np.empty((0, top), np.float32)
        items, scores = zip(*rows, strict=True)
        return np.concatenate(items, dtype=np.int32, casting="same_kind"), np.concatenate(scores)


def open_index(artifact: Artifact) -> IndexSearch:
    """Read an `index` artifact into memory."""
    domains = artifact.read(["domain"])["domain"].to_pylist()
    return IndexSearch({domain: faiss.read_index(str(artifact.path / _file(domain))) for domain in domains})


def _best_of(scorer: DomainScorer, query: Query, near: Longs, top: int) -> Best:
    """The best of one user's candidates: those near the user's vector, and those that evidence speaks for most."""
    evidence = scorer.evidence_of(query)
    most = SETTINGS["candidates_by_evidence"] + query.left_out.size
    reached = evidence.items
    if reached.size > most:
        reached = reached[np.argpartition(-evidence.weighted, most)[:most]]
    candidates = np.setdiff1d(np.union1d(near[near >= 0], reached), query.left_out, assume_unique=True)
    if candidates.size < top:
        return best_items(scorer, query, top)
    scores = evidence.blend(scorer.catalogue.items[candidates] @ query.vectors[0], candidates)
    best = np.argsort(-scores, kind="stable")[:top]
    return candidates[None, best], scores[None, best]


def _indexed(scorer: DomainScorer, draft: Draft, progress: Progress) -> dict[str, Any]:
    """Write one domain's index; its row of the table."""
    catalogue = scorer.catalogue
    size, width = catalogue.items.shape
    index = faiss.IndexHNSWFlat(width, SETTINGS["links"], faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = SETTINGS["build_breadth"]
    for start in range(0, size, _BLOCK):
        index.add(np.ascontiguousarray(catalogue.items[start : start + _BLOCK]))
        progress(min(start + _BLOCK, size), size, "items", catalogue.domain)
    path = draft.folder / _file(catalogue.domain)
    path.parent.mkdir(exist_ok=True)
    faiss.write_index(index, str(path))
    return {"domain": catalogue.domain, "items": size, **_compared(scorer, IndexSearch({catalogue.domain: index}))}


def _compared(scorer: DomainScorer, search: IndexSearch) -> dict[str, float]:
    """Recall and speed over users spread evenly."""
    size = len(scorer.catalogue.users)
    users = np.arange(0, size, -(-size // _ASKED) or 1)
    exact, exact_times = _asked(scorer, users, best_items)
    found, times = _asked(scorer, users, search)
    missed = sum((~np.isin(mine[mine >= 0], theirs)).sum() for mine, theirs in zip(exact, found, strict=True))
    return {
        "recall": 1.0 - float(missed / max((exact >= 0).sum(), 1)),
        **_milliseconds("exact", exact_times),
        **_milliseconds("index", times),
    }


def _asked(scorer: DomainScorer, users: Longs, search: Callable[..., Best]) -> tuple[Ints, Floats]:
    """The items of each user, asked one at a time, and the seconds that each took."""
    answers, seconds = [], np.empty(users.size)
    if users.size:
        search(scorer, scorer.query(users[:1]), _RECALL_AT)  # loads compiled code
    for number in range(users.size):
        began = time.perf_counter()
        answers.append(search(scorer, scorer.query(users[number : number + 1]), _RECALL_AT)[0])
        seconds[number] = time.perf_counter() - began
    return np.concatenate(answers or [np.empty((0, 0), np.int32)]), seconds


def _milliseconds(name: str, seconds: Floats) -> dict[str, float]:
    """Median and 99th percentile."""
    times = np.percentile(seconds * 1e3, [50, 99]) if seconds.size else [0.0, 0.0]
    return {f"{name}_p50": float(times[0]), f"{name}_p99": float(times[1])}


def _file(domain: str) -> str:
    return f"items/{quote(domain, safe='')}.faiss"
