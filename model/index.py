"""Approximate search: a graph over each domain's items (HNSW), by inner product. Needs faiss, the extra `ann`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits

from data_contracts.artifact import Artifact, artifact_key
from data_contracts.contracts import EMBEDDINGS, GRAPH, INDEX
from data_contracts.progress import Progress, silent
from data_contracts.store import Draft, Store
from model.catalogue import Catalogue, Floats32, domains_of, open_catalogue
from model.ragged import pick_rows
from model.recommending import Best, best_items
from model.world import Ints, Longs

try:
    import faiss
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("an index needs faiss, which is not installed; run `pip install -e '.[ann]'`") from error

SETTINGS = {"links": 32, "build_breadth": 200, "search_breadth": 128}
"""Links of an item, and how many items a search keeps in view while the index is built and when it is asked."""

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
        artifacts: `embeddings` and `graph`.
        progress: told after each block of items.

    Returns:
        An `index` artifact.
    """

    def write(draft: Draft) -> None:
        with threadpool_limits(1):
            rows = [_indexed(open_catalogue(artifacts, name), draft, progress) for name in domains_of(artifacts)]
        draft.write(pa.Table.from_pylist(rows, schema=INDEX.file_schema))

    return store.make(INDEX, SETTINGS, _parents(artifacts), write)


def find_index(store: Store, artifacts: Mapping[str, Artifact]) -> Artifact | None:
    """The index of a run's `embeddings` and `graph`, or None."""
    keys = {role: parent.key for role, parent in _parents(artifacts).items()}
    return store.find(INDEX, artifact_key(INDEX, SETTINGS, keys))


class IndexSearch:
    """Finds best items as `model.recommending.best_items` does, by indexes; safe to use from several threads.

    Exact where finding `top` items beside those left out means a quarter of all, and where a search finds too few.

    Args:
        indexes: faiss's index of each domain's items.
    """

    def __init__(self, indexes: Mapping[str, Any]) -> None:
        self._indexes = indexes

    def __call__(self, catalogue: Catalogue, vectors: Floats32, left_out: tuple[Longs, Ints], top: int) -> Best:
        """As `best_items`, with items that are nearly the best."""
        index, (indptr, masked) = self._indexes[catalogue.domain], left_out
        wanted = top + int(np.diff(indptr).max(initial=0))
        if wanted * 4 > index.ntotal:
            return best_items(catalogue, vectors, left_out, top)
        view = max(SETTINGS["search_breadth"], 2 * wanted)
        breadth = faiss.SearchParametersHNSW(efSearch=view)  # type: ignore[attr-defined] # its stubs lack it
        scores, items = index.search(np.ascontiguousarray(vectors), wanted, params=breadth)
        best = np.empty((len(vectors), top), np.int32), np.empty((len(vectors), top), np.float32)
        for row in range(len(vectors)):
            mine = masked[indptr[row] : indptr[row + 1]]
            new = np.flatnonzero((items[row] >= 0) & ~np.isin(items[row], mine))[:top]
            found = items[row, new], scores[row, new]
            if new.size < top:
                found = best_items(catalogue, vectors[[row]], (np.array([0, mine.size]), mine), top)
            best[0][row], best[1][row] = found
        return best


def open_index(artifact: Artifact) -> IndexSearch:
    """Read an `index` artifact into memory."""
    domains = artifact.read(["domain"])["domain"].to_pylist()
    return IndexSearch({domain: faiss.read_index(str(artifact.path / _file(domain))) for domain in domains})


def _indexed(catalogue: Catalogue, draft: Draft, progress: Progress) -> dict[str, Any]:
    """Write one domain's index; its row of the table."""
    size, width = catalogue.items.shape
    index = faiss.IndexHNSWFlat(width, SETTINGS["links"], faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = SETTINGS["build_breadth"]
    for start in range(0, size, _BLOCK):
        index.add(np.ascontiguousarray(catalogue.items[start : start + _BLOCK]))
        progress(min(start + _BLOCK, size), size, "items", catalogue.domain)
    path = draft.folder / _file(catalogue.domain)
    path.parent.mkdir(exist_ok=True)
    faiss.write_index(index, str(path))
    return {"domain": catalogue.domain, "items": size, **_compared(catalogue, IndexSearch({catalogue.domain: index}))}


def _compared(catalogue: Catalogue, search: IndexSearch) -> dict[str, float]:
    """Recall and speed over users spread evenly."""
    users = np.arange(0, len(catalogue.users), -(-len(catalogue.users) // _ASKED) or 1)
    exact, exact_seconds = _asked(catalogue, users, best_items)
    found, seconds = _asked(catalogue, users, search)
    missed = sum((~np.isin(mine[mine >= 0], theirs)).sum() for mine, theirs in zip(exact, found, strict=True))
    return {
        "recall": 1.0 - float(missed / max((exact >= 0).sum(), 1)),
        "exact_per_second": users.size / exact_seconds,
        "index_per_second": users.size / seconds,
    }


def _asked(catalogue: Catalogue, users: Longs, search: Callable[..., Best]) -> tuple[Ints, float]:
    """The items of each user, asked one at a time, and the seconds it took."""
    began, answers = time.perf_counter(), []
    for user in users[:, None]:
        left_out = pick_rows(catalogue.indptr, catalogue.known, user)
        answers.append(search(catalogue, catalogue.users[user], left_out, _RECALL_AT)[0])
    return np.concatenate(answers), time.perf_counter() - began


def _parents(artifacts: Mapping[str, Artifact]) -> dict[str, Artifact]:
    return {name: artifacts[name] for name in (EMBEDDINGS.name, GRAPH.name)}


def _file(domain: str) -> str:
    return f"items/{quote(domain, safe='')}.faiss"
