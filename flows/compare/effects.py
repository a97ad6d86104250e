"""Effects: how a case differs from the one that has another level of a single factor, paired by seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

_CONFIDENCE = 0.95
_ROUNDING = 1e-12
"""Differences between values that are smaller come from the order of sums."""


def parse_label(label: str) -> dict[str, str]:
    """Levels by factor from a case's label, as the contract `experiment` has it."""
    return dict(item.split(" = ", 1) for item in label.split("; "))


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % t interval over seeds, NaN for a single one.

    Attributes:
        mean, low, high: of the values.
        count: number of values.
        p: of a mean as far from 0 by chance (t test); None if the values do not differ.
    """

    mean: float
    low: float
    high: float
    count: int
    p: float | None = None

    @classmethod
    def over(cls, values: Sequence[float]) -> Interval:
        """Of values that are independent of each other."""
        mean = math.fsum(values) / len(values)
        if len(values) < 2:
            return cls(mean, math.nan, math.nan, 1)
        error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
        half = error * float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(values) - 1))
        p = float(2 * stats.t.sf(abs(mean) / error, len(values) - 1)) if error > _ROUNDING else None
        return cls(mean, mean - half, mean + half, len(values), p)

    @property
    def sign(self) -> int:
        """1 or -1 for an interval above or below 0; 0 if it holds 0, or if there is none."""
        return (int(self.low > 0) - int(self.high < 0)) if self.has_width else 0

    @property
    def has_width(self) -> bool:
        """There are several values, and they differ: what no seed changes says nothing about chance."""
        return self.high - self.low > _ROUNDING

    def describe(self, digits: int = 4) -> str:
        """The mean and the interval, with signs and so many digits; what rounds to 0 has the sign +."""
        mean, low, high = (f"{value:+z,.{digits}f}" for value in (self.mean, self.low, self.high))
        return f"{mean} ({low} to {high})" if self.has_width else mean


@dataclass(frozen=True)
class Contrast:
    """Two cases that differ in the level of one factor alone.

    Attributes:
        factor: that they differ in.
        level, reference: of the case, and of the one that it is compared with.
        others: levels that both have.
        case, other: their labels.
    """

    factor: str
    level: str
    reference: str
    others: Mapping[str, str]
    case: str
    other: str

    @property
    def label(self) -> str:
        """The two levels, and the other factors."""
        common = "; ".join(f"{factor} = {level}" for factor, level in self.others.items())
        return f"{self.factor}: {self.level} − {self.reference}" + (f" ({common})" if common else "")

    def effect(self, values: Mapping[str, Mapping[int, float]]) -> Interval | None:
        """The difference, paired by seed; None if no seed has both.

        Args:
            values: case → seed → value.
        """
        first, second = values.get(self.case, {}), values.get(self.other, {})
        paired = [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
        return Interval.over(paired) if paired else None


def contrasts(cases: Sequence[str], factor: str, reference: str) -> Iterator[Contrast]:
    """Each case beside the one that has the reference's level and is alike otherwise.

    Args:
        cases: labels, in the order of the results.
        factor: whose levels are compared.
        reference: the level that others are compared with.
    """
    known = {frozenset(parse_label(case).items()): case for case in cases}
    for case in cases:
        levels = parse_label(case)
        other = known.get(frozenset({**levels, factor: reference}.items()))
        if factor in levels and levels[factor] != reference and other is not None:
            others = {name: level for name, level in levels.items() if name != factor}
            yield Contrast(factor, levels[factor], reference, others, case, other)


@dataclass(frozen=True)
class Trend:
    """How an effect grows each time that another factor doubles: a line fitted by least squares to all seeds.

    Attributes:
        label: of the effect, without the doubled factor.
        slope: with its 95 % interval.
    """

    label: str
    slope: Interval


def number_of(level: str) -> float | None:
    """The number in a level such as "25 %" or "32 domains"; None without one."""
    word = level.replace(",", "").split(" ")[0]
    try:
        return float(word)
    except ValueError:
        return None


def trends(pairs: Sequence[Contrast], doubled: str, values: Mapping[str, Mapping[int, float]]) -> Iterator[Trend]:
    """The trend of each kind of contrast over the levels of another factor that are numbers above 0.

    Args:
        pairs: the contrasts.
        doubled: the other factor.
        values: case → seed → value.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    for pair in pairs:
        size = number_of(pair.others.get(doubled, ""))
        if not size or size <= 0:
            continue
        rest = {name: level for name, level in pair.others.items() if name != doubled}
        label = Contrast(pair.factor, pair.level, pair.reference, rest, "", "").label
        first, second = values.get(pair.case, {}), values.get(pair.other, {})
        points.setdefault(label, []).extend(
            (math.log2(size), first[seed] - second[seed]) for seed in sorted(first.keys() & second.keys())
        )
    for label, of_label in points.items():
        x, y = zip(*of_label, strict=True)
        if len(set(x)) < 2 or len(x) < 3:
            continue
        line = stats.linregress(x, y)
        half = float(line.stderr) * float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(x) - 2))
        slope = float(line.slope)
        p = float(line.pvalue) if half > _ROUNDING else None
        yield Trend(label, Interval(slope, slope - half, slope + half, len(x), p))


def rank_correlation(points: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """Spearman's rank correlation of two values, and its p by permutations; None if there is none.

    Args:
        points: pairs of values, three at least; up to seven are permuted in all ways, more in 9,999 that a seed draws.
    """
    first, second = (np.array(values, np.float64) for values in zip(*points, strict=True))
    if len(points) < 3 or not (np.ptp(first) and np.ptp(second)):
        return None
    tested = stats.permutation_test(
        (first,), lambda values: stats.spearmanr(values, second).statistic, permutation_type="pairings", rng=0
    )
    return float(tested.statistic), float(tested.pvalue)
