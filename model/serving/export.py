"""Export: checkpoint → embeddings → recommendations, with the logs' own ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits
from torch import Tensor

from data_contracts.contracts import EMBEDDINGS, RECOMMENDATIONS
from data_contracts.progress import FinishedPart, Progress, silent
from data_contracts.settings import ComputeSettings, ExportSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from data_contracts.store.files import coalesce
from data_contracts.store.store import Store
from model.compute.allocator import FileRoom, Room
from model.compute.column_parallel import ALONE
from model.compute.ranking_kernels import best_items
from model.compute.threads import torch_threads
from model.data.dataset import Domain, World, load_world
from model.edda.checkpoint import checkpoint_roles, checkpoint_vectors, load_checkpoint, write_tensors
from model.evidence.blend import Blend, load_blends
from model.serving.catalogue import Catalogue, domains_of, open_catalogue, vectors_file
from model.serving.scorer import DomainScorer
from model.serving.why import Lists, explain, listed_dots
from model.sparse.rows import Floats32, Ints, Longs, block_height, pick_rows

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
                progress(done, len(world.domains), "domains", FinishedPart(domain.name))

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
        settings: how many, and whether to say why; then all domains' ids are in memory, else one domain's.
        parents: `embeddings` and the `graph` that was trained on; to blend vectors with evidence also `nodes`,
            `neighbours` and `blend-<seed>` of the embeddings' checkpoint.
        compute: threads.
        progress: told after each block of users.
    """

    def write(draft: Draft) -> None:
        domains, room = domains_of(parents), FileRoom(draft.scratch)
        blends = load_blends(parents, room)

        def opened(name: str) -> DomainScorer:
            return DomainScorer(open_catalogue(parents, name, room), blends.get(name))

        with threadpool_limits(compute.threads or None, "blas"):
            explaining = [opened(name) for name in domains] if settings.why else []
            for done, name in enumerate(domains):
                scorer = explaining[done] if explaining else opened(name)
                for tables in coalesce(_best(scorer, settings.top, explaining), _FILE_ROWS):
                    table = pa.concat_tables(tables)
                    if table.num_rows:
                        draft.write(table, domain=name)
                        progress(done, len(domains), "domains", f"{name} as far as user {table['user_id'][-1]}")
                progress(done + 1, len(domains), "domains", FinishedPart(name))

    return store.make(RECOMMENDATIONS, settings.keyed_lists(), parents, write)


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


def _best(scorer: DomainScorer, top: int, explaining: Sequence[DomainScorer]) -> Iterator[pa.Table]:
    """Blocks of lists; why, where the scorers of all domains are there to say it."""
    catalogue = scorer.catalogue
    for users, items, scores in best_of_all(catalogue, top, scorer.blend):
        user, place = np.nonzero(items >= 0)
        columns = {
            "user_id": catalogue.user_ids.take(pa.array(users[user])).cast(pa.string()),
            "item_id": catalogue.item_ids.take(pa.array(items[user, place])).cast(pa.string()),
            "score": scores[user, place],
            "rank": pa.array(place + 1, pa.int32()),
        }
        columns |= _reasons(scorer, (users, items, scores), explaining) if explaining else {}
        absent = [field for field in RECOMMENDATIONS.file_schema if field.name not in columns]
        yield pa.table(columns | {field.name: pa.nulls(user.size, field.type) for field in absent})


def _reasons(
    scorer: DomainScorer, best: tuple[Longs, Ints, Floats32], explaining: Sequence[DomainScorer]
) -> dict[str, pa.Array]:
    """The columns that say why, for the items of users' lists."""
    users, items, scores = best
    dots = listed_dots(scorer.catalogue.users[users], scorer.catalogue.items, items)
    lists = Lists(items, scores, dots)
    if scorer.blend:
        evidence = scorer.blend.evidence
        lists = Lists(items, scores, dots, scorer.blend, evidence.histories_of(users), evidence.union_users[users])
    found = explain(explaining, lists)
    offsets = pa.array(found.indptr.astype(np.int32))
    return {
        "because_of": pa.ListArray.from_arrays(offsets, found.ids),
        "because_of_domains": pa.ListArray.from_arrays(offsets, found.domains),
        "because_of_shares": pa.ListArray.from_arrays(offsets, pa.array(found.shares)),
        "evidence_share": pa.array(found.evidence, mask=np.isnan(found.evidence)),
    }


def _lists(vectors: Any) -> pa.Array:
    offsets = np.arange(0, vectors.size + 1, vectors.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, np.ascontiguousarray(vectors).ravel())


def best_of_all(catalogue: Catalogue, top: int, blend: Blend | None = None) -> Iterator[tuple[Longs, Ints, Floats32]]:
    """The best items of every user, train items left out; equal scores by the items' numbers.

    Args:
        catalogue: the domain.
        top: items per user.
        blend: adds evidence to the vectors' scores; None ranks by vectors alone.

    Yields:
        Users, by ascending ids, their items (users, top), -1 where too few are left, and the items' scores.
    """
    height = block_height(len(catalogue.items))
    for start in range(0, len(catalogue.users), height):
        block = catalogue.user_order[start : start + height]
        scores = catalogue.users[block] @ catalogue.items.T
        if blend:
            blend.add(scores, block)
        indptr, masked = pick_rows(catalogue.indptr, catalogue.known, block)
        items, best = np.empty((len(block), top), np.int32), np.empty((len(block), top), np.float32)
        best_items(scores, indptr, masked, items, best)
        yield block, items, best
