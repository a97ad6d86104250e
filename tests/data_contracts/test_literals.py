"""Literals are what Arrow makes of Python values."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data_contracts.literals import literal, strings


@pytest.mark.parametrize("value", [0, -1, 2**62, 1.5, float("inf"), True, False, "", "ä", "a\0b"])
def test_a_literal_is_the_scalar_that_arrow_makes(value):
    assert literal(value) == pa.scalar(value)
    assert literal(value).type == pa.scalar(value).type


@pytest.mark.parametrize("texts", [[], ["a"], ["b", "", "日本"]], ids=len)
def test_strings_are_an_array(texts):
    assert strings(texts).equals(pa.array(texts, pa.string()))
    strings(texts).validate(full=True)


def test_a_literal_is_compared_with_columns_of_other_widths():
    assert pc.less(pa.array([1, 3], pa.int32()), literal(2)).to_pylist() == [True, False]
    assert pc.greater(pa.array([0.5, None], pa.float32()), literal(0)).to_pylist() == [True, None]
