"""LightGCN on the union graph: one table and one graph over all domains, as if there were no domains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from model.baselines.baseline import Baseline
from model.learner import Learner, Lesson, Measure
from model.propagate import backbone_of
from model.stacks import union_stack


def on_union_graph(lesson: Lesson) -> Lesson:
    """The lesson for EDDA's inter table alone with LightGCN on one graph that has every domain's edges."""
    settings = lesson.settings.model_copy(update={"tables": "inter", "backbone": "lightgcn"})
    network = replace(lesson.network, inter=union_stack(lesson.network.world), backbone=backbone_of(settings))
    return replace(lesson, settings=settings, network=network)


class UnionLightGcn(Baseline):
    """A learner on the union graph that keeps final vectors in place of its table."""

    def __init__(self, table: Learner, lesson: Lesson) -> None:
        super().__init__(lesson)
        self._table = table

    def learn(self, epoch: int) -> list[Measure]:
        """Every domain's batches."""
        return self._table.learn(epoch)

    def vectors(self) -> Iterator[Tensor]:
        """The propagated table's rows of each domain."""
        return self._table.vectors()

    def state(self) -> dict[str, Any]:
        """The table's."""
        return self._table.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """The table's."""
        self._table.restore(state)
