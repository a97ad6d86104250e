"""Effects and trends, computed by hand."""

import math

import pytest

from flows.compare.effects import Contrast, Interval, contrasts, number_of, rank_correlation, trends

CASES = [f"shared = {share} %; alignment = {alignment}" for share in (100, 50, 25) for alignment in ("off", "on")]


def test_an_interval_over_seeds_is_students():
    interval = Interval.over([1.0, 2.0, 4.0])
    half = 4.302652729911275 * math.sqrt(7 / 3) / math.sqrt(3)  # t of 2 degrees of freedom, 97.5 %
    assert interval.mean == pytest.approx(7 / 3)
    assert (interval.low, interval.high) == pytest.approx((7 / 3 - half, 7 / 3 + half))
    assert interval.sign == 0
    assert Interval.over([1.0, 1.1, 0.9]).sign == 1
    assert Interval.over([-1.0, -1.1, -0.9]).sign == -1


def test_a_single_seed_has_no_interval_and_no_sign():
    interval = Interval.over([0.5])
    assert math.isnan(interval.low)
    assert (interval.describe(), interval.sign) == ("+0.5000", 0)
    assert Interval.over([-1e-6]).describe() == "+0.0000"


def test_values_that_no_seed_changes_have_no_interval_and_no_sign():
    interval = Interval.over([0.25, 0.25, 0.25])
    assert (interval.describe(), interval.sign) == ("+0.2500", 0)
    by_rounding = Interval.over([0.25, 0.25 + 1e-16, 0.25 - 1e-16])
    assert (by_rounding.describe(), by_rounding.sign, by_rounding.p) == ("+0.2500", 0, None)


def test_each_case_is_compared_with_the_one_that_differs_in_one_factor_alone():
    found = list(contrasts(CASES, "alignment", "off"))
    assert [(pair.case, pair.other) for pair in found] == [
        (CASES[1], CASES[0]),
        (CASES[3], CASES[2]),
        (CASES[5], CASES[4]),
    ]
    assert found[1].label == "alignment: on − off (shared = 50 %)"


def test_effects_are_paired_by_seed_and_unpaired_seeds_are_left_out():
    pair = Contrast("alignment", "on", "off", {}, "x", "y")
    effect = pair.effect({"x": {1: 0.5, 2: 0.7, 3: 9.0}, "y": {1: 0.4, 2: 0.5}})
    assert effect is not None
    assert (effect.mean, effect.count) == (pytest.approx(0.15), 2)
    assert pair.effect({"x": {1: 0.5}, "y": {2: 0.5}}) is None


def test_a_trend_is_the_slope_by_doubling_with_its_interval():
    effects = {100: (0.1, 0.12), 50: (0.2, 0.23), 25: (0.3, 0.29)}
    values = {}
    for share, of_share in effects.items():
        values[f"shared = {share} %; alignment = off"] = {1: 0.5, 2: 0.6}
        values[f"shared = {share} %; alignment = on"] = {seed: base + e for (seed, base), e in
                                                          zip(((1, 0.5), (2, 0.6)), of_share, strict=True)}  # fmt: skip
    (trend,) = trends(list(contrasts(CASES, "alignment", "off")), "shared", values)
    x = [math.log2(share) for share in effects for _ in range(2)]
    y = [effect for of_share in effects.values() for effect in of_share]
    mean_x, mean_y = sum(x) / 6, sum(y) / 6
    spread = sum((a - mean_x) ** 2 for a in x)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    left = sum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))
    half = 2.7764451051977987 * math.sqrt(left / 4 / spread)  # t of 4 degrees of freedom
    assert trend.label == "alignment: on − off"
    assert trend.slope.mean == pytest.approx(slope)
    assert (trend.slope.low, trend.slope.high) == pytest.approx((slope - half, slope + half))


@pytest.mark.parametrize(
    ("level", "number"), [("25 %", 25.0), ("10,000 walks", 10_000.0), ("2 layers", 2.0), ("off", None), ("exact", None)]
)
def test_numbers_in_levels(level, number):
    assert number_of(level) == number


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(1, 5), (2, 6), (3, 7)], (1.0, 2 / 6)),  # two of six orders are as far from 0: this one and its reverse
        ([(1, 5), (2, 7), (3, 6)], (0.5, 1.0)),
        ([(1, 5), (1, 6), (1, 7)], None),
        ([(1, 5), (2, 6)], None),
    ],
)
def test_a_rank_correlation_has_the_p_of_all_orders(points, expected):
    assert rank_correlation(points) == (pytest.approx(expected) if expected else None)
