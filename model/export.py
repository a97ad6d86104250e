"""Export: checkpoint → embeddings → recommendations, with the logs' own ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits
from torch import Tensor

from data_contracts.artifact import Artifact
from data_contracts.contracts import EMBEDDINGS, RECOMMENDATIONS
from data_contracts.progress import Part, Progress, silent
from data_contracts.settings import ComputeSettings, ExportSettings
from data_contracts.store import Draft, Store
from model.catalogue import Catalogue, domains_of, open_catalogue, vectors_file
from model.checkpoint import checkpoint_roles, checkpoint_vectors, load_checkpoint, write_tensors
from model.columns import ALONE
from model.ranking import best_of_all
from model.room import FileRoom, Room
from model.serving.blend import Blend, load_blends
from model.threads import torch_threads
from model.world import Domain, World, load_world

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
            room = FileRoom(draft.scratch)
            world = load_world(parents["nodes"], parents["graph"], room)
            for done, (domain, vectors) in enumerate(_vectors(world, parents, room), start=1):
                nodes = parents["nodes"].read(["kind", "id"], domain=domain.name)
                for start in range(0, domain.nodes, _FILE_ROWS):
                    part = vectors[start : start + _FILE_ROWS].numpy()
                    table = nodes.slice(start, _FILE_ROWS).append_column("vector", _lists(part))
                    draft.write(table, domain=domain.name)
                _write_tensors(draft, domain, vectors)
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

    Items of the user's train split in the domain are left out; equal scores go by the items' numbers. A user who knows
    all items of the domain gets no row, one who knows nearly all gets fewer than `settings.top`.

    Args:
        store: where the artifact lives.
        settings: how many.
        parents: `embeddings` and the `graph` that was trained on; to blend vectors with evidence also `nodes`,
            `neighbours` and `blend-<seed>` of the embeddings' checkpoint.
        compute: threads.
        progress: told after each block of users.
    """

    def write(draft: Draft) -> None:
        domains, room = domains_of(parents), FileRoom(draft.scratch)
        blends = load_blends(parents, room)
        with threadpool_limits(compute.threads or None, "blas"):
            for done, name in enumerate(domains):
                catalogue = open_catalogue(parents, name, room)
                for table in _gathered(_best(catalogue, settings.top, blends.get(name))):
                    draft.write(table, domain=name)
                    progress(done, len(domains), "domains", f"{name} as far as user {table['user_id'][-1]}")
                progress(done + 1, len(domains), "domains", Part(name))

    return store.make(RECOMMENDATIONS, settings.keyed(), parents, write)


def _vectors(world: World, parents: Mapping[str, Artifact], room: Room) -> Iterator[tuple[Domain, Tensor]]:
    """Every domain with its final vectors on the CPU."""
    (role,) = checkpoint_roles(parents)
    checkpoint = load_checkpoint(parents[role], world)
    for domain, vectors in zip(world.domains, checkpoint_vectors(checkpoint, world, room), strict=True):
        yield domain, vectors.cpu()


def _write_tensors(draft: Draft, domain: Domain, vectors: Tensor) -> None:
    path = draft.folder / vectors_file(domain.name)
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as stream:
        write_tensors(stream, {"users": vectors[: domain.users], "items": vectors[domain.users :]}, ALONE)


def _best(catalogue: Catalogue, top: int, blend: Blend | None) -> Iterator[pa.Table]:
    for users, items, scores in best_of_all(catalogue, top, blend):
        user, place = np.nonzero(items >= 0)
        yield pa.table(
            {
                "user_id": catalogue.user_ids.take(pa.array(users[user])).cast(pa.string()),
                "item_id": catalogue.item_ids.take(pa.array(items[user, place])).cast(pa.string()),
                "score": scores[user, place],
                "rank": pa.array(place + 1, pa.int32()),
            }
        )


def _gathered(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in fewer tables of at least `_FILE_ROWS` rows, but for the last; none without rows."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(part.num_rows for part in waiting) >= _FILE_ROWS:
            yield pa.concat_tables(waiting)
            waiting = []
    if any(part.num_rows for part in waiting):
        yield pa.concat_tables(waiting)


def _lists(vectors: Any) -> pa.Array:
    offsets = np.arange(0, vectors.size + 1, vectors.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, np.ascontiguousarray(vectors).ravel())
