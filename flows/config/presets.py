"""Presets: every baseline as overrides of a run, so that everything else stays the same."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

from flows.config.run_config import RunConfig, RunSpec

_NETWORK_L2 = "train.l2=1e-4"
"""With EDDA's penalty, networks only learn popularity."""

_EACH_DOMAIN_ALONE = ("train.model=edda", "train.tables=intra", "train.alignment=0")
"""Every domain learns only from its own interactions."""

_CONTRAST = "train.contrast=0.05"
"""SimGCL's loss beside LightGCN's."""

VECTORS_ALONE = "blend.evidence=false"
"""No evidence from walks beside a model's vectors."""
_WITH_WALKS = "blend.evidence=true"


def _item_models() -> dict[str, tuple[str, ...]]:
    """Item-to-item models that rank alone, of each domain and of the union; the last ones take most memory."""
    weights = {"item-knn": "cosine", "rp3beta": "rp3beta", "slim": "slim", "ease": "ease"}
    return {
        f"{name}{suffix}": (
            "train.model=walks",
            _WITH_WALKS,
            f"neighbours.weights={chosen}",
            f"neighbours.scope={scope}",
        )
        for name, chosen in weights.items()
        for suffix, scope in (("", "domain"), ("-union", "union"))
    }


BASELINES: Mapping[str, tuple[str, ...]] = {
    "released": (
        "graph.anchor_kinds=['user']",
        "reach.method=walk",
        "pairs.kinds=mixed",
        "train.model=edda",
        "train.tables=both",
        "train.width=64",
        "train.intra_width=64",
        "train.inter_graph=by-domain",
        "train.initial_spread=0.1",
        "train.learning_rate=1e-3",
        "train.l2=1e-4",
        "train.intra_penalty=1",
        "train.intra_shared_at_most=1",
        "train.alignment=0.3",
        "train.alignment_targets=1000",
        "train.batch_size=8192",
        "train.negatives=1",
        "train.order=sequential",
        "train.epochs=300",
        "train.patience=50",
        "train.select_by=auc",
        VECTORS_ALONE,
    ),
    "popularity": ("train.model=popularity",),
    "walks": ("train.model=walks", _WITH_WALKS),
    "ials": ("train.model=ials", "train.l2=300.0", "train.confidence=100.0"),
    "ials-frequency": (
        "train.model=ials",
        "train.l2=3.0",
        "train.confidence=100.0",
        "train.frequency_exponent=1",
    ),
    "mf-bpr": (*_EACH_DOMAIN_ALONE, "train.backbone=mf"),
    "lightgcn": (*_EACH_DOMAIN_ALONE, "train.backbone=lightgcn"),
    "grec": (*_EACH_DOMAIN_ALONE, "train.backbone=grec"),
    "union-lightgcn": (
        "train.model=edda",
        "train.tables=inter",
        "train.inter_graph=union",
        "train.backbone=lightgcn",
    ),
    "simgcl": (*_EACH_DOMAIN_ALONE, "train.backbone=lightgcn", _CONTRAST),
    "union-simgcl": (
        "train.model=edda",
        "train.tables=inter",
        "train.inter_graph=union",
        "train.backbone=lightgcn",
        _CONTRAST,
    ),
    "shared-bottom": ("train.model=shared-bottom", _NETWORK_L2),
    "mmoe": ("train.model=mmoe", _NETWORK_L2),
    "ple": ("train.model=ple", _NETWORK_L2),
    "star": ("train.model=star", _NETWORK_L2),
    **_item_models(),
}
"""Name of a baseline → overrides of a run's settings."""

FIXED_BASELINES = ("released",)
"""Baselines that stand for their very settings, which are not tuned."""


_LIMITS_OF_TRAINING = ("train.epochs", "train.patience")
"""Settings that say how long to train, not what a baseline is."""


def parse_baselines(text: str, skip: str = "") -> list[str]:
    """Names of baselines from a list such as `ease,ials`, or all of them from `all`; none from an empty text.

    Args:
        text: the value of `--baselines`.
        skip: names to leave out, the value of `--skip`.

    Raises:
        ValueError: a name is unknown, or there is nothing to skip any from.
    """
    if skip and not text:
        raise ValueError(f"--skip is {skip!r}, must stand beside --baselines")
    names = list(BASELINES) if text == "all" else _known_baselines("--baselines", text)
    return [name for name in names if name not in _known_baselines("--skip", skip)]


def _known_baselines(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in BASELINES:
            close = difflib.get_close_matches(name, BASELINES, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"{option} has {name!r}, which is no baseline{hint} (there are {', '.join(BASELINES)})")
    return list(dict.fromkeys(names))


def baseline_runs(run: RunSpec, names: Sequence[str] = tuple(BASELINES)) -> list[RunSpec]:
    """A run of each of these baselines, named after the run and the baseline, with vectors as wide as the run's own.

    Their vectors rank alone, except for `walks` and the item-to-item models, which have none. Epochs are selected as
    in the run, by the score that the baseline is evaluated on, unless the preset says otherwise. The preset's settings
    stand above those of the run's file and its overrides, but overrides that limit the training limit every baseline.
    """
    train = run.config.train
    has_both_tables = train.model == "edda" and train.tables == "both"
    shared = f"train.width={sum(train.widths) if has_both_tables else train.width}", VECTORS_ALONE
    limits = [text for text in run.overrides if text.partition("=")[0].strip() in _LIMITS_OF_TRAINING]
    return [
        run.with_overrides(*shared, *BASELINES[name], *limits, f"name={_extend_name(run.config, name)}")
        for name in names
    ]


def with_walks(run: RunSpec) -> list[RunSpec]:
    """The run with evidence from walks beside its vectors, named `…-walks`; empty if it has evidence already."""
    if run.config.blend.evidence:
        return []
    return [run.with_overrides(_WITH_WALKS, f"name={_extend_name(run.config, 'walks')}")]


def other_evidence(run: RunSpec) -> RunSpec:
    """The run without evidence from walks if it has evidence, otherwise the run with it."""
    return variant_run(run, [VECTORS_ALONE if run.config.blend.evidence else _WITH_WALKS])


def variant_run(run: RunSpec, changes: Sequence[str]) -> RunSpec:
    """The run with further overrides, named after the run and the overrides."""
    parts = (change.partition("=") for change in changes)
    name = _extend_name(run.config, *(key.rpartition(".")[2] + equals + value for key, equals, value in parts))
    return run.with_overrides(*changes, f"name={name}")


def _extend_name(config: RunConfig, *suffixes: str) -> str:
    """A run's name with suffixes, in the characters that names may have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join([config.name, *suffixes])).strip("-")[:100]
