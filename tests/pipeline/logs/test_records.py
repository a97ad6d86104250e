"""Fast reading by blocks equals slow reading by lines, whatever the bytes."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.logs.delimited import Delimited
from pipeline.logs.json_lines import JsonLines
from pipeline.logs.records import LineFormat, Records, UnreadableLine, read_lines, text_blocks

Everything = tuple[dict[str, list[Any]], list[int], list[tuple[int, str, str]]]


@dataclass(frozen=True)
class OnlyLines:
    """A format without its fast way."""

    form: LineFormat

    @property
    def columns(self) -> Any:
        return self.form.columns

    @property
    def blank(self) -> bytes:
        return self.form.blank

    def block(self, block: bytes, lines: int) -> Mapping[str, pa.Array] | None:
        return None

    def line(self, line: bytes) -> list[str | None] | UnreadableLine | None:
        return self.form.line(line)


def everything(parts: Iterator[Records], names: list[str]) -> Everything:
    fields: dict[str, list[Any]] = {name: [] for name in names}
    lines, unreadable = [], []
    for part in parts:
        for name in names:
            fields[name] += part.fields[name].to_pylist()
        lines += part.lines.to_pylist()
        unreadable += part.unreadable
    return fields, lines, unreadable


def both_ways(content: bytes, form: LineFormat) -> tuple[Everything, Everything]:
    names = list(form.columns)
    ways: tuple[LineFormat, LineFormat] = (form, OnlyLines(form))
    fast, slow = (everything(read_lines(iter([content]), way, 1), names) for way in ways)
    return fast, slow


csv_line = st.lists(
    st.sampled_from(
        [b"a", b"bc", b",", b",", b'"', b'""', b" ", b"\r", b"\xff", b"\xc3\xa9", b"\x00", b'"x,y"', b"a,b"]
    ),
    max_size=6,
).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(st.lists(csv_line, min_size=1, max_size=5), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
@example([b'a,"b'], b"\n", True)
@example([b'"a"x,b', b"a,b"], b"\n", True)
@example([b'a,"b', b'c",d', b"e\rf,g"], b"\n", True)
def test_csv_blocks_equal_csv_lines(lines: list[bytes], end: bytes, quoted: bool) -> None:
    form = Delimited({"user": 1, "item": 0}, (1, 0), 2, ",", quoted)
    fast, slow = both_ways(b"".join(line + end for line in lines), form)
    assert fast == slow


json_value = st.sampled_from(
    ['"a"', '"7"', "7", "1.50", "-0", "null", "true", "[1]", '"\\u00e9"', '"\\ud800"', "1e3", "NaN", '"2020-01-01"']
)
json_line = st.one_of(
    st.tuples(json_value, json_value, json_value).map(lambda v: f'{{"u": {v[0]}, "i": {v[1]}, "t": {v[2]}}}'),
    st.sampled_from(["", " ", "{", "}", '{"u": "a"}', '{"u": "a"}{"u": "b"}', '{"u": "a",', '"t": 1}', "[]"]),
).map(str.encode)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.one_of(json_line, st.just(b'{"u": "\xff"}')), min_size=1, max_size=5), st.sampled_from([b"\n", b"\r\n"])
)
def test_json_blocks_equal_json_lines(lines: list[bytes], end: bytes) -> None:
    """Ids and lines; decimals may be written differently, with the same value."""
    fast, slow = both_ways(b"".join(line + end for line in lines), JsonLines({"user": "u", "item": "i"}))
    assert fast == slow


def test_json_blocks_are_read_fast() -> None:
    lines = [json.dumps({"u": f"u{n}", "i": n, "t": n / 8, "more": [n]}) for n in range(100)]
    form = JsonLines({"user": "u", "item": "i", "timestamp": "t"})
    fields = form.block(("\n".join(lines) + "\n").encode(), 100)
    assert fields is not None
    assert (fields["user"][9].as_py(), fields["item"][9].as_py(), fields["timestamp"][9].as_py()) == (
        "u9",
        "9",
        "1.125",
    )


def test_csv_blocks_are_read_fast() -> None:
    form = Delimited({"user": 0}, (0,), 2, ",", quoted=True)
    fields = form.block(b'u1,"a, b"\r\n"u ""2""",c\r\n', 2)
    assert fields is not None
    assert fields["user"].to_pylist() == ["u1", 'u "2"']


def test_one_damaged_line_leaves_the_others_to_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [b"u%d,i" % n for n in range(5000)]
    lines[2500] = b"broken"
    slow: list[bytes] = []
    original = Delimited.line
    monkeypatch.setattr(Delimited, "line", lambda self, line: slow.append(line) or original(self, line))
    form = Delimited({"user": 0}, (0,), 2, ",", quoted=True)
    _, found, unreadable = everything(read_lines(iter([b"\n".join(lines) + b"\n"]), form, 1), ["user"])
    assert (len(found), unreadable) == (4999, [(2501, "arity", "broken")])
    assert len(slow) <= 64


@pytest.mark.parametrize(("long_line", "reason"), [(b"x" * 20_000, "arity"), (b'u,"' + b"x" * 20_000, "syntax")])
def test_one_long_broken_line_is_one_reject(long_line: bytes, reason: str) -> None:
    """Though it has nearly all bytes of its block."""
    lines = [*(b"u%d,i" % number for number in range(99)), long_line]
    form = Delimited({"user": 0}, (0,), 2, ",", quoted=True)
    fields, numbers, unreadable = everything(read_lines(iter([b"\n".join(lines) + b"\n"]), form, 1), ["user"])
    assert (fields["user"], numbers) == ([f"u{number}" for number in range(99)], list(range(1, 100)))
    assert [(number, name) for number, name, _ in unreadable] == [(100, reason)]


@given(st.lists(st.sampled_from([b"a", b"bb" * 40, b"\n", b"\r\n"]), max_size=12).map(b"".join), st.integers(1, 200))
def test_blocks_hold_the_whole_file_and_end_with_lines(content: bytes, size: int) -> None:
    path = Path(__file__).with_name("unused")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pa, "input_stream", lambda *_, **__: pa.BufferReader(content))
        blocks = list(text_blocks(path, size))
    whole = content if content.endswith(b"\n") or not content else content + b"\n"
    assert b"".join(blocks) == whole
    assert all(block.endswith(b"\n") for block in blocks)
