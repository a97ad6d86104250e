"""The stages that export: checkpoint → embeddings → recommendations, with the logs' own ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits
from torch import Tensor

from data_contracts.contracts import EMBEDDINGS, RECOMMENDATIONS
from data_contracts.progress import FinishedPart, Progress, silent
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.ranking import ExportSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from data_contracts.store.files import coalesce
from data_contracts.store.store import Store
from model.compute.allocator import MappedAllocator
from model.compute.column_parallel import SINGLE_PROCESS
from model.compute.ranking_kernels import top_k_rows
from model.compute.threads import torch_threads
from model.data.dataset import DomainData, load_dataset
from model.edda.checkpoint import checkpoint_roles, load_checkpoint, write_tensors
from model.evidence.blend import Blend, load_blends
from model.serving.catalogue import Catalogue, exported_domains, open_catalogue, vectors_file
from model.serving.explanations import RankedLists, explain_as_arrays, listed_dots
from model.serving.scorer import DomainScorer
from model.sparse.rows import Floats32, Ints, Longs, block_height, pick_rows

_FILE_ROWS = 262_144
"""Rows of one file: at most for embeddings, at least for recommendations."""


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
        progress: called after each domain.

    Returns:
        An `embeddings` artifact, users before items, in the order of nodes.
    """

    def write(draft: Draft) -> None:
        with torch_threads(compute.threads):
            allocator = MappedAllocator(draft.scratch)
            dataset = load_dataset(parents["nodes"], parents["graph"], allocator)
            (role,) = checkpoint_roles(parents)
            vectors_by_domain = load_checkpoint(parents[role], dataset).vectors(dataset, allocator)
            for done, (domain, vectors) in enumerate(zip(dataset.domains, vectors_by_domain, strict=True), start=1):
                nodes = parents["nodes"].read(["kind", "id"], domain=domain.name)
                _write_vectors(draft, domain, nodes, vectors.cpu())
                progress(done, len(dataset.domains), "domains", FinishedPart(domain.name))

    return store.make(EMBEDDINGS, settings.keyed(), parents, write)


def export_recommendations(
    store: Store,
    settings: ExportSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,
    progress: Progress = silent,
) -> Artifact:
    """Write the best items for every user of every domain.

    The user's train items in the domain are left out; equal scores are ordered by the items' numbers. A user who has
    all items of the domain gets no row, one who has nearly all gets fewer than `settings.top`.

    Args:
        store: where the artifact lives.
        settings: how many, and whether to explain them; if so, the ids of all domains are in memory, else of one.
        parents: `embeddings` and the `graph` that was trained on; to blend vectors with evidence also `nodes`,
            `neighbours` and `blend-<seed>` of the embeddings' checkpoint.
        compute: threads.
        progress: called after each block of users.
    """

    def write(draft: Draft) -> None:
        domains, allocator = exported_domains(parents), MappedAllocator(draft.scratch)
        blends = load_blends(parents, allocator)

        def open_scorer(name: str) -> DomainScorer:
            return DomainScorer(open_catalogue(parents, name, allocator), blends.get(name))

        with threadpool_limits(compute.threads or None, "blas"):
            all_scorers = [open_scorer(name) for name in domains] if settings.why else []
            for done, name in enumerate(domains):
                scorer = all_scorers[done] if all_scorers else open_scorer(name)
                for tables in coalesce(_recommendation_tables(scorer, settings.top, all_scorers), _FILE_ROWS):
                    table = pa.concat_tables(tables)
                    if table.num_rows:
                        draft.write(table, domain=name)
                        progress(done, len(domains), "domains", f"{name} as far as user {table['user_id'][-1]}")
                progress(done + 1, len(domains), "domains", FinishedPart(name))

    return store.make(RECOMMENDATIONS, settings.keyed_lists(), parents, write)


def _write_vectors(draft: Draft, domain: DomainData, nodes: pa.Table, vectors: Tensor) -> None:
    """Write a domain's final vectors as rows with ids, and as tensors that can be mapped."""
    for start in range(0, domain.nodes, _FILE_ROWS):
        block = vectors[start : start + _FILE_ROWS].numpy()
        offsets = np.arange(0, block.size + 1, block.shape[1], dtype=np.int32)
        lists = pa.ListArray.from_arrays(offsets, np.ascontiguousarray(block).ravel())
        draft.write(nodes.slice(start, _FILE_ROWS).append_column("vector", lists), domain=domain.name)
    path = draft.folder / vectors_file(domain.name)
    path.parent.mkdir(exist_ok=True)
    tensors = {"users": vectors[: domain.users], "items": vectors[domain.users :]}
    with path.open("wb") as stream:
        write_tensors(stream, tensors, SINGLE_PROCESS)


def _recommendation_tables(scorer: DomainScorer, top: int, all_scorers: Sequence[DomainScorer]) -> Iterator[pa.Table]:
    """Recommendations of blocks of users; explained if the scorers of all domains are given."""
    catalogue = scorer.catalogue
    top = max(1, min(top, len(catalogue.items)))
    for users, items, scores in top_items_by_user(catalogue, top, scorer.blend):
        rows, ranks = np.nonzero(items >= 0)
        columns = {
            "user_id": catalogue.user_ids.take(pa.array(users[rows])).cast(pa.string()),
            "item_id": catalogue.item_ids.take(pa.array(items[rows, ranks])).cast(pa.string()),
            "score": scores[rows, ranks],
            "rank": pa.array(ranks + 1, pa.int32()),
        }
        if all_scorers:
            columns |= _explanation_columns(scorer, users, items, scores, all_scorers)
        missing = [field for field in RECOMMENDATIONS.file_schema if field.name not in columns]
        yield pa.table(columns | {field.name: pa.nulls(rows.size, field.type) for field in missing})


def _explanation_columns(
    scorer: DomainScorer, users: Longs, items: Ints, scores: Floats32, all_scorers: Sequence[DomainScorer]
) -> dict[str, pa.Array]:
    """The columns that explain the items of users' lists."""
    dots = listed_dots(scorer.catalogue.users[users], scorer.catalogue.items, items)
    lists = RankedLists(items, scores, dots)
    if scorer.blend:
        evidence = scorer.blend.evidence
        histories, union_users = evidence.user_histories(users), evidence.union_users[users]
        lists = RankedLists(items, scores, dots, scorer.blend, histories, union_users)
    explained = explain_as_arrays(all_scorers, lists)
    offsets = pa.array(explained.indptr.astype(np.int32))
    return {
        "because_of": pa.ListArray.from_arrays(offsets, explained.ids),
        "because_of_domains": pa.ListArray.from_arrays(offsets, explained.domains),
        "because_of_shares": pa.ListArray.from_arrays(offsets, pa.array(explained.shares)),
        "evidence_share": pa.array(explained.evidence, mask=np.isnan(explained.evidence)),
    }


def top_items_by_user(
    catalogue: Catalogue, top: int, blend: Blend | None = None
) -> Iterator[tuple[Longs, Ints, Floats32]]:
    """The top items of every user, without train items; equal scores are ordered by the items' numbers.

    Args:
        catalogue: the domain.
        top: items per user.
        blend: adds evidence to the vectors' scores; None ranks by vectors alone.

    Yields:
        Users in the order of their ids, their items (users, top), padded with -1, and the items' scores.
    """
    height = block_height(len(catalogue.items))
    for start in range(0, len(catalogue.users), height):
        block = catalogue.user_order[start : start + height]
        scores = catalogue.users[block] @ catalogue.items.T
        if blend:
            blend.apply(scores, blend.evidence.user_histories(block))
        indptr, masked = pick_rows(catalogue.indptr, catalogue.known, block)
        items, best = np.empty((len(block), top), np.int32), np.empty((len(block), top), np.float32)
        top_k_rows(scores, indptr, masked, items, best)
        yield block, items, best
