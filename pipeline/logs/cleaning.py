"""Cleaning: text fields become an interaction's values, or a reject with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import SPLITS
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
    """Records of one block, sorted out.

    Attributes:
        rows: CLEAN_SCHEMA, by line.
        rejects: REJECT_SCHEMA, by line.
    """

    rows: pa.Table
    rejects: pa.Table


def clean(records: Records, log: LogFile) -> Cleaned:
    """Turn fields into values; what cannot be is rejected as missing, number, split or rating, in this order."""
    fields = records.fields
    sorter = Sorter(len(records.lines))
    for values in fields.values():
        sorter.reject("missing", pc.equal(pc.binary_length(values).fill_null(0), 0), None)
    columns = {"timestamp": _empty(pa.int64(), sorter.size), "split": _empty(pa.int8(), sorter.size)}
    if "timestamp" in fields:
        columns["timestamp"] = times(fields["timestamp"])
        sorter.reject("number", pc.is_null(columns["timestamp"]), fields["timestamp"])
    if "rating" in fields:
        rated = ratings(fields["rating"])
        sorter.reject("number", pc.is_null(rated), fields["rating"])
        sorter.reject("rating", pc.less(rated, log.source.rating_at_least), fields["rating"])
    if "split" in fields:
        columns["split"] = _split_codes(fields["split"])
        sorter.reject("split", pc.is_null(columns["split"]), fields["split"])
    elif log.split is not None:
        columns["split"] = pa.repeat(pa.scalar(SPLITS.index(log.split), pa.int8()), sorter.size)
    named = {
        "line": records.lines,
        "domain": _domains(fields, log, sorter.size),
        "user_id": fields["user"],
        "item_id": fields["item"],
        **columns,
    }
    rows = pa.table({name: named[name] for name in CLEAN_SCHEMA.names}, CLEAN_SCHEMA)
    return Cleaned(sorter.of_good(rows), sorter.rejects(records, fields))


def _domains(fields: Mapping[str, pa.Array], log: LogFile, size: int) -> pa.DictionaryArray:
    if "domain" in fields:
        return fields["domain"].dictionary_encode()
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(size, np.int32)), pa.array([log.domain], pa.string()))


class Sorter:
    """Collects the first reason against each record."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._reasons: list[tuple[str, np.ndarray, pa.Array | None]] = []
        self._rejected = np.zeros(size, dtype=bool)

    def reject(self, reason: str, broken: pa.Array, offending: pa.Array | None) -> None:
        """Reject broken records that no earlier reason rejected; their text is the offending field, or the ids."""
        mask = broken.fill_null(False).to_numpy(zero_copy_only=False) & ~self._rejected
        if mask.any():
            self._reasons.append((reason, np.flatnonzero(mask), offending))
            self._rejected |= mask

    def of_good(self, rows: pa.Table) -> pa.Table:
        """Rows of the records that nothing rejected."""
        return rows.filter(pa.array(~self._rejected)) if self._reasons else rows

    def rejects(self, records: Records, fields: Mapping[str, pa.Array]) -> pa.Table:
        """Rejected and unreadable records."""
        lines, reasons, texts = (
            (list(column) for column in zip(*records.unreadable, strict=True)) if records.unreadable else ([], [], [])
        )
        tables = [pa.table([lines, reasons, texts], REJECT_SCHEMA)]
        for reason, rows, offending in self._reasons:
            text = offending.take(pa.array(rows)) if offending is not None else ids_text(fields, rows)
            columns = [records.lines.take(pa.array(rows)), pa.repeat(reason, len(rows)), shortened(text)]
            tables.append(pa.table(columns, REJECT_SCHEMA))
        return pa.concat_tables(tables).sort_by("line")


def ids_text(fields: Mapping[str, pa.Array], rows: np.ndarray) -> pa.Array:
    """User id, tab, item id of some records, "" where one is missing."""
    ids = [fields[name].take(pa.array(rows)).fill_null("") for name in ("user", "item")]
    return pc.binary_join_element_wise(*ids, "\t")


def shortened(text: pa.Array) -> pa.Array:
    """Text for the rejects: at most TEXT_KEPT characters, "" for null."""
    return pc.utf8_slice_codeunits(text.fill_null(""), 0, TEXT_KEPT)


def times(text: pa.Array) -> pa.Array:
    """Times as int64; null where the text is neither a number that fits nor an ISO 8601 date or moment.

    Numbers keep the log's unit. Moments are microseconds since 1970, UTC where they name no zone, finer digits cut off.
    """
    numbers = whole_numbers(text)
    return numbers if numbers.null_count == text.null_count else pc.coalesce(numbers, _moments(text))


def _moments(text: pa.Array) -> pa.Array:
    parts = pc.extract_regex(pc.ascii_trim_whitespace(text), _MOMENT)
    day, clock, fraction, zone = (pc.struct_field(parts, name) for name in ("day", "clock", "fraction", "zone"))
    clock, zone = (pc.if_else(pc.equal(part, ""), usual, part) for part, usual in ((clock, "00:00"), (zone, "Z")))
    written = pc.binary_join_element_wise(day, "T", clock, fraction, zone, "")
    try:
        return _microseconds(written)
    except pa.ArrowInvalid:  # a day or hour that does not exist: one by one
        return pa.concat_arrays([_microseconds_or_null(written.slice(row, 1)) for row in range(len(written))])


def _microseconds(moments: pa.Array) -> pa.Array:
    return moments.cast(pa.timestamp("us", "UTC")).cast(pa.int64())


def _microseconds_or_null(moment: pa.Array) -> pa.Array:
    try:
        return _microseconds(moment)
    except pa.ArrowInvalid:
        return pa.nulls(1, pa.int64())


def whole_numbers(text: pa.Array) -> pa.Array:
    """Integers and decimals as int64, truncated toward the floor; null where the text is no number that fits.

    Exact for up to 19 digits before the point; powers of ten and longer numbers go through float64.
    """
    if _are_short_digits(text):
        return text.cast(pa.int64())
    trimmed = pc.ascii_trim_whitespace(text)
    integers = _integers(trimmed)
    if integers.null_count == 0:
        return integers
    parts = pc.extract_regex(trimmed, _FIXED)
    whole = _integers(pc.struct_field(parts, "whole"))
    has_fraction = pc.match_substring_regex(pc.struct_field(parts, "fraction"), "[1-9]").fill_null(False)
    below = pc.and_(pc.starts_with(trimmed, "-").fill_null(False), has_fraction)
    exact = pc.coalesce(integers, pc.subtract(whole, below.cast(pa.int64())))
    return pc.coalesce(exact, _floored(decimals(pc.if_else(pc.is_null(exact), trimmed, None))))


def _are_short_digits(text: pa.StringArray) -> bool:
    """True where every value is 1 to 18 ASCII digits: the usual case, seen from the bytes at once."""
    lengths = pc.min_max(pc.binary_length(text)).as_py()
    if not len(text) or text.null_count or lengths["min"] < 1 or lengths["max"] > 18:
        return False
    offsets = np.frombuffer(text.buffers()[1], np.int32)
    data = np.frombuffer(text.buffers()[2], np.uint8)[offsets[text.offset] : offsets[text.offset + len(text)]]
    return bool(((data >= ord("0")) & (data <= ord("9"))).all())


def _integers(text: pa.Array) -> pa.Array:
    """Plain integers of at most 19 digits between -(2⁶³ - 1) and 2⁶³ - 1; null for any other text."""
    is_negative = pc.starts_with(text, "-")
    has_sign = pc.or_(is_negative, pc.starts_with(text, "+"))
    digits = pc.if_else(has_sign, pc.utf8_slice_codeunits(text, 1), text)
    longest = pc.and_(pc.match_substring_regex(digits, r"^[0-9]{19}$"), pc.less_equal(digits, str(2**63 - 1)))
    fits = pc.or_(pc.match_substring_regex(digits, r"^[0-9]{1,18}$"), longest)
    values = pc.if_else(fits, digits, None).cast(pa.int64())
    return pc.if_else(is_negative, pc.negate(values), values)


def _floored(values: pa.Array) -> pa.Array:
    fits = pc.and_(pc.greater_equal(values, -(2.0**63)), pc.less(values, 2.0**63))
    return pc.floor(pc.if_else(fits, values, None)).cast(pa.int64())


def decimals(text: pa.Array) -> pa.Array:
    """Finite float64 numbers; null where the text is none."""
    trimmed = pc.ascii_trim_whitespace(text)
    good = pc.match_substring_regex(trimmed, _DECIMAL)
    values = pc.if_else(good, trimmed, None).cast(pa.float64())
    return pc.if_else(pc.is_finite(values), values, None)


def ratings(text: pa.Array) -> pa.Array:
    """As `decimals`; true is 1, false is 0."""
    truths = pc.index_in(pc.utf8_lower(text), value_set=pa.array(["false", "true"]), skip_nulls=True)
    return pc.coalesce(decimals(text), truths.cast(pa.float64()))


def _split_codes(text: pa.Array) -> pa.Array:
    names = pc.utf8_lower(pc.utf8_trim_whitespace(text))
    codes = pa.array([SPLITS.index(split) for split in SPLIT_NAMES.values()], pa.int8())
    return codes.take(pc.index_in(names, value_set=pa.array(list(SPLIT_NAMES))))


def _empty(type_: pa.DataType, size: int) -> pa.Array:
    return pa.nulls(size, type_)
