"""A run's first TOML file, guessed from the first rows of its logs: columns, domains, and how times are written."""

from __future__ import annotations

import glob
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flows.config.log_head import LogHead
from pipeline.logs.discovery import LogError
from pipeline.logs.numbers import parse_integers, parse_ratings
from pipeline.logs.signatures import ITEM_NAME, USER_NAME, has_name_of
from pipeline.logs.times import parse_times

_TIME_NAME = (
    r"(unix)?(review|event|created|order|invoice|transaction|rating|click|watch|purchase|bestell|kauf)?"
    r"(timestamp|datetime|time|date|ts|at|datum|zeit|zeitpunkt|zeitstempel)"
)
_NAMES = {
    "timestamp": _TIME_NAME,
    "rating": r"(overall|user|book|star)?(rating|ratings|stars|score|overall|bewertung|note)",
    "domain": r"(domain|market|shop|store|category|department|genre|channel|country|site|region|scene"
    r"|markt|kategorie|abteilung|warengruppe|sparte)(id|name|code)?",
    "user": f"{USER_NAME}|u",
    "item": f"{ITEM_NAME}|i",
}
"""Field → names of its column, in lower case, without other characters than letters and digits."""

_TIME_FORMATS = (
    *(f"{day}{clock}" for day in ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d")
      for clock in (" %H:%M:%S", " %H:%M", "")),
    *(f"{day}{clock}" for day in ("%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d-%m-%y")
      for clock in (" %H:%M:%S", " %H:%M", "")),
    "%a %b %d %H:%M:%S %Y", "%d %b %Y %H:%M", "%d %b %Y", "%m %d, %Y", "%b %d, %Y", "%d/%b/%Y:%H:%M:%S %z",
)  # fmt: skip

_MOST_DOMAINS = 100
_SINCE_1970 = 10**8
_UNITS = ("s", "ms", "us", "ns")
_YEAR_1000 = -30_610_224_000 * 10**6
_SURE = 0.9
"""Least share of values that are what a field needs."""


@dataclass(frozen=True)
class LogGuess:
    """What a log seems to be.

    Attributes:
        head: its first rows.
        keys: of its source where they are not the defaults.
        columns: field → its column in the head, in the order in which they are written.
        unsure: fields whose column was found by its values and not by its name.
        unit: of the times: s, ms, us or ns; "" where there are none, or they do not tell it.
        unread_times: a column that is called like times and has none that can be read; "" where there is none.
    """

    head: LogHead
    keys: dict[str, Any]
    columns: dict[str, str]
    unsure: tuple[str, ...]
    unit: str
    unread_times: str

    def values(self, field: str) -> pa.Array:
        """The text of a field in the first rows."""
        return _column(self.head.rows, self.columns[field])


def guess_log(head: LogHead) -> LogGuess:
    """Guess the columns of a log.

    Raises:
        LogError: there are no columns that may be a user and an item.
    """
    rows, keys = head.rows, dict(head.keys)
    columns = _by_names(rows) if keys.get("header", True) else {}
    named = set(columns)
    columns |= dict(_by_values(rows, columns))
    if not {"user", "item"} <= columns.keys():
        raise LogError(
            f"{head.path}: no columns of users and items were found among {', '.join(rows.column_names[:20])}; write "
            "the run's file by hand, see docs/data/logs.md"
        )
    unit = ""
    if "timestamp" in columns:
        times = _column(rows, columns["timestamp"])
        if time_format := _time_format(times):
            keys["timestamp_format"] = time_format
        unit = "us" if time_format else _unit(times, head.types.get(columns["timestamp"]))
    order = [field for field in ("user", "item", "domain", "rating", "timestamp") if field in columns]
    unsure = tuple(field for field in order if field not in named)
    called = "" if "timestamp" in columns else next((n for n in rows.column_names if has_name_of(_TIME_NAME, n)), "")
    return LogGuess(head, keys, {field: columns[field] for field in order}, unsure, unit, called)


def _column(rows: pa.Table, name: str) -> pa.Array:
    return pa.concat_arrays([pa.array([], pa.string()), *rows[name].chunks])


def _by_names(rows: pa.Table) -> dict[str, str]:
    columns: dict[str, str] = {}
    for field, pattern in _NAMES.items():
        for name in rows.column_names:
            is_usable = (
                has_name_of(pattern, name) and name not in columns.values() and rows.column_names.count(name) == 1
            )
            if is_usable and field not in columns and _fits(field, _column(rows, name)):
                columns[field] = name
    return columns


def _fits(field: str, values: pa.Array) -> bool:
    if field == "rating":
        return _valid_share(parse_ratings(values)) > _SURE
    if field == "timestamp":
        return _valid_share(parse_times(values)) > _SURE or _time_format(values) is not None
    distinct: int = pc.count_distinct(values).as_py()
    return field != "domain" or 1 <= distinct <= min(_MOST_DOMAINS, len(values) / 2)


def _by_values(rows: pa.Table, columns: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Fields that no name tells: times by how they look, then users and items by their numbers of distinct values."""
    left = [name for name in rows.column_names if name not in columns.values() and rows.column_names.count(name) == 1]
    if "timestamp" not in columns:
        for name in left:
            if _look_like_times(_column(rows, name)):
                left.remove(name)
                yield "timestamp", name
                break
    distinct = {name: pc.count_distinct(rows[name]).as_py() for name in left}
    # A value that never comes again is the number of a row, and a decimal a price or a weight, rather than an id.
    is_other = {name: distinct[name] == rows.num_rows or _are_decimals(rows[name]) for name in left}
    likely = sorted(left, key=lambda name: (is_other[name], -distinct[name]))
    wanted = [field for field in ("user", "item") if field not in columns]
    yield from zip(wanted, sorted(likely[: len(wanted)], key=left.index), strict=False)


def _are_decimals(values: pa.ChunkedArray) -> bool:
    """Whether most values are numbers, and many of them have a fraction."""
    numbers, fractions = (
        pc.mean(pc.match_substring_regex(values, pattern)).as_py() or 0.0
        for pattern in (r"^[+-]?[0-9]+([.,][0-9]+)?$", r"^[+-]?[0-9]+[.,][0-9]*[1-9][0-9]*$")
    )
    return bool(numbers > _SURE and fractions > 0.1)


def _possible_domains(guess: LogGuess) -> Iterator[str]:
    """Columns of few words that may name domains, each with the number of its values."""
    rows, taken = guess.head.rows, guess.columns.values()
    for name in rows.column_names:
        if name in taken or rows.column_names.count(name) > 1:
            continue
        values = _column(rows, name)
        is_word = pc.match_substring_regex(values, r"^[^\d]{2,40}$")
        count = pc.count_distinct(values).as_py()
        if (
            2 <= count <= _MOST_DOMAINS
            and 20 * count <= len(values)
            and (pc.sum(is_word).as_py() or 0) > _SURE * len(values)
        ):
            yield f"{name} ({count} values)"


def _look_like_times(values: pa.Array) -> bool:
    numbers = parse_integers(values).drop_null()
    if len(numbers) > _SURE * len(values):
        return bool(pc.min(numbers).as_py() >= _SINCE_1970 and pc.count_distinct(numbers).as_py() > 1)
    return _valid_share(parse_times(values)) > _SURE or _time_format(values) is not None


def _valid_share(values: pa.Array) -> float:
    return 1.0 - int(values.null_count) / max(len(values), 1)


def _time_format(values: pa.Array) -> str | None:
    """The first of the known formats in which all times are; None where they are numbers, ISO 8601, or in none."""
    text = values.drop_null().slice(0, 1000)
    text = text.filter(pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(text)), 0))
    if not len(text) or _valid_share(parse_times(text)) > _SURE:
        return None
    for time_format in _TIME_FORMATS:
        times = parse_times(text, time_format)
        if not times.null_count and pc.min(times).as_py() >= _YEAR_1000:  # %Y reads 24 as a year, too
            return time_format
    return None


def _unit(times: pa.Array, type_: pa.DataType | None) -> str:
    if type_ is not None and pa.types.is_timestamp(type_):
        return str(type_.unit)
    if type_ is not None and pa.types.is_date(type_):
        return ""
    numbers = parse_integers(times).drop_null()
    if not len(numbers):
        return "us"
    largest = pc.max(numbers).as_py()
    return next((unit for power, unit in enumerate(_UNITS) if 1 <= largest // (_SINCE_1970 * 1000**power) < 1000), "")


def write_first_run(guesses: Sequence[LogGuess], name: str, folder: Path) -> str:
    """The text of a run's file in a folder: short, each guess with a comment."""
    timed = all("timestamp" in guess.columns for guess in guesses)
    method, why = ("leave-last-out", "a user's last two are held out") if timed else ("random", "no column of times")
    others = "random, time, given" if timed else "given; leave-last-out and time need columns.timestamp"
    for guess in guesses:
        if guess.unread_times:
            why += f": {_toml(guess.unread_times)} of {_toml(guess.head.path.name)} is not in one known format"
    lines = [f"name = {_toml(name)}  # guessed by `edda init`; `edda config` prints every key"]
    units = {guess.unit for guess in guesses if "timestamp" in guess.columns}
    for guess, domain in zip(guesses, _domain_names([guess.head.path for guess in guesses]), strict=True):
        lines += ["", *_source_lines(guess, domain, folder, guess.unit if len(units) > 1 else "")]
    lines += ["", "[ingest.split]", f"method = {_toml(method)}  # {why}; or {others}"]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _domain_names(paths: Sequence[Path]) -> list[str]:
    """The files' names up to the first dot, with their folders' in front where several are called alike."""
    names = [path.name.partition(".")[0] or "all" for path in paths]
    return [
        f"{path.absolute().parent.name}-{name}" if names.count(name) > 1 else name
        for path, name in zip(paths, names, strict=True)
    ]


def _source_lines(guess: LogGuess, domain: str, folder: Path, unit: str) -> Iterator[str]:
    """The lines of a source; with the unit of its times if those of others have another one."""
    path, rows = guess.head.path.absolute(), guess.head.rows
    relative = path.relative_to(folder.absolute()) if path.is_relative_to(folder.absolute()) else path
    yield "[[logs]]"
    pattern = glob.escape(relative.as_posix())
    yield f"path = {_toml(pattern)}  # looked at {rows.num_rows:,} rows"
    if "domain" in guess.columns:
        count = pc.count_distinct(guess.values("domain")).as_py()
        yield f'# columns.domain has {count:,} values there; for one domain, put domain = "…" in its place'
    else:
        others = ", ".join(_possible_domains(guess))
        yield f"domain = {_toml(domain)}  # or columns.domain, which names it{others and f'; perhaps {others}'}"
    for key, value in guess.keys.items():
        note = "  # or month first?" if str(value).startswith("%d/%m") else ""
        yield f"{key} = {_toml(value)}{note}"
    if unit in ("s", "ms", "ns"):
        yield f"timestamp_format = {_toml(unit)}  # because times of the logs have several units"
    has_names = guess.keys.get("header", True)
    columns = ((field, name if has_names else int(name)) for field, name in guess.columns.items())
    mapping = ", ".join(f"{field} = {_toml(column)}" for field, column in columns)
    note = f"CHECK: {', '.join(guess.unsure)} guessed from values" if guess.unsure else "by their names"
    yield f"columns = {{ {mapping} }}  # {note}"
    yield from _threshold(guess)


def _threshold(guess: LogGuess) -> Iterator[str]:
    """The line of `rating_at_least`, if there are ratings."""
    if "rating" in guess.columns:
        low, high = pc.min_max(parse_ratings(guess.values("rating"))).as_py().values()
        least = high if low == high else math.ceil(low + 0.7 * (high - low))
        yield f"rating_at_least = {least:g}  # ratings are {low:g} to {high:g}; lower ones are not positives"
