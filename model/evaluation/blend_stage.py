"""The stage that fits the blend: checkpoint and neighbours → weights of vectors and evidence in every domain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from data_contracts.contracts import BLEND
from data_contracts.progress import FinishedPart, Progress, silent
from data_contracts.settings import BlendSettings, ComputeSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from data_contracts.store.store import Store
from model.compute.column_parallel import ALONE
from model.compute.threads import torch_threads
from model.data.dataset import load_rows, load_world
from model.edda.checkpoint import checkpoint_roles, checkpoint_vectors, load_checkpoint
from model.evaluation.fit import Curve, Point, blend_curve, choose, validation_users
from model.evaluation.validation import vector_scorer
from model.evidence.domain_evidence import load_evidence


def fit_blend(
    store: Store,
    settings: BlendSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,
    progress: Progress = silent,
) -> Artifact:
    """Choose for every domain how much evidence weighs beside the vectors, by full NDCG@20 on its validation split.

    Vectors alone and evidence alone are among what is tried, so on validation the blend is no worse than either. A
    domain with few validation users, or none, leans on the others' (`model.evaluation.fit.choose`).

    Args:
        store: where the artifact lives.
        settings: how many users, drawn by which seed.
        parents: `interactions`, `nodes`, `graph`, `neighbours` and one `checkpoint-<seed>`.
        compute: threads.
        progress: told after each domain.

    Returns:
        A `blend` artifact: every blend that was tried, the chosen one marked.
    """

    def write(draft: Draft) -> None:
        with torch_threads(compute.threads):
            curves = dict(_curves(settings, parents, progress))
            chosen = choose(curves) if curves else {}
            rows = [
                _row(domain, point, curves[domain].users, point is chosen[domain])
                for domain in sorted(curves)
                for point in curves[domain].points
            ]
            draft.write(pa.Table.from_pylist(rows, schema=BLEND.file_schema))

    return store.make(BLEND, settings.keyed(), parents, write)


def _curves(
    settings: BlendSettings, parents: Mapping[str, Artifact], progress: Progress
) -> Iterator[tuple[str, Curve]]:
    world = load_world(parents["nodes"], parents["graph"])
    (role,) = checkpoint_roles(parents)
    vectors = checkpoint_vectors(load_checkpoint(parents[role], world), world)
    everything = zip(world.domains, vectors, load_evidence(parents, world), strict=True)
    for done, (domain, of_domain, evidence) in enumerate(everything, start=1):
        held = validation_users(
            load_rows(parents["interactions"], domain, world), domain, settings.users, settings.seed
        )
        yield domain.name, blend_curve(held, vector_scorer(of_domain, domain, ALONE), evidence)
        progress(done, len(world.domains), "domains", FinishedPart(domain.name))


def _row(domain: str, point: Point, users: int, is_chosen: bool) -> dict[str, Any]:
    weights = point.weights
    return {
        "domain": domain, "share": point.share,
        "vectors": weights.vectors, "evidence": weights.evidence, "spread": weights.spread,
        "growth": weights.growth,
        "full_ndcg@20": point.ndcg, "full_recall@20": point.recall, "users": users, "chosen": is_chosen,
    }  # fmt: skip
