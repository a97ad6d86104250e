"""Settings of `edda tune`: the search space, as an interval or a list of values for each key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from data_contracts.settings.base import Seed, Settings
from data_contracts.settings.train import ModelName, TrainSettings

Value = bool | int | float | str


class Axis(Settings):
    """The values that a key may take: from `low` to `high`, or one of `choices`."""

    low: int | float | None = None
    """Least value."""
    high: int | float | None = None
    """Largest value."""
    log: bool = False
    """Draw the logarithm evenly."""
    choices: tuple[Value, ...] = ()
    """All values."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        interval = self.low is not None and self.high is not None
        if interval == bool(self.choices) or (self.low is None) != (self.high is None):
            raise ValueError("must have both low and high, or choices, e.g. {low = 1e-4, high = 1e-1, log = true}")
        if self.low is not None and self.high is not None:
            if self.low >= self.high:
                raise ValueError(f"low is {self.low}, must be < high ({self.high})")
            if self.log and self.low <= 0:
                raise ValueError(f"low is {self.low}, must be > 0 where log is true")
        return self

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values to check: if a run may have these, it may have all values of the axis."""
        return self.choices or tuple(end for end in (self.low, self.high) if end is not None)

    def has(self, value: Value) -> bool:
        """Whether the key may take this value."""
        if self.low is None or self.high is None:
            return value in self.choices
        return self.low <= float(value) <= self.high

    def including(self, value: Value) -> Axis:
        """The axis, widened to a value where it has not got it; but a logarithmic one never to 0."""
        if self.has(value) or (self.log and float(value) <= 0):
            return self
        if self.low is None or self.high is None:
            return Axis(choices=tuple(sorted((*self.choices, value), key=float)))
        low, high = (edge(end, float(value)) for edge, end in ((min, self.low), (max, self.high)))
        return Axis(low=low, high=high, log=self.log)


class TuneSettings(Settings):
    """Search for the settings that validate best (`edda tune`); no artifact depends on these."""

    trials: Annotated[int, Field(ge=1)] = 30
    """Settings to try, those of the file first."""
    seed: Seed = 2022
    """Seed of the search."""
    prune: bool = True
    """End a trial after an epoch whose validation score is below the median of the finished trials' at that epoch."""
    space: dict[str, Axis] | None = None
    """Table [tune.space]: "train.layers" = { choices = [1, 2] }; without it what matters most for train.model."""

    @model_validator(mode="after")
    def _searchable(self) -> Self:
        for key in self.space or ():
            if key.split(".")[0] not in _SEARCHABLE or key in _NOT_SEARCHABLE:
                raise ValueError(f"space has {key!r}, must be keys of {', '.join(_SEARCHABLE)} that a model depends on")
        return self


_SEARCHABLE = ("graph", "neighbours", "reach", "pairs", "train")
"""Tables whose keys do not change what is measured."""

_NOT_SEARCHABLE = ("train.seeds", "train.device", "train.engine", "train.select_by", "train.select_users")
"""Keys of these tables that change what is measured, or that no score depends on."""

_OPTIMIZER = {
    "train.learning_rate": Axis(low=1e-4, high=1e-1, log=True),
    "train.l2": Axis(low=1e-5, high=1e-1, log=True),
    "train.initial_spread": Axis(low=0.01, high=0.2, log=True),
}
_RESIDUAL = {"train.residual": Axis(low=0.0, high=0.9)}
_GRAPH = {"train.layers": Axis(choices=(1, 2, 3)), "train.edge_dropout": Axis(low=0.0, high=0.9)}
_NETWORK = {**_OPTIMIZER, "train.hidden": Axis(choices=(64, 128, 256))}
_MIXTURE = {**_NETWORK, "train.experts": Axis(choices=(2, 3, 4))}

WEIGHTS_SPACE: Mapping[str, dict[str, Axis]] = {
    "walks": {
        "neighbours.alpha": Axis(low=0.0, high=1.0),
        "neighbours.beta": Axis(low=0.0, high=0.8),
        "neighbours.shrink": Axis(low=1.0, high=50.0, log=True),
        "neighbours.power": Axis(low=0.8, high=2.0),
    },
    "cosine": {"neighbours.shrink": Axis(low=0.1, high=1000.0, log=True)},
    "rp3beta": {
        "neighbours.rp3beta.alpha": Axis(low=0.0, high=2.0),
        "neighbours.rp3beta.beta": Axis(low=0.0, high=1.0),
    },
    "ease": {"neighbours.ease.l2": Axis(low=1.0, high=10_000.0, log=True)},
    "slim": {
        "neighbours.slim.l1": Axis(low=1e-2, high=10.0, log=True),
        "neighbours.slim.l2": Axis(low=1e-2, high=1000.0, log=True),
    },
}
"""The search space of models that rank by evidence alone, by `neighbours.weights`."""

DEFAULT_SPACE: Mapping[ModelName, dict[str, Axis]] = {
    "edda": {**_OPTIMIZER, **_GRAPH},
    "popularity": {},
    "walks": WEIGHTS_SPACE["walks"],
    "ials": {
        "train.l2": Axis(low=1e-2, high=1e4, log=True),
        "train.frequency_exponent": Axis(choices=(0.0, 0.5, 1.0)),
        "train.confidence": Axis(low=1.0, high=1000.0, log=True),
        "train.width": Axis(choices=(32, 64, 128, 256)),
    },
    "shared-bottom": _NETWORK,
    "mmoe": _MIXTURE,
    "ple": _MIXTURE,
    "star": _NETWORK,
}
"""The search space by model, if the file has no [tune.space]."""


_SQUARED = {
    "train.negative_weight": Axis(low=1.0, high=300.0, log=True),
    "train.negatives": Axis(choices=(8, 64, 256)),
}
_DOT_PRODUCTS = {"train.objective": Axis(choices=("bpr", "squared")), **_SQUARED}
_COSINES = {
    "train.temperature": Axis(low=0.05, high=0.5, log=True),
    "train.negatives": Axis(choices=(64, 256, 1024)),
}
_CONTRAST = {
    "train.contrast": Axis(low=1e-2, high=1.0, log=True),
    "train.contrast_noise": Axis(low=1e-2, high=1.0, log=True),
}


def default_space(train: TrainSettings, weights: str) -> dict[str, Axis]:
    """The search space of a model.

    Args:
        train: its settings; those of its objective and of a contrastive loss are searched too, and for EDDA with a
            graph also which objective of dot products is best.
        weights: `neighbours.weights`, by which it ranks if it has no vectors.
    """
    if train.model == "walks":
        return WEIGHTS_SPACE[weights]
    is_mf = train.model == "edda" and train.backbone == "mf"
    model = _OPTIMIZER if is_mf else DEFAULT_SPACE[train.model]
    if train.ranks_by_cosine:
        objective = _COSINES
    elif train.model == "edda" and not is_mf:
        objective = _DOT_PRODUCTS
    else:
        objective = _SQUARED if train.shares_negatives else {}
    contrast = _CONTRAST if train.model == "edda" and train.contrast else {}
    residual = _RESIDUAL if train.model == "edda" and train.backbone == "grec" else {}
    return {**model, **residual, **objective, **contrast}
