"""Files that are not what their ending says: refused, with the right word."""

import bz2
import gzip
import io
import json
import re
import zipfile
from pathlib import Path

import pytest
from raw_logs import CSV, RawLogs, parquet, source, zstd

from data_contracts.settings.logs import Columns
from pipeline.logs.discovery import LogError, find_logs
from pipeline.logs.formats import read_log


@pytest.fixture
def world(tmp_path: Path) -> RawLogs:
    return RawLogs(tmp_path)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("block_bytes", [64, 1 << 16])
def test_a_json_array_is_called_so(world: RawLogs, indent: int | None, block_bytes: int) -> None:
    rows = [{"user_id": f"u{n}", "item_id": "i"} for n in range(20)]
    world.put("a.json", "\n" + json.dumps(rows, indent=indent))
    (log,) = find_logs([source("a.json")], world.logs)
    with pytest.raises(LogError, match=r"a\.json is a JSON array, must be JSON lines"):
        list(read_log(log, {"user": "user_id", "item": "item_id"}, block_bytes))


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("a.csv", ["user_id,item_id", 'u,"a,b"', "u,j"]),
        ("a.tsv", ["user_id\titem_id", "u\ti"]),
        ("a.jsonl", ['{"user_id": "u", "item_id": "i"}', '{"user_id": "u", "item_id": "j"}']),
    ],
)
@pytest.mark.parametrize("block_bytes", [64, 1 << 16])
def test_line_ends_of_carriage_returns_alone_are_refused(
    world: RawLogs, name: str, lines: list[str], block_bytes: int
) -> None:
    world.put(name, "\r".join(lines) + "\r")
    (log,) = find_logs([source(name)], world.logs)
    with pytest.raises(LogError, match="lines end with a carriage return alone, must end with a line feed"):
        list(read_log(log, {"user": "user_id", "item": "item_id"}, block_bytes))


def test_carriage_returns_inside_a_record_are_no_line_ends(world: RawLogs) -> None:
    world.put("a.csv", b'u,"a\rb"\r')
    by_position = source("*", header=False, columns=Columns(user=0, item=1))
    assert world.rows(by_position, "item_id") == [("a\rb",)]
    (world.logs / "a.csv").unlink()
    world.put("a.jsonl", b'{"user_id": "u",\r "item_id": "i"}\r')
    assert world.rows(source("*"), "item_id") == [("i",)]


def archive(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name in names:
            file.writestr(name, CSV)
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.zip", archive("a.csv"), "is a zip archive, must be a plain, .gz or .zst file; unpack it"),
        ("a.csv", archive("a.csv"), "is a zip archive"),
        ("a.xlsx", archive("[Content_Types].xml", "xl/workbook.xml"), r"is a workbook \(Excel\), .* save it as CSV"),
        ("a.xls", bytes.fromhex("d0cf11e0a1b11ae1"), r"is a workbook \(Excel\)"),
        ("a.csv", CSV.decode().encode("utf-16"), 'is UTF-16, must be UTF-8; set encoding = "utf-16" in its source'),
        ("a.csv", b"\xfe\xff" + CSV.decode().encode("utf-16-be"), 'set encoding = "utf-16"'),
        ("a.csv", CSV.decode().encode("utf-16-be"), 'set encoding = "utf-16-be"'),
        ("a.csv.gz", gzip.compress(CSV.decode().encode("utf-16-le"), mtime=0), 'set encoding = "utf-16-le"'),
        ("a.csv.bz2", bz2.compress(CSV), "is compressed by bzip2, must be CSV, TSV, JSON lines or Parquet, or .gz or"),
        ("a.csv", bytes.fromhex("fd377a585a000004"), "is compressed by xz"),
        ("a.db", b"SQLite format 3\0", "is an SQLite database"),
        ("a.csv", CSV.decode().encode("utf-32"), 'is UTF-32, must be UTF-8; set encoding = "utf-32" in its source'),
        ("a.csv", b"\x89PNG\r\n\x1a\n" + bytes(20), "is a picture, must be CSV"),
        ("a.csv", b"\x93NUMPY\x01\0v\0{'descr': '<i8'}", "is an array of NumPy"),
        ("a.csv", b"\x80\x04\x95" + bytes(8) + b"]", "is neither text nor Parquet"),
        (
            "a.csv.gz",
            gzip.compress(gzip.compress(CSV, mtime=0)),
            r"is compressed twice, .*; unpack it and name it a\.csv",
        ),
        ("a.parquet", CSV, r"cannot be read: .*; it is no Parquet: rename it, or set `format`"),
        ("b.parquet", b"PAR1" + bytes(8) + b"PAR1", r"cannot be read: .*; copy it again"),
        ("a.csv", gzip.compress(CSV, mtime=0), r"is compressed by gzip, its name must end with \.gz"),
        ("a.csv", zstd(CSV), r"is compressed by zstd, its name must end with \.zst"),
        ("a.csv.gz", CSV, r"is not compressed by gzip, its name must not end with \.gz; rename it"),
        ("a.csv.zst", CSV, r"is not compressed by zstd, its name must not end with \.zst; rename it"),
        ("a.csv.gz", zstd(CSV), r"is compressed by zstd, its name must end with \.zst"),
        ("a.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n", "is a pointer of Git LFS"),
        ("a.csv", b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>\n", "is a web page, perhaps of an error"),
        ("a.jsonl", b'<?xml version="1.0"?>\n<rows/>\n', "is XML; export it as CSV or JSON lines"),
        ("a.csv", b"INSERT INTO log VALUES ('u', 'i');\n", "is SQL; export the table as CSV"),
        ("a.csv", b"%PDF-1.7\n", "is PDF"),
        ("a.csv", b"sep=;\r\n" + CSV.replace(b",", b";"), "the first line is 'sep=;', by which Excel knows the delim"),
        ("a.csv", b'\xef\xbb\xbf"sep=,"\n' + CSV, "by which Excel knows the delimiter.* delete it"),
    ],
)
def test_files_of_other_formats_are_called_what_they_are(
    world: RawLogs, name: str, content: bytes, message: str
) -> None:
    world.put(name, content)
    with pytest.raises(LogError, match=message):
        world.ingest(source(name))


@pytest.mark.parametrize(
    ("name", "delimiter", "called"),
    [("a.csv", ";", "semicolons"), ("a.csv", "::", "double colons"), ("a.csv", "|", "bars"), ("a.csv", "\t", "tabs"),
     ("a.tsv", ",", "commas")],
)  # fmt: skip
def test_another_delimiter_is_named(world: RawLogs, name: str, delimiter: str, called: str) -> None:
    world.put(name, f"user_id{delimiter}item_id\nu{delimiter}i j\n")
    expected = f"; the first line is divided by {called}: set delimiter = {json.dumps(delimiter)} in its source"
    with pytest.raises(LogError, match=re.escape(expected)):
        world.ingest(source(name))
    with pytest.raises(LogError, match=re.escape(expected)):
        world.ingest(source(name, header=False, columns=Columns(user=0, item=1)))
    assert world.rows(source(name, delimiter=delimiter), "item_id") == [("i j",)]


@pytest.mark.parametrize(
    ("header", "shown"),
    [("User_ID", "'User_ID'"), (" user_id ", "' user_id '"), ("USER_ID", "'USER_ID'")],
)
def test_a_column_that_looks_the_same_is_named(world: RawLogs, header: str, shown: str) -> None:
    expected = f"columns.user is 'user_id', must be .*; did you mean {shown}\\? correct the source's `columns`"
    world.put("a.csv", f"{header},item_id\nu,i\n")
    with pytest.raises(LogError, match=expected):
        world.ingest(source("a.csv"))
    world.put("b.parquet", parquet(**{header: ["u"], "item_id": ["i"]}))
    with pytest.raises(LogError, match=expected):
        world.ingest(source("b.parquet"))


def test_a_column_of_letters_composed_otherwise_is_shown_with_escapes(world: RawLogs) -> None:
    world.put("a.csv", "ka\u0308ufer,item_id\nu,i\n")
    with pytest.raises(LogError, match=r"did you mean 'ka\\u0308ufer'\? correct"):
        world.ingest(source("a.csv", columns=Columns(user="k\u00e4ufer")))


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("a.csv", "user_id,item_id\nu,i,\nv,j,\n", "arity: 'u,i,', has more or fewer fields than the header"),
        ("a.jsonl", '{\n"user_id": "u"\n}\n', "syntax: '{', is no record of the format: .* one JSON object a line"),
        ("a.jsonl", '{"userId": "u", "item_id": "i"}\n', "lacks the user, the item, or another field"),
    ],
)
def test_a_reason_is_explained_where_the_run_stops(world: RawLogs, name: str, content: str, hint: str) -> None:
    world.put(name, content)
    with pytest.raises(LogError, match=hint):
        world.ingest(source(name), rejected_share_at_most=0.0)


def test_latin_1_is_named_where_rows_are_not_utf_8(world: RawLogs) -> None:
    world.put("a.csv", "user_id,item_id\nu,caf\u00e9\n".encode("latin-1"))
    with pytest.raises(LogError, match=r"undecodable: 'u,caf\\\\xe9', is not in the source's encoding: UTF-8, or"):
        world.ingest(source("a.csv"), rejected_share_at_most=0.01)
