"""Logs as people have them: other delimiters and encodings, line breaks inside quotes, other ways to write times."""

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from raw_logs import CSV, PAIR, RawLogs, parquet, source

from data_contracts.settings.logs import Columns, LogSource
from pipeline.logs.discovery import LogError, LogFile
from pipeline.logs.formats import read_log
from pipeline.logs.quoted_lines import QuotedLines


@pytest.fixture
def world(tmp_path: Path) -> RawLogs:
    return RawLogs(tmp_path)


PAIRS = [("u1", "i1"), ("u2", "i2")]


@pytest.mark.parametrize(
    ("name", "content", "keys"),
    [
        ("a.csv", CSV.replace(b",", b";"), {"delimiter": ";"}),
        ("a.csv", CSV.replace(b",", b"\t"), {"delimiter": "\t"}),
        ("a.dat", CSV.replace(b",", b"::"), {"delimiter": "::"}),
        ("a.csv", CSV.decode().replace(",", "§").encode("latin-1"), {"delimiter": "§", "encoding": "latin-1"}),
        ("a.tsv", CSV, {"delimiter": ","}),
        ("a.csv", CSV.decode().encode("utf-16"), {"encoding": "utf-16"}),
        ("a.csv", CSV.decode().encode("utf-16-le"), {"encoding": "utf-16-le"}),
        ("a.csv.gz", gzip.compress(CSV.decode().encode("utf-16"), mtime=0), {"encoding": "utf-16"}),
        ("a.jsonl", '{"user_id": "u1", "item_id": "i1"}\n{"user_id": "u2", "item_id": "i2"}'.encode("utf-32"),
         {"encoding": "utf-32"}),
        ("a.csv", b'"user_id";"item_id"\r\n"u1";"i1"\r\n"u2";"i2"\r\n', {"delimiter": ";"}),
    ],
)  # fmt: skip
def test_delimiters_and_encodings_are_settings(world: RawLogs, name: str, content: bytes, keys: dict[str, Any]) -> None:
    world.put(name, content)
    assert world.rows(source(name, **keys), *PAIR) == PAIRS


def test_latin_1_is_read_and_ids_become_utf_8(world: RawLogs) -> None:
    world.put("a.csv", "user_id;item_id\nJosé;Über\n".encode("latin-1"))
    assert world.rows(source("a.csv", delimiter=";", encoding="latin-1"), *PAIR) == [("José", "Über")]


def test_a_byte_that_the_encoding_does_not_have_rejects_its_line(world: RawLogs) -> None:
    """81 is none of cp1252. The bytes C3 81, which are Á in UTF-8, are none of it either."""
    world.put("a.csv", b"user_id,item_id\nu1,i1\nu\x81,i\nu\xc3\x81,i\nu2,i2\n")
    by_code_page = source("a.csv", encoding="cp1252")
    assert world.rows(by_code_page, *PAIR) == PAIRS
    assert [reject[:2] for reject in world.rejects(by_code_page)] == [(3, "undecodable"), (4, "undecodable")]


def test_quotes_have_no_meaning_where_the_delimiter_has_several_characters(world: RawLogs) -> None:
    world.put("a.csv", 'user_id::item_id\n"u::i"\nu:::i\n')
    assert world.rows(source("a.csv", delimiter="::"), *PAIR) == [('"u', 'i"'), ("u", ":i")]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"delimiter": ""}, "must have at least one character, and no quote, line end or NUL"),
        ({"delimiter": '"'}, "must have at least one character"),
        ({"delimiter": ",\n"}, "must have at least one character"),
        ({"encoding": "klingon"}, "must be an encoding that Python knows"),
        ({"encoding": "rot13"}, "must be an encoding that Python knows"),
        ({"encoding": "undefined"}, "must be an encoding that Python knows"),
        ({"timestamp_format": "hours"}, "must be s, ms, us or ns, or a format such as"),
    ],
)
def test_settings_that_cannot_be_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LogSource(path="a.csv", **keys)


@pytest.mark.parametrize(
    ("name", "keys"),
    [("a.jsonl", {"delimiter": ";"}), ("a.parquet", {"delimiter": ";"}), ("a.parquet", {"encoding": "latin-1"})],
)
def test_keys_that_a_format_does_not_have_are_refused(world: RawLogs, name: str, keys: dict[str, str]) -> None:
    world.put(name, b"")
    with pytest.raises(LogError, match=rf"{name} is read as .*, which has no {next(iter(keys))}; remove"):
        world.ingest(source(name, **keys))


REVIEWS = b"""user_id,item_id,text
u1,i1,"good
u9,i9,as one writes

""quoted"", too"
u2,i2,"short"
u3,"i3,open
u4,i4,"two
lines"
"u5
u9,i9,x",i5,y
u6,i6,"one
u9,i9,too many",z
"""


def test_line_breaks_in_quotes_make_no_rows_and_lines_keep_their_numbers(world: RawLogs) -> None:
    """Line 7 has a stray quote, and is rejected alone. Lines 10 and 11 are a user with a line break, and lines 12 and
    13 a record of four fields: all of these are rejected."""
    world.put("a.csv", REVIEWS)
    assert world.rows(source("a.csv"), *PAIR) == [("u1", "i1"), ("u2", "i2"), ("u4", "i4")]
    assert world.rejects(source("a.csv")) == [
        (7, "syntax", 'u3,"i3,open'), (10, "syntax", '"u5'), (11, "syntax", '"u9,i9,x,i5,y'),
        (12, "syntax", 'u6,i6,"one'), (13, "syntax", '"u9,i9,too many,z'),
    ]  # fmt: skip


@pytest.mark.parametrize("block_bytes", [64, 1 << 16])
def test_such_a_record_is_an_error_where_the_source_allows_none(world: RawLogs, block_bytes: int) -> None:
    world.put("a.csv", b"\nuser_id,item_id,text\n" + b"u,i,x\n" * 50 + REVIEWS.partition(b"\n")[2])
    path = world.logs / "a.csv"
    log = LogFile(path, "a.csv", source("a.csv", quoted_newlines=False), "d", None, "", path.stat().st_size)
    with pytest.raises(
        LogError, match=r"lines 53 to 56 are one record, .* but quoted_newlines is false; set it to true"
    ):
        list(read_log(log, {"user": "user_id", "item": "item_id"}, block_bytes))


text = st.text(st.sampled_from('ab,"\n\r;'), max_size=8)
readable = st.text(st.sampled_from('ab,"; '), min_size=1, max_size=4)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(readable, readable, text), max_size=40), st.sampled_from([64, 100, 1 << 16]))
def test_what_the_csv_module_writes_is_read_row_by_row(
    tmp_path: Path, rows: list[tuple[str, str, str]], block_bytes: int
) -> None:
    content = io.StringIO(newline="")
    csv.writer(content).writerows([("user_id", "item_id", "text"), *rows])
    (tmp_path / "a.csv").write_bytes(content.getvalue().encode())
    log = LogFile(tmp_path / "a.csv", "a.csv", source("a.csv"), "d", None, "", 1)
    records = list(read_log(log, {"user": "user_id", "item": "item_id"}, block_bytes))
    read = [
        pair
        for block in records
        for pair in zip(*(values.to_pylist() for values in block.fields.values()), strict=True)
    ]
    assert read == [row[:2] for row in rows]
    assert not any(block.unreadable for block in records)


def slowly_joined(text: bytes, width: int, positions: tuple[int, ...]) -> list[bytes]:
    """The lines that records occupy, by a parser of characters."""
    lines = text.split(b"\n")[:-1]
    joined, number = list[bytes](), 0
    while number < len(lines):
        end = number
        if lines[number].count(b'"') % 2:
            end = next((n for n in range(number + 1, len(lines)) if lines[n].count(b'"') % 2), number)
        fields = parse_fields(b"\n".join(lines[number : end + 1]).removesuffix(b"\r"))
        if end == number or fields is None:
            joined.append(lines[number])
            end = number
        elif len(fields) == width and not any(b"\n" in fields[position] for position in positions):
            joined += [b"\n".join(lines[number : end + 1]).replace(b"\r\n", b" ").replace(b"\n", b" ")]
            joined += [b""] * (end - number)
        else:
            inner = lines[number + 1 : end + 1]
            joined += [lines[number], *(b'"' + line.replace(b'"', b"") if line.strip() else line for line in inner)]
        number = end + 1
    return joined


def parse_fields(record: bytes) -> list[bytes] | None:
    """Fields of RFC 4180; None where a quote does not open or close one."""
    fields, position = list[bytes](), 0
    while True:
        if record[position : position + 1] == b'"':
            position, field = position + 1, b""
            while True:
                end = record.find(b'"', position)
                if end < 0:
                    return None
                field += record[position:end]
                position = end + 1
                if record[position : position + 1] != b'"':
                    break
                field, position = field + b'"', position + 1
            if record[position : position + 1] not in (b",", b""):
                return None
        else:
            end = record.find(b",", position)
            end = len(record) if end < 0 else end
            field, position = record[position:end], end
            if b"\n" in field:
                return None
        fields.append(field)
        if position == len(record):
            return fields
        position += 1


pieces = st.lists(
    st.sampled_from([b'"', b'""', b",", b"\n", b"\r\n", b"a", b"b,c", b'"x"', b'","', b'x,y,"z\nw"\n', b'"\n']),
    max_size=30,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pieces, st.integers(1, 4), st.integers(1, 6))
@example([b'a,"', b"\n", b'"\n'], 2, 1)
def test_joining_equals_a_parser_of_characters_whatever_the_blocks(
    parts: list[bytes], width: int, lines_in_block: int
) -> None:
    text = b"".join(parts) + b"\n"
    lines = text.split(b"\n")[:-1]
    blocks = [
        b"".join(line + b"\n" for line in lines[start : start + lines_in_block])
        for start in range(0, len(lines), lines_in_block)
    ]
    joined = b"".join(QuotedLines(Path("a"), 1, width, (0,), ",", 1 << 20).join(iter(blocks)))
    assert joined.split(b"\n")[:-1] == slowly_joined(text, width, (0,))


def test_records_of_several_lines_have_at_most_as_many_bytes_as_a_line() -> None:
    text = [b'a,"' + b"x" * 30 + b"\n", b"y\n" * 20, b'z"\n']
    whole = b"".join(text)
    for longest, is_joined in ((len(whole) - 1, True), (len(whole) - 2, False)):
        joined = b"".join(QuotedLines(Path("a"), 1, 2, (0,), ",", longest).join(iter(text)))
        assert (joined != whole) == is_joined


@pytest.mark.parametrize(
    ("texts", "keys", "expected"),
    [
        (["1700000000", "1700000000.25", "-0.5"], {"timestamp_format": "s"},
         [1_700_000_000_000_000, 1_700_000_000_250_000, -500_000]),
        (["1700000000000", "2023-11-14T22:13:20"], {"timestamp_format": "ms"}, [1_700_000_000_000_000] * 2),
        (["1700000000000000999", "-1"], {"timestamp_format": "ns"}, [1_700_000_000_000_000, -1]),
        (["04.05.2024 06:20", "04.05.2024 06:21"], {"timestamp_format": "%d.%m.%Y %H:%M"},
         [1_714_803_600_000_000, 1_714_803_660_000_000]),
        (["04.05.2024 06:20 +0200"], {"timestamp_format": "%d.%m.%Y %H:%M %z"}, [1_714_796_400_000_000]),
        (["2024-05-04 06:20:53+00", "2024-05-04 06:20:53.5+02", "2024-05-04T06:20:53-01"], {},
         [1_714_803_653_000_000, 1_714_796_453_500_000, 1_714_807_253_000_000]),
    ],
)  # fmt: skip
def test_formats_of_times(world: RawLogs, texts: list[str], keys: dict[str, Any], expected: list[int]) -> None:
    world.put("a.csv", "user_id,item_id,t\n" + "".join(f"u{n},i,{text}\n" for n, text in enumerate(texts)))
    rows = world.rows(source("a.csv", columns=Columns(timestamp="t"), **keys), "timestamp")
    assert [row[0] for row in rows] == expected


def test_times_that_are_not_in_the_format_are_rejected(world: RawLogs) -> None:
    """DuckDB, which parses them, takes `epoch` and `infinity` for times of any format."""
    times = ["04.05.2024", "2024-05-04", "epoch", "Infinity", "30.02.2024"]
    world.put("a.csv", "user_id,item_id,t\n" + "".join(f"u{n},i,{time}\n" for n, time in enumerate(times)))
    by_day = source("a.csv", columns=Columns(timestamp="t"), timestamp_format="%d.%m.%Y")
    assert world.rejects(by_day) == [(n + 2, "number", time) for n, time in enumerate(times) if n]


def test_a_format_that_is_none_is_an_error(world: RawLogs) -> None:
    world.put("a.csv", "user_id,item_id,t\nu,i,1\n")
    with pytest.raises(LogError, match=r"\.\w+: timestamp_format is '%Q', must be one of strptime"):
        world.ingest(source("a.csv", columns=Columns(timestamp="t"), timestamp_format="%Q"))


def test_moments_of_parquet_join_those_of_text_by_their_unit(world: RawLogs) -> None:
    """What is refused without a unit, because nanoseconds and microseconds differ a thousandfold."""
    moments = pa.array([1_700_000_000_123_456_789], pa.timestamp("ns"))
    world.put("a.parquet", parquet(user_id=["u"], item_id=["i"], t=moments))
    timed = source("a.parquet", columns=Columns(timestamp="t"), timestamp_format="ns")
    assert world.rows(timed, "timestamp") == [(1_700_000_000_123_456,)]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_repeated_header_is_rejected_by_name_and_counts_as_no_damage(world: RawLogs, name: str) -> None:
    """As `cat` makes it of several files."""
    log = CSV if name == "a.csv" else CSV.replace(b",", b"\t")
    world.put(name, log * 3)
    strict = {"rejected_share_at_most": 0.0, "kept_share_at_least": 1.0}
    assert world.rows(source(name), *PAIR, **strict) == PAIRS
    assert world.rejects(source(name)) == [(line, "header", "user_id\titem_id") for line in (4, 7)]


BY_POSITION = {"user": 0, "item": 1}


@pytest.mark.parametrize(
    ("content", "keys", "message"),
    [
        ("userId,movieId\n1,2\n", {"header": False, "columns": Columns(**BY_POSITION)},
         "the first line is 'userId, movieId', which looks like a header; set header = true"),
        ("1,2\n3,4\n", {"columns": Columns(**BY_POSITION)},
         "the first line is '1, 2', which looks like a row; set header = false"),
        ("a,b,1700000000\n", {"columns": Columns(**BY_POSITION, timestamp=2)}, "looks like a row"),
        ("a,b,2023-11-14 22:13\n", {"columns": Columns(**BY_POSITION, timestamp=2)}, "looks like a row"),
        ("u17,i5\nu18,i6\n", {}, "occurring once; correct the source's `columns`, or set header = false, and columns"),
    ],
)  # fmt: skip
def test_a_forgotten_header_is_noticed(world: RawLogs, content: str, keys: dict[str, Any], message: str) -> None:
    world.put("a.csv", content)
    with pytest.raises(LogError, match=message):
        world.ingest(source("a.csv", **keys))


@pytest.mark.parametrize(
    ("content", "header"),
    [("u1,i1\nu2,i2\n", False), ("user,i1\nu2,i2\n", False), ("0,1\nu1,i1\nu2,i2\n", True), ("a,b\nu1,i1\n", True)],
)
def test_lines_that_may_be_a_header_or_a_row_are_taken_for_what_the_source_says(
    world: RawLogs, content: str, header: bool
) -> None:
    world.put("a.csv", content)
    rows = world.rows(source("a.csv", header=header, columns=Columns(**BY_POSITION)), *PAIR)
    assert len(rows) == content.count("\n") - header
