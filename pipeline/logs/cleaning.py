"""Cleaning: text fields to the values of an interaction, or a reject with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import SPLITS
from data_contracts.settings.logs import Columns
from pipeline.compute.dtypes import Longs
from pipeline.logs.discovery import SPLIT_NAMES, LogError, LogFile
from pipeline.logs.formats import format_by_name
from pipeline.logs.numbers import parse_ratings
from pipeline.logs.records import TEXT_KEPT, Records
from pipeline.logs.times import parse_times

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
    """Convert fields to values; failures are rejected as header, missing, number, split or rating, in this order."""
    fields = records.fields
    rejects = RejectCollector(len(records.lines))
    if log.source.header and format_by_name(log) in ("csv", "tsv"):
        rejects.reject("header", _is_header(fields, log.source.columns), None)
    for values in fields.values():
        rejects.reject("missing", pc.equal(pc.binary_length(values).fill_null(0), 0), None)
    columns = {"timestamp": pa.nulls(rejects.size, pa.int64()), "split": pa.nulls(rejects.size, pa.int8())}
    if "timestamp" in fields:
        try:
            columns["timestamp"] = parse_times(fields["timestamp"], log.source.timestamp_format)
        except LogError as error:
            raise LogError(f"{log.path}: {error}") from error
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


def _is_header(fields: Mapping[str, pa.Array], columns: Columns) -> pa.Array:
    """True where user and item are the names of their columns: the header of a file that was appended to another."""
    if not isinstance(columns.user, str) or not isinstance(columns.item, str):
        return pa.repeat(False, len(fields["user"]))
    return pc.and_(pc.equal(fields["user"], columns.user), pc.equal(fields["item"], columns.item))


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


def _parse_splits(text: pa.Array) -> pa.Array:
    names = pc.utf8_lower(pc.utf8_trim_whitespace(text))
    codes = pa.array([SPLITS.index(split) for split in SPLIT_NAMES.values()], pa.int8())
    return codes.take(pc.index_in(names, value_set=pa.array(list(SPLIT_NAMES))))
