"""Files that are not what a log may be, recognised by their first bytes: each is called what it is, with the remedy."""

from __future__ import annotations

import json
import re
import zipfile
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_LE
from collections.abc import Sequence

import pyarrow as pa

from pipeline.logs.discovery import LogError, LogFile
from pipeline.logs.records import FieldColumns, compression_of, shorten_list

_HEAD_BYTES = 64
_ZIP, _OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
PARQUET = (b"PAR1", b"PARE")
"""First bytes of Parquet, and of encrypted Parquet."""
_COMPRESSED = {b"\x1f\x8b": ("gzip", ".gz"), b"\x28\xb5\x2f\xfd": ("zstd", ".zst")}
_OTHERS = {
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"SQLite format 3": "an SQLite database",
    b"Obj\x01": "Avro",
    b"ORC": "ORC",
    b"ARROW1": "an Arrow file",
    b"\x89PNG": "a picture",
    b"\x89HDF": "HDF5",
    b"\x93NUMPY": "an array of NumPy",
}
"""First bytes of other formats → what the file is."""

_SKIPPABLE = b"\x2a\x4d\x18"
"""Bytes 1 to 3 of a frame of zstd that may stand first and holds no data."""

_TEXTS = {
    rb"version https://git-lfs": "a pointer of Git LFS in place of the file; fetch that with git lfs pull",
    rb"\s*<(!doctype )?html": "a web page, perhaps of an error or to sign in; fetch the file again",
    rb"\s*<\?xml": "XML; export it as CSV or JSON lines",
    rb"\s*(insert into|create table) ": "SQL; export the table as CSV",
    rb"%PDF-": "PDF; export its table as CSV",
}
"""How other texts begin, in any case → what the file is, and the remedy."""

_EXCEL_MARK = re.compile(rb'(\xef\xbb\xbf)?"?sep=[^\r\n]{0,2}"?[\r\n]', re.IGNORECASE)

_MOST_NULS = 3
"""NULs in the first bytes of a text; more are a tar archive, a pickle, or a file of which the content is lost."""

_CONTROLS = bytes(range(9))
"""Bytes that no text has, but such a file."""

USER_NAME = (
    r"(user|customer|cust|client|visitor|member|reviewer|buyer|account|person|shopper|kunden?|käufer|nutzer|benutzer)"
    r"(id|name|no|nr|num|number|nummer|key|code)?|uid"
)
ITEM_NAME = (
    r"(parent)?(item|product|produkt|article|artikel|stock|movie|film|book|song|track|content|offer|video|asset)"
    r"(id|no|nr|num|number|nummer|key|code|sku)?|iid|sku|asin|isbn(13)?"
)
"""Names of columns of users and items, in lower case, without other characters than letters and digits."""

_DATE_OR_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?|[0-9]{4}-[0-9]{2}-[0-9]{2}.*")

_DELIMITERS = {"::": "double colons", ";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}


def require_log(log: LogFile) -> None:
    """Check that a file is no archive, workbook, database, UTF-16 text, compressed without the ending, or the reverse.

    Raises:
        LogError: it is; says what, and what to do.
    """
    with log.path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(_OLE) or (head.startswith(_ZIP) and _is_workbook(log)):
        raise LogError(
            f"{log.path} is a workbook (Excel), must be CSV, TSV, JSON lines or Parquet; save it as CSV UTF-8"
        )
    if head.startswith(_ZIP):
        raise LogError(f"{log.path} is a zip archive, must be a plain, .gz or .zst file; unpack it")
    _require_ending(log, head)
    for magic, kind in _OTHERS.items():
        if head.startswith(magic) and head.translate(None, _CONTROLS) != head:
            raise LogError(f"{log.path} is {kind}, must be CSV, TSV, JSON lines or Parquet, or .gz or .zst of these")
    text = _text_head(log)
    _require_rows(log, text)
    if log.source.encoding != "utf-8":
        return
    if encoding := _guess_wide_encoding(text):
        kind = encoding.upper()[:6]
        raise LogError(f"{log.path} is {kind}, must be UTF-8; set encoding = {json.dumps(encoding)} in its source")
    if text.startswith(tuple(_COMPRESSED)):
        raise LogError(f"{log.path} is compressed twice, must be once; unpack it and name it {log.path.stem}")
    if text.count(0) > _MOST_NULS and not text.startswith(PARQUET):
        raise LogError(f"{log.path} is neither text nor Parquet, must be CSV, TSV, JSON lines or Parquet")


def _require_ending(log: LogFile, head: bytes) -> None:
    suffix = log.path.suffix.lower()
    for magic, (method, ending) in _COMPRESSED.items():
        if head.startswith(magic) and suffix != ending:
            raise LogError(f"{log.path} is compressed by {method}, its name must end with {ending}; rename it")
    for magic, (method, ending) in _COMPRESSED.items():
        if head and suffix == ending and not head.startswith(magic) and head[1:4] != _SKIPPABLE:
            raise LogError(f"{log.path} is not compressed by {method}, its name must not end with {ending}; rename it")


def _require_rows(log: LogFile, text: bytes) -> None:
    for pattern, kind in _TEXTS.items():
        if re.match(pattern, text, re.IGNORECASE):
            raise LogError(f"{log.path} is {kind}")
    if mark := _EXCEL_MARK.match(text):
        raise LogError(
            f"{log.path}: the first line is {mark[0].decode('utf-8-sig', 'replace').strip()!r}, by which Excel knows "
            "the delimiter, must be the header or a row; delete it, e.g. with tail -n +2"
        )


def _is_workbook(log: LogFile) -> bool:
    try:
        with zipfile.ZipFile(log.path) as archive:
            return any(name.startswith("xl/") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _text_head(log: LogFile) -> bytes:
    """The first bytes of what a compressed file holds; none of one that is damaged, which the reader names."""
    try:
        with pa.input_stream(str(log.path), compression=compression_of(log.path)) as stream:
            return bytes(stream.read(_HEAD_BYTES))
    except OSError:
        return b""


def guess_utf_16(head: bytes) -> str:
    """The name of UTF-16 as Python has it, if the first bytes of a text are that; else ""."""
    if head.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return "utf-16"
    high, low = head[0:16:2], head[1:16:2]
    if len(low) > 1 and any(high) != any(low) and (all(high) or all(low)):
        return "utf-16-le" if any(high) else "utf-16-be"
    return ""


def _guess_wide_encoding(head: bytes) -> str:
    """The name of UTF-16 or UTF-32 as Python has it, if the first bytes of a text are that; else ""."""
    return "utf-32" if head.startswith(BOM_UTF32_LE) else guess_utf_16(head)


def describe_delimiter(line: bytes, delimiter: str) -> str:
    """What may be wrong with the delimiter, by the first line of a log; "" where nothing is."""
    for other, called in _DELIMITERS.items():
        if other != delimiter and line.count(other.encode()) > line.count(delimiter.encode()):
            return f"; the first line is divided by {called}: set delimiter = {json.dumps(other)} in its source"
    return ""


def has_name_of(pattern: str, column: str) -> bool:
    """Whether a column has one of the names."""
    return re.fullmatch(pattern, re.sub(r"[\W_]", "", column.lower())) is not None


def require_header(log: LogFile, first: Sequence[str], columns: FieldColumns) -> None:
    """Check that the first line is a header where its source says so, and a row where it does not.

    Without names, a line may be either. So only what is clearly the one or the other is refused.

    Args:
        log: the file.
        first: fields of its first line.
        columns: fields that are read.

    Raises:
        LogError: it is not.
    """
    fields = {name: first[at].strip() for name, at in columns.items() if isinstance(at, int) and 0 <= at < len(first)}
    if not {"user", "item"} <= fields.keys():
        return
    shown = f"{log.path}: the first line is {shorten_list(first)!r}, which looks like a"
    if not log.source.header:
        if has_name_of(USER_NAME, fields["user"]) and has_name_of(ITEM_NAME, fields["item"]):
            raise LogError(f"{shown} header; set header = true in its source")
        return
    # Data frames without names have the header 0,1,2.
    numbers = [name for name, text in fields.items() if _DATE_OR_NUMBER.fullmatch(text) and text != str(columns[name])]
    if {"user", "item"} <= set(numbers) or {"timestamp", "rating"} & set(numbers):
        raise LogError(f"{shown} row; set header = false in its source")
