"""The stage that fits the blend: checkpoint and neighbours → weights of vectors and evidence by domain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from data_contracts.contracts import BLEND
from data_contracts.progress import FinishedPart, Progress, silent
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.ranking import BlendSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from data_contracts.store.store import Store
from model.compute.column_parallel import SINGLE_PROCESS
from model.compute.threads import torch_threads
from model.data.dataset import load_dataset, load_interactions
from model.edda.checkpoint import checkpoint_roles, load_checkpoint
from model.evaluation.fit import BlendCurve, BlendPoint, blend_curve, choose_blends, validation_users
from model.evaluation.validation import vector_scorer
from model.evidence.domain_evidence import load_evidence


def fit_blend(
    store: Store,
    settings: BlendSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,
    progress: Progress = silent,
) -> Artifact:
    """Choose the weight of evidence beside the vectors for every domain, by full NDCG@20 on its validation split.

    Vectors alone and evidence alone are tried too, so on validation the blend is no worse than either. A domain with
    few validation users, or none, relies on those of the others (`model.evaluation.fit.choose_blends`).

    Args:
        store: where the artifact lives.
        settings: how many users to measure, and the seed that draws them.
        parents: `interactions`, `nodes`, `graph`, `neighbours` and one `checkpoint-<seed>`.
        compute: threads.
        progress: called after each domain.

    Returns:
        A `blend` artifact: every blend that was tried, with the chosen one marked.
    """

    def write(draft: Draft) -> None:
        with torch_threads(compute.threads):
            curves = dict(_measure_curves(settings, parents, progress))
            chosen = choose_blends(curves) if curves else {}
            rows = [
                _to_row(domain, point, curves[domain].users, point is chosen[domain])
                for domain in sorted(curves)
                for point in curves[domain].points
            ]
            draft.write(pa.Table.from_pylist(rows, schema=BLEND.file_schema))

    return store.make(BLEND, settings.keyed(), parents, write)


def _measure_curves(
    settings: BlendSettings, parents: Mapping[str, Artifact], progress: Progress
) -> Iterator[tuple[str, BlendCurve]]:
    dataset = load_dataset(parents["nodes"], parents["graph"])
    (role,) = checkpoint_roles(parents)
    vectors_by_domain = load_checkpoint(parents[role], dataset).vectors(dataset)
    by_domain = zip(dataset.domains, vectors_by_domain, load_evidence(parents, dataset), strict=True)
    for done, (domain, vectors, evidence) in enumerate(by_domain, start=1):
        interactions = load_interactions(parents["interactions"], domain, dataset)
        held = validation_users(interactions, domain, settings.users, settings.seed)
        yield domain.name, blend_curve(held, vector_scorer(vectors, domain, SINGLE_PROCESS), evidence)
        progress(done, len(dataset.domains), "domains", FinishedPart(domain.name))


def _to_row(domain: str, point: BlendPoint, users: int, is_chosen: bool) -> dict[str, Any]:
    weights = point.weights
    return {
        "domain": domain,
        "share": point.share,
        "vectors": weights.vectors,
        "evidence": weights.evidence,
        "spread": weights.spread,
        "growth": weights.growth,
        "full_ndcg@20": point.ndcg,
        "full_recall@20": point.recall,
        "users": users,
        "chosen": is_chosen,
    }
