"""Scores of settings that need no training; other processes can import them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from data_contracts.resources import MemoryLimitError
from flows.tune.search import Report, Values


def hill(values: Values, report: Report) -> float:
    """The better, the closer to a learning rate of 0.01 and to three layers."""
    return -abs(float(values["train.learning_rate"]) - 0.01) - abs(int(values["train.layers"]) - 3)


def slow_hill(values: Values, report: Report) -> float:
    """Takes longer with few layers, so that trials end in another order than they begin."""
    time.sleep(0.2 / int(values["train.layers"]))
    return hill(values, report)


def too_large(values: Values, report: Report) -> float:
    raise MemoryLimitError("EASE takes too much")


def killed(values: Values, report: Report) -> float:
    os._exit(9)


@dataclass
class Climb:
    """Trials that end at the given heights and report a tenth of them after each of ten epochs."""

    heights: list[float]
    begun: int = 0
    epochs: int = 0

    def __call__(self, values: Values, report: Report) -> float:
        self.begun += 1
        height = self.heights[self.begun - 1]
        for epoch in range(1, 11):
            self.epochs += 1
            report(epoch, height * epoch / 10)
        return height
