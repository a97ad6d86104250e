"""Numbers of logs: text to integers, decimals and ratings."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_FIXED = r"^(?P<whole>[+-]?[0-9]{1,19})(?P<fraction>\.[0-9]*)$"
_DECIMAL = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"


def parse_integers(text: pa.Array) -> pa.Array:
    """Integers and decimals as int64, rounded down; null where the text is no number that fits.

    Exact for up to 19 digits before the point; powers of ten and longer numbers go through float64.
    """
    if _are_short_digits(text):
        return text.cast(pa.int64())
    trimmed = pc.ascii_trim_whitespace(text)
    integers = _parse_plain_integers(trimmed)
    if integers.null_count == 0:
        return integers
    decimal = pc.extract_regex(trimmed, _FIXED)
    whole = _parse_plain_integers(pc.struct_field(decimal, "whole"))
    has_fraction = pc.match_substring_regex(pc.struct_field(decimal, "fraction"), "[1-9]").fill_null(False)
    below = pc.and_(pc.starts_with(trimmed, "-").fill_null(False), has_fraction)
    exact = pc.coalesce(integers, pc.subtract(whole, below.cast(pa.int64())))
    return pc.coalesce(exact, _round_down(parse_decimals(pc.if_else(pc.is_null(exact), trimmed, None))))


def _are_short_digits(text: pa.StringArray) -> bool:
    """Whether every value is 1 to 18 ASCII digits: the usual case, checked on all bytes at once."""
    lengths = pc.min_max(pc.binary_length(text)).as_py()
    if not len(text) or text.null_count or lengths["min"] < 1 or lengths["max"] > 18:
        return False
    offsets = np.frombuffer(text.buffers()[1], np.int32)
    data = np.frombuffer(text.buffers()[2], np.uint8)[offsets[text.offset] : offsets[text.offset + len(text)]]
    return bool(((data >= ord("0")) & (data <= ord("9"))).all())


def _parse_plain_integers(text: pa.Array) -> pa.Array:
    """Plain integers of at most 19 digits between -(2⁶³ - 1) and 2⁶³ - 1; null for any other text."""
    is_negative = pc.starts_with(text, "-")
    has_sign = pc.or_(is_negative, pc.starts_with(text, "+"))
    digits = pc.if_else(has_sign, pc.utf8_slice_codeunits(text, 1), text)
    longest = pc.and_(pc.match_substring_regex(digits, r"^[0-9]{19}$"), pc.less_equal(digits, str(2**63 - 1)))
    fits = pc.or_(pc.match_substring_regex(digits, r"^[0-9]{1,18}$"), longest)
    values = pc.if_else(fits, digits, None).cast(pa.int64())
    return pc.if_else(is_negative, pc.negate(values), values)


def _round_down(values: pa.Array) -> pa.Array:
    fits = pc.and_(pc.greater_equal(values, -(2.0**63)), pc.less(values, 2.0**63))
    return pc.floor(pc.if_else(fits, values, None)).cast(pa.int64())


def parse_decimals(text: pa.Array) -> pa.Array:
    """Finite float64 numbers; null for other text."""
    trimmed = pc.ascii_trim_whitespace(text)
    good = pc.match_substring_regex(trimmed, _DECIMAL)
    values = pc.if_else(good, trimmed, None).cast(pa.float64())
    return pc.if_else(pc.is_finite(values), values, None)


def parse_ratings(text: pa.Array) -> pa.Array:
    """Numbers as by `parse_decimals`; true is 1, false is 0."""
    words = pc.ascii_lower(pc.ascii_trim_whitespace(text))
    truths = pc.index_in(words, value_set=pa.array(["false", "true"]), skip_nulls=True)
    return pc.coalesce(parse_decimals(text), truths.cast(pa.float64()))


def divide_down(values: pa.Array, divisor: int) -> pa.Array:
    """Integers divided, rounded down."""
    quotients = pc.divide(values, divisor)  # towards 0
    return pc.subtract(quotients, pc.less(values, pc.multiply(quotients, divisor)).cast(pa.int64()))
