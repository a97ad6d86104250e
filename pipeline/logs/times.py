"""Times of logs: text to integers."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.logs.discovery import LogError
from pipeline.logs.numbers import divide_down, parse_decimals, parse_integers

_MOMENT = (
    r"^(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ](?P<clock>[0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(?:(?P<fraction>\.[0-9]{1,6})[0-9]*)?"
    r"(?P<zone>Z|[+-][0-9]{2}(?::?[0-9]{2})?)?)?$"
)
"""ISO 8601; Postgres writes a space for the T, and zones as +00."""

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def parse_times(text: pa.Array, time_format: str | None = None) -> pa.Array:
    """Times as int64; null where the text is no such time, or does not fit.

    Args:
        text: numbers, which keep the log's unit, or ISO 8601 dates and moments, which become microseconds since 1970,
            in UTC where they have no zone; finer digits are cut.
        time_format: a unit (s, ms, us, ns), whose numbers become microseconds, too; or a format of strptime, in which
            all times are.

    Raises:
        LogError: the format is none of strptime.
    """
    if time_format in _PER_SECOND:
        numbers = _from_unit(text, _PER_SECOND[time_format])
    elif time_format is not None:
        return _parse_by_format(text, time_format)
    else:
        numbers = parse_integers(text)
    return numbers if numbers.null_count == text.null_count else pc.coalesce(numbers, _parse_moments(text))


def _from_unit(text: pa.Array, per_second: int) -> pa.Array:
    """Numbers of a unit as microseconds, rounded down for nanoseconds; null where they do not fit."""
    numbers = parse_integers(text)
    factor = _PER_SECOND["us"] // per_second
    if not factor:
        return divide_down(numbers, per_second // _PER_SECOND["us"])
    fits = pc.and_(pc.less(numbers, 2**62 // factor), pc.greater(numbers, -(2**62) // factor))
    decimals = parse_decimals(text)
    fraction = pc.round(pc.multiply(pc.subtract(decimals, pc.floor(decimals)), factor)).cast(pa.int64())
    return pc.add(pc.multiply(pc.if_else(fits, numbers, None), factor), fraction)


def _parse_by_format(text: pa.Array, time_format: str) -> pa.Array:
    # Without digits, DuckDB reads `epoch` and `infinity` in any format, as 1900.
    digits = pc.if_else(pc.match_substring_regex(text, "[0-9]"), text, None)
    settings: dict[str, Any] = {"threads": 1, "autoinstall_known_extensions": False}
    literal = time_format.replace("'", "''")
    with duckdb.connect(config=settings) as connection:
        connection.register("times", pa.table({"text": digits}))
        try:
            parsed = connection.sql(f"select epoch_us(try_strptime(trim(text), '{literal}')) as us from times")
            table = parsed.to_arrow_table()
        except duckdb.Error as error:
            reason = str(error).splitlines()[0]
            raise LogError(f"timestamp_format is {time_format!r}, must be one of strptime: {reason}") from error
    return pa.concat_arrays([pa.array([], pa.int64()), *table["us"].chunks])


def _parse_moments(text: pa.Array) -> pa.Array:
    fields = pc.extract_regex(pc.ascii_trim_whitespace(text), _MOMENT)
    day, clock, fraction, zone = (pc.struct_field(fields, name) for name in ("day", "clock", "fraction", "zone"))
    clock = pc.if_else(pc.equal(clock, ""), "00:00", clock)
    zone = pc.if_else(pc.equal(zone, ""), "Z", zone)
    moments = pc.binary_join_element_wise(day, "T", clock, fraction, zone, "")
    try:
        return _microseconds(moments)
    except pa.ArrowInvalid:  # some day or hour does not exist: convert one by one
        return pa.concat_arrays([_microseconds_or_null(moments.slice(row, 1)) for row in range(len(moments))])


def _microseconds(moments: pa.Array) -> pa.Array:
    return moments.cast(pa.timestamp("us", "UTC")).cast(pa.int64())


def _microseconds_or_null(moment: pa.Array) -> pa.Array:
    try:
        return _microseconds(moment)
    except pa.ArrowInvalid:
        return pa.nulls(1, pa.int64())
