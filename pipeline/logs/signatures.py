"""Files that are not what a log may be, recognised by their first bytes: each is called what it is, with the remedy."""

from __future__ import annotations

import zipfile
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Sequence

from pipeline.logs.discovery import LogError, LogFile

_ZIP, _OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
_COMPRESSED = {b"\x1f\x8b": ("gzip", ".gz"), b"\x28\xb5\x2f\xfd": ("zstd", ".zst")}
_DELIMITERS = {";": "semicolons", "::": "double colons", "|": "bars", "\t": "tabs", ",": "commas"}


def require_log(log: LogFile) -> None:
    """Check that a file is no archive, workbook, UTF-16 text or compressed without the ending.

    Raises:
        LogError: it is; says what, and what to do.
    """
    with log.path.open("rb") as file:
        head = file.read(4)
    name = log.path.name
    if head.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        remedy = f"convert it, e.g. with iconv -f UTF-16 -t UTF-8 {name} > utf8-{name}"
        raise LogError(f"{log.path} is UTF-16, must be UTF-8; {remedy}")
    if head == _OLE or (head == _ZIP and _is_workbook(log)):
        raise LogError(
            f"{log.path} is a workbook (Excel), must be CSV, TSV, JSON lines or Parquet; save it as CSV UTF-8"
        )
    if head == _ZIP:
        raise LogError(f"{log.path} is a zip archive, must be a plain, .gz or .zst file; unpack it")
    for magic, (method, ending) in _COMPRESSED.items():
        if head.startswith(magic) and log.path.suffix.lower() != ending:
            raise LogError(f"{log.path} is compressed by {method}, its name must end with {ending}; rename it")


def _is_workbook(log: LogFile) -> bool:
    try:
        with zipfile.ZipFile(log.path) as archive:
            return any(name.startswith("xl/") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def describe_delimiter(log: LogFile, names: Sequence[str], delimiter: str) -> str:
    """What may be wrong with the delimiter of a header that has a single name; "" where nothing is."""
    if len(names) != 1:
        return ""
    for other, called in _DELIMITERS.items():
        if other != delimiter and other in names[0]:
            return (
                f"; the header is divided by {called}: convert the file, e.g. with DuckDB: copy (from read_csv("
                f"'{log.path.name}', delim = {other!r}, all_varchar = true)) to '{log.path.stem}.parquet'"
            )
    return ""
