"""Cut-offs of time: numbers in the unit of a log, moments, or how long before the log's end."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def _parse_cut_off(value: Any) -> Any:
    """Dates of TOML as text, and digits as a number; other values as they are, if text is a moment or a duration."""
    if isinstance(value, date):
        return value.isoformat()
    if not isinstance(value, str) or parse_duration(value) is not None:
        return value
    if re.fullmatch(r"[+-]?[0-9]+", value):
        return int(value)
    try:
        parse_moment(value)
    except ValueError:
        rule = "a number, a date such as 2026-11-15, or a duration such as 30d"
        raise ValueError(f"{value!r} must be {rule}") from None
    return value.replace(" ", "T", 1)


CutOff = Annotated[int | str, BeforeValidator(_parse_cut_off)]
"""A cut-off of time: in the unit of the log, or text for `parse_moment` or `parse_duration`."""


def parse_moment(text: str) -> datetime:
    """A date or moment of ISO 8601; in UTC where it names no zone.

    Raises:
        ValueError: it is no such text.
    """
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def parse_duration(text: str) -> timedelta | None:
    """A duration such as "30d", in seconds (s), minutes (m), hours (h), days (d) or weeks (w); None for other text."""
    match = re.fullmatch(r"([0-9]{1,9}) ?([smhdw])", text)
    return None if match is None else timedelta(seconds=int(match[1]) * _SECONDS[match[2]])


def is_later(first: int | str | None, second: int | str | None) -> bool:
    """Whether a cut-off is later than another of its kind; those of two kinds are compared once the log is read."""
    if isinstance(first, int) and isinstance(second, int):
        return first > second
    if not isinstance(first, str) or not isinstance(second, str):
        return False
    durations = parse_duration(first), parse_duration(second)
    if durations == (None, None):
        return parse_moment(first) > parse_moment(second)
    return durations[0] is not None and durations[1] is not None and durations[0] < durations[1]
