"""EDDA from Python: fit interactions, recommend, and use parts of the pipeline on matrices.

    import edda

    model = edda.fit(frame, train={"epochs": 20})   # pandas, Polars or Arrow: user_id, item_id, domain
    model.recommend("u17", domain="books")          # an Arrow table, best first
    edda.run("my.toml").metrics()                   # a run's file, as `edda run`

Names are imported when they are first used, so that `import edda` takes milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from data_contracts.cache_folders import provide_caches

if TYPE_CHECKING:
    from edda.fitted import Model, fit, load, run
    from pipeline.in_memory import align_domains, random_walks, reach_vectors, shared_places
    from pipeline.neighbours.stage import item_neighbours

_HOMES = {
    **dict.fromkeys(("Model", "fit", "load", "run"), "edda.fitted"),
    **dict.fromkeys(("align_domains", "random_walks", "reach_vectors", "shared_places"), "pipeline.in_memory"),
    "item_neighbours": "pipeline.neighbours.stage",
}

__all__ = [
    "Model",
    "align_domains",
    "fit",
    "item_neighbours",
    "load",
    "random_walks",
    "reach_vectors",
    "run",
    "shared_places",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"edda has no {name!r}; it has {', '.join(__all__)}")
    provide_caches()  # before Numba is imported
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
