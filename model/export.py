"""Export: checkpoint → embeddings and recommendations, with the logs' own ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from data_contracts.artifact import Artifact
from data_contracts.contracts import EMBEDDINGS, ITEM, RECOMMENDATIONS, TRAIN, USER
from data_contracts.progress import Part, Progress, silent
from data_contracts.settings import ComputeSettings, ExportSettings
from data_contracts.store import Draft, Store
from model.checkpoint import checkpoint_roles, checkpoint_vectors, load_checkpoint
from model.ranking import best_of_all
from model.threads import torch_threads
from model.world import Domain, World, load_rows, load_world

_FILE_ROWS = 262_144
"""Rows of one file, at most."""


def export_embeddings(
    store: Store,
    settings: ExportSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,
    progress: Progress = silent,
) -> Artifact:
    """Write every domain's final vectors under the logs' own ids.

    Args:
        store: where the artifact lives.
        settings: enter the key only.
        parents: `interactions`, `nodes`, `graph` and one `checkpoint`.
        compute: threads.
        progress: told after each domain.

    Returns:
        An `embeddings` artifact, users before items, in the order of nodes.
    """

    def write(draft: Draft) -> None:
        with torch_threads(compute.threads):
            world = load_world(parents["nodes"], parents["graph"])
            for done, (domain, vectors) in enumerate(_vectors(world, parents), start=1):
                nodes = parents["nodes"].read(["kind", "id"], domain=domain.name)
                for start in range(0, domain.nodes, _FILE_ROWS):
                    part = vectors[start : start + _FILE_ROWS].numpy()
                    table = nodes.slice(start, _FILE_ROWS).append_column("vector", _lists(part))
                    draft.write(table, domain=domain.name)
                progress(done, len(world.domains), "domains", Part(domain.name))

    return store.make(EMBEDDINGS, settings.keyed(), parents, write)


def export_recommendations(
    store: Store,
    settings: ExportSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,
    progress: Progress = silent,
) -> Artifact:
    """Write the best items for every user of every domain.

    Items of the user's train split in the domain are left out; equal scores go by item id. A user who knows all items
    of the domain gets no row, one who knows nearly all gets fewer than `settings.top`.

    Args:
        store: where the artifact lives.
        settings: how many.
        parents: `interactions`, `nodes`, `graph` and one `checkpoint`.
        compute: threads.
        progress: told after each domain.
    """

    def write(draft: Draft) -> None:
        with torch_threads(compute.threads):
            world = load_world(parents["nodes"], parents["graph"])
            for done, (domain, vectors) in enumerate(_vectors(world, parents), start=1):
                for table in _gathered(_best(domain, world, vectors, (parents, settings.top))):
                    draft.write(table, domain=domain.name)
                progress(done, len(world.domains), "domains", Part(domain.name))

    return store.make(RECOMMENDATIONS, settings.keyed(), parents, write)


def recommend(artifacts: Mapping[str, Artifact], domain: str, user_id: str, top: int) -> pa.Table:
    """The best items for one user, train items left out, equal scores by item id.

    Args:
        artifacts: `embeddings` and `interactions`.
        domain: where to recommend.
        user_id: the user as the logs name it.
        top: how many at most.

    Returns:
        item_id, score (float32), rank (from 1); no row where the user knows every item.

    Raises:
        KeyError: no such domain, or no such user in it, with the closest names there are.
    """
    embeddings, interactions = artifacts[EMBEDDINGS.name], artifacts["interactions"]
    _known("domain", domain, [partition["domain"] for partition in embeddings.partitions()])
    table = embeddings.read(["kind", "id", "vector"], domain=domain)
    users, items = (table.filter(pc.equal(table["kind"], kind)).sort_by("id") for kind in (USER, ITEM))
    place = pc.index(users["id"], user_id).as_py()
    if place < 0:
        _known(f"user of {domain!r}", user_id, users["id"].to_pylist())
    rows = interactions.read(["user_id", "item_id", "split"], domain=domain)
    seen = rows.filter((pc.field("user_id") == user_id) & (pc.field("split") == TRAIN))["item_id"]
    new = items.filter(pc.invert(pc.is_in(items["id"], value_set=seen)))
    scores = _matrix(new["vector"], users["vector"]) @ np.array(users["vector"][place].as_py(), np.float32)
    best = np.argsort(-scores, kind="stable")[:top]
    ranks = pa.array(np.arange(1, best.size + 1), pa.int32())
    return pa.table({"item_id": new["id"].take(pa.array(best)), "score": scores[best], "rank": ranks})


def _vectors(world: World, parents: Mapping[str, Artifact]) -> Iterator[tuple[Domain, Tensor]]:
    """Every domain with its final vectors on the CPU."""
    (role,) = checkpoint_roles(parents)
    checkpoint = load_checkpoint(parents[role], world)
    for domain, vectors in zip(world.domains, checkpoint_vectors(checkpoint, world), strict=True):
        yield domain, vectors.cpu()


def _best(
    domain: Domain, world: World, vectors: Tensor, wanted: tuple[Mapping[str, Artifact], int]
) -> Iterator[pa.Table]:
    parents, top = wanted
    ids = parents["nodes"].read(["id"], domain=domain.name)["id"].combine_chunks()
    order = np.asarray(pc.sort_indices(ids.slice(domain.users))).astype(np.int64)
    rows = load_rows(parents["interactions"], domain, world)
    for users, items, scores in best_of_all(vectors, domain, rows, order, top):
        user, place = np.nonzero(items >= 0)
        yield pa.table(
            {
                "user_id": ids.take(pa.array(user + users.start)),
                "item_id": ids.take(pa.array(items[user, place].astype(np.int64) + domain.users)),
                "score": scores[user, place],
                "rank": pa.array(place + 1, pa.int32()),
            }
        )


def _gathered(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in fewer tables of at least `_FILE_ROWS` rows, but for the last."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(part.num_rows for part in waiting) >= _FILE_ROWS:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _lists(vectors: Any) -> pa.Array:
    offsets = np.arange(0, vectors.size + 1, vectors.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, np.ascontiguousarray(vectors).ravel())


def _matrix(lists: pa.ChunkedArray, like: pa.ChunkedArray) -> Any:
    width = len(like[0])
    return pc.list_flatten(lists).to_numpy().reshape(-1, width)


def _known(what: str, name: str, names: list[str]) -> None:
    if name not in names:
        close = get_close_matches(name, names, n=3, cutoff=0.0)
        raise KeyError(f"no {what} is {name!r}; closest: {', '.join(map(repr, close)) or 'none'}")
