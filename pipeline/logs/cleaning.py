"""Cleaning: text fields to the values of an interaction, or a reject with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import SPLITS
from pipeline.compute.dtypes import Longs
from pipeline.logs.discovery import SPLIT_NAMES, LogFile
from pipeline.logs.records import TEXT_KEPT, Records

REJECT_SCHEMA = pa.schema([("line", pa.int64()), ("reason", pa.string()), ("text", pa.string())])
"""Rejected records of one file."""

CLEAN_SCHEMA = pa.schema(
    [
        ("line", pa.int64()),
        ("domain", pa.dictionary(pa.int32(), pa.string())),
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("split", pa.int8()),
        ("timestamp", pa.int64()),
    ]
)
"""Good records of one file: `split` is an index into SPLITS, or null; `timestamp` may be null."""

_FIXED = r"^(?P<whole>[+-]?[0-9]{1,19})(?P<fraction>\.[0-9]*)$"
_DECIMAL = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
_MOMENT = (
    r"^(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ](?P<clock>[0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(?:(?P<fraction>\.[0-9]{1,6})[0-9]*)?"
    r"(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})?)?$"
)


class Cleaned(NamedTuple):
    """Records of one block, cleaned.

    Attributes:
        rows: CLEAN_SCHEMA, by line.
        rejects: REJECT_SCHEMA, by line.
        domains: of each reject, as string; null where it is not known.
    """

    rows: pa.Table
    rejects: pa.Table
    domains: pa.Array


def clean(records: Records, log: LogFile) -> Cleaned:
    """Convert fields to values; failures are rejected with reason missing, number, split or rating, in this order."""
    fields = records.fields
    rejects = RejectCollector(len(records.lines))
    for values in fields.values():
        rejects.reject("missing", pc.equal(pc.binary_length(values).fill_null(0), 0), None)
    columns = {"timestamp": pa.nulls(rejects.size, pa.int64()), "split": pa.nulls(rejects.size, pa.int8())}
    if "timestamp" in fields:
        columns["timestamp"] = parse_times(fields["timestamp"])
        rejects.reject("number", pc.is_null(columns["timestamp"]), fields["timestamp"])
    if "rating" in fields:
        rated = parse_ratings(fields["rating"])
        rejects.reject("number", pc.is_null(rated), fields["rating"])
        rejects.reject("rating", pc.less(rated, log.source.rating_at_least), fields["rating"])
    if "split" in fields:
        columns["split"] = _parse_splits(fields["split"])
        rejects.reject("split", pc.is_null(columns["split"]), fields["split"])
    elif log.split is not None:
        columns["split"] = pa.repeat(pa.scalar(SPLITS.index(log.split), pa.int8()), rejects.size)
    named = {
        "line": records.lines,
        "domain": _domains(fields, log, rejects.size),
        "user_id": fields["user"],
        "item_id": fields["item"],
        **columns,
    }
    rows = pa.table({name: named[name] for name in CLEAN_SCHEMA.names}, CLEAN_SCHEMA)
    rejected = rejects.table(records, fields)
    return Cleaned(rejects.keep_accepted(rows), rejected, _domains_of_rejects(records, rejected["line"], log))


def _domains_of_rejects(records: Records, lines: pa.ChunkedArray, log: LogFile) -> pa.Array:
    """The domain of each rejected line; null where it is missing, or a column of a line that cannot be read."""
    if "domain" not in records.fields:
        return pa.repeat(pa.scalar(log.domain, pa.string()), len(lines))
    indices = pc.index_in(lines.combine_chunks(), value_set=records.lines)
    domains = records.fields["domain"].take(indices)
    return pc.if_else(pc.equal(domains, ""), None, domains)


def _domains(fields: Mapping[str, pa.Array], log: LogFile, size: int) -> pa.DictionaryArray:
    if "domain" in fields:
        return fields["domain"].dictionary_encode()
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(size, np.int32)), pa.array([log.domain], pa.string()))


class RejectCollector:
    """Collects the first reason against each record."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._rejects: list[tuple[str, Longs, pa.Array | None]] = []
        self._is_rejected = np.zeros(size, dtype=bool)

    def reject(self, reason: str, broken: pa.Array, offending: pa.Array | None) -> None:
        """Reject broken records that no earlier reason rejected; their text is the offending field, or the ids."""
        mask = broken.fill_null(False).to_numpy(zero_copy_only=False) & ~self._is_rejected
        if mask.any():
            self._rejects.append((reason, np.flatnonzero(mask), offending))
            self._is_rejected |= mask

    def keep_accepted(self, rows: pa.Table) -> pa.Table:
        """Rows of the records that were not rejected."""
        return rows.filter(pa.array(~self._is_rejected)) if self._rejects else rows

    def table(self, records: Records, fields: Mapping[str, pa.Array]) -> pa.Table:
        """Rejected and unreadable records, under REJECT_SCHEMA, by line."""
        unreadable = list(zip(*records.unreadable, strict=True)) or [()] * len(REJECT_SCHEMA)
        columns = [pa.array(values, type_) for values, type_ in zip(unreadable, REJECT_SCHEMA.types, strict=True)]
        tables = [pa.table(columns, REJECT_SCHEMA)]
        for reason, rows, offending in self._rejects:
            text = offending.take(pa.array(rows)) if offending is not None else join_ids(fields, rows)
            columns = [records.lines.take(pa.array(rows)), pa.repeat(reason, len(rows)), shorten(text)]
            tables.append(pa.table(columns, REJECT_SCHEMA))
        return pa.concat_tables(tables).sort_by("line")


def join_ids(fields: Mapping[str, pa.Array], rows: Longs) -> pa.Array:
    """User id, tab, item id of some records, "" where one is missing."""
    ids = [fields[name].take(pa.array(rows)).fill_null("") for name in ("user", "item")]
    return pc.binary_join_element_wise(*ids, "\t")


def shorten(text: pa.Array) -> pa.Array:
    """Text for the rejects, at most TEXT_KEPT characters; "" for null."""
    return pc.utf8_slice_codeunits(text.fill_null(""), 0, TEXT_KEPT)


def parse_times(text: pa.Array) -> pa.Array:
    """Times as int64; null where the text is neither a number that fits nor an ISO 8601 date or moment.

    Numbers keep the log's unit. Moments are microseconds since 1970, UTC where they have no zone; finer digits are cut.
    """
    numbers = parse_integers(text)
    return numbers if numbers.null_count == text.null_count else pc.coalesce(numbers, _parse_moments(text))


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
    truths = pc.index_in(pc.utf8_lower(text), value_set=pa.array(["false", "true"]), skip_nulls=True)
    return pc.coalesce(parse_decimals(text), truths.cast(pa.float64()))


def _parse_splits(text: pa.Array) -> pa.Array:
    names = pc.utf8_lower(pc.utf8_trim_whitespace(text))
    codes = pa.array([SPLITS.index(split) for split in SPLIT_NAMES.values()], pa.int8())
    return codes.take(pc.index_in(names, value_set=pa.array(list(SPLIT_NAMES))))
