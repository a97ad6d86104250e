"""How much memory a training takes at least, so that settings that cannot fit are refused before it begins."""

from __future__ import annotations

from data_contracts.resources import require_memory
from data_contracts.settings.train import TrainSettings
from model.data.batches import Batching
from model.learners.base import TrainingData

_FLOAT = 4
"""Bytes of a float32."""
_COPIES = 4
"""Of a trained table: itself, Adam's two moments, and the best epoch's."""
_WITHOUT_VECTORS = ("popularity", "walks")


def check_memory(data: TrainingData) -> None:
    """Check that this process's part of a training fits beside the other processes of this machine.

    Raises:
        MemoryLimitError: it cannot fit into the memory that is free.
    """
    settings, processes, dataset = data.settings, data.processes, data.graphs.dataset
    sizes = [domain.nodes for domain in dataset.domains]
    shares = dataset.shared_interaction_shares if settings.model == "edda" else (1.0,) * len(sizes)
    intra = [size for size, share in zip(sizes, shares, strict=True) if settings.has_intra(share)]
    largest = max((rows.users.size for rows in data.positives), default=0)
    batch = min(Batching.from_settings(settings, data.positives).triples, largest)
    needed = predict_bytes(settings, dataset.nodes, sizes, intra, batch)
    widths = f"train.width {settings.width:,}"
    if settings.model == "edda" and settings.tables == "both":
        widths += f" and train.intra_width {settings.intra_width:,}"
    require_memory(
        needed * processes.local_world_size // processes.world_size,
        f"train: {settings.model} of {dataset.nodes:,} nodes in {len(sizes)} domains with {widths}, train.negatives "
        f"{settings.negatives:,}",
        "lower these, or train on a machine with more memory",
    )


def predict_bytes(settings: TrainSettings, nodes: int, domains: list[int], intra: list[int], batch: int) -> int:
    """Bytes that a training holds at least: tables with their copies, final vectors, the triples of a batch.

    Args:
        settings: of the training.
        nodes: of the union of all domains.
        domains: nodes of each domain.
        intra: nodes of each domain that has an intra table.
        batch: positives of a step.
    """
    if settings.model in _WITHOUT_VECTORS:
        return 0
    width, intra_width = settings.widths
    if settings.model == "ials":
        return _FLOAT * (sum(domains) * width + width * width)
    triples = _FLOAT * settings.negatives * batch
    if settings.model != "edda":
        return _FLOAT * (sum(domains) * width + settings.hidden * settings.hidden) + triples
    tables = (nodes * width if settings.tables != "intra" else 0) + sum(intra) * intra_width
    maps = len(intra) * intra_width * intra_width if settings.aligns else 0
    vectors = sum(domains) * width if settings.tables != "intra" else sum(intra) * intra_width
    return _FLOAT * (_COPIES * (tables + maps) + vectors) + triples
