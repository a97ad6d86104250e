"""Every format and kind of value, from files to clean rows or rejects."""

import gzip
import json
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pytest
from raw_logs import CSV, JSON, PAIR, TSV, parquet, source, zstd
from raw_logs import RawLogs as World

from data_contracts.settings.logs import Columns
from pipeline.logs.discovery import LogError


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("a.csv.gz", gzip.compress(CSV, mtime=0)),
        ("two-members.csv.gz", gzip.compress(CSV[:20], mtime=0) + gzip.compress(CSV[20:], mtime=0)),
        ("a.csv.zst", zstd(CSV)),
        ("a.tsv", TSV),
        ("a.tsv.gz", gzip.compress(TSV, mtime=0)),
        ("a.jsonl", JSON),
        ("a.ndjson.zst", zstd(JSON)),
        ("a.parquet", parquet(user_id=["u1", "u2"], item_id=["i1", "i2"])),
        ("bom.csv", b"\xef\xbb\xbf" + CSV),
        ("crlf.csv", CSV.replace(b"\n", b"\r\n")),
        ("no-last-line-end.csv", CSV[:-1]),
        ("blank-start.csv", b"\n\r\n" + CSV),
        ("bom.jsonl", b"\xef\xbb\xbf" + JSON),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_format_reads_the_same(world: World, name: str, content: bytes) -> None:
    world.put(name, content)
    assert world.rows(source(name), *PAIR) == [("u1", "i1"), ("u2", "i2")]
    assert world.rejects(source(name)) == []


def test_columns_by_position_of_a_headerless_file(world: World) -> None:
    world.put("a.csv", "i1,u1,5.0\ni2,u2,4.0\n")
    by_position = source("a.csv", header=False, columns=Columns(user=1, item=0))
    assert world.rows(by_position, *PAIR) == [("u1", "i1"), ("u2", "i2")]


IDS = ["007", "7", "ü s", " a ", 'say "hi"', "a,b", "1e5", "NULL", "nan", "日本", "-0", "1.50"]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_ids_survive_unchanged(world: World, form: str) -> None:
    if form == "csv":
        quoted = ['"' + text.replace('"', '""') + '"' for text in IDS]
        world.put("a.csv", "user_id,item_id\n" + "".join(f"{text},{text}\n" for text in quoted))
    elif form == "jsonl":
        world.put("a.jsonl", "".join(json.dumps({"user_id": text, "item_id": text}) + "\n" for text in IDS))
    else:
        world.put("a.parquet", parquet(user_id=IDS, item_id=IDS))
    expected = sorted(IDS, key=str.encode)
    assert world.rows(source(f"a.{form}"), *PAIR) == [(text, text) for text in expected]


def test_numeric_ids_of_json_keep_their_digits(world: World) -> None:
    lines = ['{"user_id": 123, "item_id": 1.50}', '{"user_id": "0123", "item_id": 98765432109876543210}']
    world.put("a.jsonl", "\n".join(lines) + "\n")
    assert world.rows(source("a.jsonl"), *PAIR) == [("0123", "98765432109876543210"), ("123", "1.50")]


def test_whole_numbers_with_a_point_are_the_ids_that_integers_are(world: World) -> None:
    """So data frames write integer ids of which some are missing."""
    users = [12345678901.0, 2.0**52 + 1, 1.5, None, float("nan")]
    world.put("a.parquet", parquet(user_id=users, item_id=["i"] * 5))
    world.put(
        "b.jsonl", "".join(f'{{"user_id": {text}, "item_id": "i"}}\n' for text in ("12.0", "1.50", "-0.00", "NaN"))
    )
    world.put("c.parquet", parquet(user_id=pa.array([7.0, 0.1], pa.float32()), item_id=["i"] * 2))
    ids = {row[0] for row in world.rows(source("*"), "user_id")}
    assert ids == {"12345678901", "4503599627370497", "1.5", "12", "1.50", "-0", "7", "0.1"}
    assert world.rejects(source("*")) == [(4, "missing", "\ti"), (5, "missing", "\ti"), (4, "missing", "\ti")]


@pytest.mark.parametrize(("type_", "value"), [(pa.float64(), 2.0**53), (pa.float32(), -(2.0**24))])
def test_floats_that_may_have_lost_digits_are_no_ids(world: World, type_: pa.DataType, value: float) -> None:
    world.put("a.parquet", parquet(user_id=["u", "v"], item_id=pa.array([value, 1.0], type_)))
    with pytest.raises(
        LogError, match=r"column 'item_id' is .* item ids may have lost their last digits; write them as"
    ):
        world.rows(source("a.parquet"), "user_id")
    world.put("a.parquet", parquet(user_id=["u", "v"], item_id=pa.array([value / 2, 1.0], type_)))
    assert {row[0] for row in world.rows(source("a.parquet"), "item_id")} == {"1", f"{value / 2:.0f}"}


def test_numeric_ids_of_parquet_become_their_digits(world: World) -> None:
    world.put(
        "a.parquet", parquet(user_id=pa.array([12, 7], pa.int64()), item_id=pa.array(["x", "y"]).dictionary_encode())
    )
    assert world.rows(source("a.parquet"), *PAIR) == [("12", "x"), ("7", "y")]


def test_text_of_every_kind_that_arrow_has_is_an_id(world: World) -> None:
    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        column = pa.array(["x", "y", "x"]).cast(kind)
        world.put("a.parquet", parquet(user_id=column, item_id=pa.array(["1", "2", "3"]).cast(kind)))
        assert world.rows(source("a.parquet"), *PAIR) == [("x", "1"), ("x", "3"), ("y", "2")]


def test_quotes_are_data_in_tsv(world: World) -> None:
    world.put("a.tsv", 'user_id\titem_id\n"u1\ti"1"\n')
    assert world.rows(source("a.tsv"), *PAIR) == [('"u1', 'i"1"')]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", 12), ("+12", 12), (" 12 ", 12), ("007", 7), ("12.9", 12), ("-12.0", -12), ("-12.5", -13), ("-0.5", -1),
        ("1.6e9", 1_600_000_000), (".5", 0), ("1600000000000000001", 1_600_000_000_000_000_001),
        ("9223372036854775807", 2**63 - 1), ("1600000000000000001.5", 1_600_000_000_000_000_001),
    ],
)  # fmt: skip
def test_times_are_floored(world: World, text: str, expected: int) -> None:
    world.put("a.csv", f"user_id,item_id,t\nu,i,{text}\n")
    assert world.rows(source("a.csv", columns=Columns(timestamp="t")), "timestamp") == [(expected,)]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02", 86_400), ("1970-01-01T00:01", 60), ("1970-01-01 01:00:01.25Z", 3601.25),
        ("1970-01-01T01:00:00+02:00", -3600), ("1970-01-01T00:00:00.0000019-0100", 3600.000001),
    ],
)  # fmt: skip
def test_moments_are_microseconds_since_1970(world: World, text: str, seconds: float) -> None:
    world.put("a.csv", f"user_id,item_id,t\nu,i,{text}\nu,j,5\n")
    rows = world.rows(source("a.csv", columns=Columns(timestamp="t")), "item_id", "timestamp")
    assert rows == [("i", round(seconds * 1e6)), ("j", 5)]


def test_a_day_that_does_not_exist_rejects_its_row_alone(world: World) -> None:
    world.put("a.csv", "user_id,item_id,t\nu,i,2026-02-28\nu,j,2026-02-30\n")
    timed = source("a.csv", columns=Columns(timestamp="t"))
    assert world.rows(timed, "item_id") == [("i",)]
    assert world.rejects(timed) == [(3, "number", "2026-02-30")]


@pytest.mark.parametrize(
    "text",
    [
        "x", "0x1F", "nan", "inf", "1,5", "1e400", "9223372036854775808", "--1", "1 2", "2026-02-28T10:0055",
        "2026-02-28T1:00",
    ],
)  # fmt: skip
def test_what_is_no_time_is_rejected_as_number(world: World, text: str) -> None:
    world.put("a.csv", f'user_id,item_id,t\nu,i,"{text}"\n')
    assert world.rejects(source("a.csv", columns=Columns(timestamp="t"))) == [(2, "number", text)]


def test_times_of_parquet_and_json_are_floored(world: World) -> None:
    world.put("a.parquet", parquet(user_id=["u"], item_id=["i"], t=pa.array([-1.5])))
    world.put("b.jsonl", '{"user_id": "u", "item_id": "j", "t": 1600000000.75}\n')
    rows = world.rows(source("*", columns=Columns(timestamp="t")), "item_id", "timestamp")
    assert rows == [("i", -2), ("j", 1_600_000_000)]


def test_low_ratings_are_rejected_with_file_line_and_rating(world: World) -> None:
    world.put("a.csv", "user_id,item_id,r\nu,i,4.0\nu,j,3.9\nu,k,5\n")
    rated = source("a.csv", columns=Columns(rating="r"), rating_at_least=4.0)
    assert world.rows(rated, "item_id", rejected_share_at_most=0.0) == [("i",), ("k",)]
    assert world.rejects(rated) == [(3, "rating", "3.9")]


def test_uuids_of_parquet_are_ids_in_their_usual_form(world: World) -> None:
    users = pa.array([UUID(int=1).bytes, None], pa.uuid())
    world.put("a.parquet", parquet(user_id=users, item_id=["i", "j"]))
    assert world.rows(source("a.parquet"), *PAIR) == [("00000000-0000-0000-0000-000000000001", "i")]
    assert world.rejects(source("a.parquet")) == [(2, "missing", "\tj")]


def test_ratings_may_be_true_and_false(world: World) -> None:
    world.put("a.csv", "user_id,item_id,r\nu,a,True\nu,b,false\n")
    world.put("b.jsonl", '{"user_id": "u", "item_id": "c", "r": true}\n{"user_id": "u", "item_id": "d", "r": false}\n')
    world.put("c.parquet", parquet(user_id=["u", "u"], item_id=["e", "f"], r=[True, False]))
    rated = source("*", columns=Columns(rating="r"), rating_at_least=1)
    assert world.rows(rated, "item_id") == [("a",), ("c",), ("e",)]
    assert [text for _, reason, text in world.rejects(rated) if reason == "rating"] == ["false"] * 3


def test_blanks_around_true_and_false_do_not_count(world: World) -> None:
    world.put("a.csv", "user_id,item_id,r\nu,a, true\nu,b,FALSE \nu,c, 1 \n")
    rated = source("a.csv", columns=Columns(rating="r"), rating_at_least=1)
    assert world.rows(rated, "item_id") == [("a",), ("c",)]
    assert [reason for _, reason, _ in world.rejects(rated)] == ["rating"]


def test_malformed_lines_of_csv_are_rejected_by_line(world: World) -> None:
    lines = [
        b"user_id,item_id,r", b"u1,i1,5", b"", b"u2,i2", b"u3,i3,5,x", b",i4,5", b"u5,,5", b"u6,i6,five",
        b'u7,"i7,5', b"u8,\xff,5", b"u9,i9,nan", b"u10,i10,5", b"u11,i11,",
    ]  # fmt: skip
    world.put("a.csv", b"\n".join(lines) + b"\n")
    rated = source("a.csv", columns=Columns(rating="r"), rating_at_least=0.0)
    assert world.rows(rated, "user_id") == [("u1",), ("u10",)]
    assert world.rejects(rated) == [
        (4, "arity", "u2,i2"),
        (5, "arity", "u3,i3,5,x"),
        (6, "missing", "\ti4"),
        (7, "missing", "u5\t"),
        (8, "number", "five"),
        (9, "syntax", 'u7,"i7,5'),
        (10, "undecodable", "u8,\\xff,5"),
        (11, "number", "nan"),
        (13, "missing", "u11\ti11"),
    ]


def test_malformed_lines_of_json_are_rejected_by_line(world: World) -> None:
    lines = [
        b'{"user_id": "u1", "item_id": "i1"}', b"", b'{"user_id": "u2"', b"[1, 2]", b'{"user_id": "u3"}',
        b'{"user_id": null, "item_id": "i4"}', b'{"user_id": "u5", "item_id": {"a": 1}}',
        b'{"user_id": "\xff", "item_id": "i6"}', b'{"user_id": "\\ud800", "item_id": "i7"}', b"{}{}",
    ]  # fmt: skip
    world.put("a.jsonl", b"\n".join(lines) + b"\n")
    assert world.rows(source("a.jsonl"), "user_id") == [("u1",)]
    assert [(line, reason) for line, reason, _ in world.rejects(source("a.jsonl"))] == [
        (3, "syntax"), (4, "syntax"), (5, "missing"), (6, "missing"), (7, "syntax"), (8, "undecodable"),
        (9, "undecodable"), (10, "syntax"),
    ]  # fmt: skip


def test_malformed_rows_of_parquet_are_rejected_by_row(world: World) -> None:
    users = pa.array([b"u1", None, b"\xff", b""], pa.binary())
    world.put("a.parquet", parquet(user_id=users, item_id=["i1", "i2", "i3", "i4"]))
    assert world.rejects(source("a.parquet")) == [
        (2, "missing", "\ti2"),
        (3, "undecodable", ""),
        (4, "missing", "\ti4"),
    ]


def test_undecodable_bytes_in_other_columns_do_no_harm(world: World) -> None:
    world.put("a.csv", b"user_id,note,item_id\nu1,\xff,i1\nu2,fine,i2\n")
    assert world.rows(source("a.csv"), *PAIR) == [("u1", "i1"), ("u2", "i2")]
