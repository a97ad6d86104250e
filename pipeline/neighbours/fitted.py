"""Weights between items that are coefficients of regressions; the memory for them is predicted before it is used."""

from __future__ import annotations

from data_contracts.progress import Progress, silent
from data_contracts.resources import MemoryLimitError
from data_contracts.settings.machine import ComputeSettings
from pipeline.compute.fan_out import thread_count
from pipeline.compute.method_choice import MethodChoice
from pipeline.compute.rows import CsrRows
from pipeline.neighbours.common_users import CommonUsers
from pipeline.neighbours.ease import fit_ease, predict_ease_bytes
from pipeline.neighbours.item_weights import ItemWeights
from pipeline.neighbours.slim import fit_slim, predict_slim_bytes

_NAMES = {"ease": "EASE", "slim": "SLIM"}


def check_memory(weights: ItemWeights, compute: ComputeSettings) -> MethodChoice:
    """Predict the memory that the fit takes; the fitted rows are exact.

    Raises:
        MemoryLimitError: it takes more than `compute.memory_mib`.
    """
    common, name = CommonUsers.build(weights), _NAMES[weights.settings.weights]
    items, needed = common.items.size, predict_slim_bytes(common)
    if name == "EASE":
        needed = predict_ease_bytes(items, weights.settings.top, thread_count(compute))
    mib = -(-needed >> 20)
    if mib > compute.memory_mib:
        domain = weights.graph.domain
        fewer = "have fewer items" if domain else 'set neighbours.scope = "domain"'
        raise MemoryLimitError(
            f"neighbours of {domain or 'all domains'}: {name} of {items:,} items takes up to {mib:,} MiB of memory, "
            f"allowed are {compute.memory_mib:,}; raise compute.memory_mib, {fewer}, "
            'or set neighbours.weights = "walks"'
        )
    return MethodChoice("exact", f"{name} of {items:,} items is fitted at once")


def fit_rows(weights: ItemWeights, compute: ComputeSettings, progress: Progress = silent) -> CsrRows:
    """The largest weights of each item that has train interactions; columns are items numbered within the graph.

    Args:
        weights: of the graph; their settings say which model is fitted.
        compute: threads; the result does not depend on them.
        progress: called while the model is fitted, with the name of the domain as note.
    """
    settings, common = weights.settings, CommonUsers.build(weights)

    def report(done: int, total: int, unit: str, note: str = "") -> None:
        progress(done, total, unit, note or f"{_NAMES[settings.weights]} of {weights.graph.domain or 'all domains'}")

    if settings.weights == "ease":
        rows = fit_ease(common, settings.ease.l2, settings.top, compute, report)
    else:
        rows = fit_slim(common, settings.slim, settings.top, compute, report)
    return rows._replace(indices=common.items[rows.indices].astype(rows.indices.dtype))
