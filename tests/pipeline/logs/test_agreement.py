"""What is read from a log depends on its bytes alone: not on the reader, the blocks or the threads."""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from raw_logs import RawLogs

from data_contracts.settings.ingest import SplitSettings
from data_contracts.settings.logs import Columns, LogSource
from data_contracts.settings.machine import ComputeSettings
from pipeline.ingest import stage as ingest_stage
from pipeline.logs.cleaning import clean
from pipeline.logs.delimited import Delimited, split_line
from pipeline.logs.discovery import LogError, LogFile
from pipeline.logs.formats import read_log
from pipeline.logs.json_lines import JsonLines

MARK = b"\xef\xbb\xbf"
TIMES = ["17", "1.50", "1.99999999999999999999", "2026-02-28", "2026-02-30", "1e3", "4503599627370495.9999999", "x", ""]
RATINGS = ["1.0", "5", "-0.0", "3.9000", "true", "NaN", "1e400", "0.1e1", "9007199254740993", "four"]
TOKENS = [
    b'"', b'""', b'","', b",", b"\t", b"\n", b"\r", b"\r\n", b"\n\n", b"\n\r\n", b" ", MARK, b"\n" + MARK, MARK + MARK,
    b"\xff", b"\xc3\xa9", b"\xed\xa0\x80", b"\x00", b"\\", b'\\"', b"\\ud800", b"{", b"}", b"[", b"]", b"[" * 300,
    b":", b"::", b"\x1f", b";", b'"x\ny"', b'"x\n', b'\ny"',
    b"null", b"-0", b"NaN", b"1.0", b'"r": 2.50,', b'"u": "x",', b"x" * 500, b'"' + b"y" * 200_000 + b'"',
]  # fmt: skip
BLOCK_BYTES = (64, 100, 333, 1000, 4096, 1 << 16, 1 << 23)
SETTINGS: Mapping[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}

mutations = st.lists(
    st.tuples(st.floats(0.0, 1.0), st.sampled_from(["insert", "replace", "repeat", "cut"]), st.sampled_from(TOKENS)),
    max_size=6,
)
forms = st.sampled_from(["csv", "tsv", "jsonl"])
blocks = st.sampled_from(BLOCK_BYTES)


def valid_log(form: str, lines: int, header: bool, delimiter: str | None = None) -> bytes:
    """A log with users, items, times and ratings, some of which are none."""
    rows = [
        (f"u{n % 7}", f"i{n % 5}", TIMES[n % len(TIMES)] if n % 3 == 0 else str(n), RATINGS[n * n % len(RATINGS)])
        for n in range(lines)
    ]
    if form == "jsonl":
        texts = [f'{{"u": "{u}", "i": "{i}", "t": {_as_json(t)}, "r": {_as_json(r)}}}' for u, i, t, r in rows]
    else:
        separator = delimiter or ("," if form == "csv" else "\t")
        texts = [separator.join(row) for row in [("u", "i", "t", "r"), *rows][not header :]]
    return "".join(f"{text}\n" for text in texts).encode()


def _as_json(text: str) -> str:
    return (
        text if text[:1] in set("0123456789-Nt") and "-0" not in text[1:] and text != "2026-02-28" else json.dumps(text)
    )


def mutated(log: bytes, changes: list[tuple[float, str, bytes]]) -> bytes:
    for share, kind, token in changes:
        at = int(share * len(log))
        if kind == "repeat":
            log = log[:at] + log[max(at - 150, 0) :]
        else:
            log = (
                log[:at]
                + (b"" if kind == "cut" else token)
                + log[at + {"replace": len(token), "cut": 9}.get(kind, 0) :]
            )
    return log


def build_source(form: str, header: bool, **keys: Any) -> LogSource:
    by_name = header or form == "jsonl"
    columns = (
        Columns(user="u", item="i", timestamp="t", rating="r")
        if by_name
        else Columns(user=0, item=1, timestamp=2, rating=3)
    )
    return LogSource(path="*", format=form, header=header, domain="d", columns=columns, rating_at_least=3, **keys)


def read(path: Path, source: LogSource, block_bytes: int) -> tuple[list[Any], list[Any]] | str:
    """All rows and rejects, or the error."""
    log = LogFile(path, path.name, source, "d", None, "", path.stat().st_size)
    columns = {"user": source.columns.user, "item": source.columns.item}
    columns |= {"timestamp": source.columns.timestamp, "rating": source.columns.rating}
    try:
        cleaned = [clean(records, log) for records in read_log(log, columns, block_bytes)]
    except ValueError as error:
        return str(error)
    return tuple([row for block in cleaned for row in block[kind].to_pylist()] for kind in (0, 1))


def read_exactly(path: Path, source: LogSource) -> tuple[list[Any], list[Any]] | str:
    """As `read`, line by line."""
    with pytest.MonkeyPatch.context() as patch:
        for line_format in (Delimited, JsonLines):
            patch.setattr(line_format, "block", lambda *_: None)
        return read(path, source, 1 << 23)


KEYS: list[dict[str, Any]] = [
    {}, {}, {"quoted_newlines": False}, {"encoding": "utf-16"}, {"encoding": "shift_jis"}, {"timestamp_format": "s"},
    {"delimiter": ";"}, {"delimiter": "::"}, {"delimiter": ":\N{BULLET}"}, {"delimiter": " "},
]  # fmt: skip
keys = st.sampled_from(KEYS)


def check_agreement(
    path: Path, form: str, header: bool, lines: int, changes: list[Any], block_bytes: int, keys: dict[str, Any]
) -> None:
    if form == "jsonl" and not {"encoding", "timestamp_format"} & keys.keys():
        keys = {}
    log = mutated(valid_log(form, lines, header, keys.get("delimiter")), changes)
    if keys.get("encoding") == "utf-16":
        log = log.decode("utf-8", "replace").encode("utf-16") + log[-1:] * (
            len(changes) % 2
        )  # the last unit may be cut
    path.write_bytes(log)
    source = build_source(form, header, **keys)
    assert read(path, source, block_bytes) == read_exactly(path, source)


@settings(max_examples=150, **SETTINGS)
@given(forms, st.booleans(), st.integers(1, 200), mutations, blocks, keys)
@example("csv", False, 200, [(0.0, "insert", MARK), (0.5, "insert", b"\n" + MARK)], 64, {})
@example("csv", True, 20, [(0.6, "insert", b'\n"' + b"y" * 200_000 + b'"\n')], 1 << 23, {})
@example("jsonl", True, 200, [(0.5, "insert", b"[" * 300)], 333, {})
@example("csv", True, 200, [(0.2, "insert", b"\x1f::\x1f")], 333, {"delimiter": "::"})
@example("csv", True, 200, [(0.2, "insert", b',"a\nb,c,1,5\nd"\n')], 64, {})
def test_fast_and_exact_readers_agree(
    tmp_path: Path, form: str, header: bool, lines: int, changes: list[Any], block_bytes: int, keys: dict[str, Any]
) -> None:
    check_agreement(tmp_path / "log", form, header, lines, changes, block_bytes, keys)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@settings(max_examples=3000, **SETTINGS)
@given(forms, st.booleans(), st.integers(1, 400), mutations, blocks, keys)
def test_fast_and_exact_readers_agree_on_thousands_of_logs(
    tmp_path: Path, form: str, header: bool, lines: int, changes: list[Any], block_bytes: int, keys: dict[str, Any]
) -> None:
    check_agreement(tmp_path / "log", form, header, lines, changes, block_bytes, keys)


def check_ingest(folder: Path, logs: list[tuple[str, list[Any]]], threads: int, block_bytes: int) -> None:
    """The artifacts of several logs, made in two ways, have the same bytes.

    Where one log is refused, other threads may still write when the folder is deleted.
    """
    digests = []
    for compute, size in ((ComputeSettings(threads=1), 1 << 23), (ComputeSettings(threads=threads), block_bytes)):
        with (
            TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as temporary,
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(ingest_stage, "_BLOCK_BYTES", (size, size))
            world = RawLogs(Path(temporary))
            for number, (form, changes) in enumerate(logs):
                world.put(f"{number}.{form}", mutated(valid_log(form, 90, header=True), changes))
            try:
                made = world.ingest(build_source("auto", header=True), compute, split=SplitSettings())
                digests.append([entry.sha256 for artifact in made.values() for entry in artifact.manifest.files])
            except LogError:  # of the first of several logs to be read
                digests.append(["error"])
    assert digests[0] == digests[1]


mutated_logs = st.lists(st.tuples(forms, mutations), min_size=1, max_size=3)


@settings(max_examples=8, **SETTINGS)
@given(mutated_logs, st.sampled_from([1, 2, 4]), blocks)
def test_artifacts_do_not_depend_on_blocks_and_threads(
    tmp_path: Path, logs: list[tuple[str, list[Any]]], threads: int, block_bytes: int
) -> None:
    check_ingest(tmp_path, logs, threads, block_bytes)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@settings(max_examples=300, **SETTINGS)
@given(mutated_logs, st.sampled_from([1, 2, 4]), blocks)
def test_artifacts_do_not_depend_on_blocks_and_threads_for_hundreds_of_logs(
    tmp_path: Path, logs: list[tuple[str, list[Any]]], threads: int, block_bytes: int
) -> None:
    check_ingest(tmp_path, logs, threads, block_bytes)


def reject_texts(path: Path, content: bytes, source: LogSource, block_bytes: int) -> list[tuple[int, str, str]]:
    path.write_bytes(content)
    result = read(path, source, block_bytes)
    assert not isinstance(result, str)
    return [tuple(row.values()) for row in result[1]]


@pytest.mark.parametrize("block_bytes", BLOCK_BYTES)
def test_a_low_rating_of_json_is_written_in_the_shortest_way(tmp_path: Path, block_bytes: int) -> None:
    lines = ['{"u": "u", "i": "i", "t": 1, "r": 1.0}', "{broken", '{"u": "u", "i": "i", "t": 1, "r": 1e15}']
    low = [*range(1, 100), 101]
    content = "\n".join([*lines[:1] * 99, lines[1], lines[0], lines[2]])
    rejects = reject_texts(tmp_path / "log", content.encode(), build_source("jsonl", header=True), block_bytes)
    assert rejects == sorted([*((line, "rating", "1") for line in low), (100, "syntax", "{broken")])


@pytest.mark.parametrize("block_bytes", BLOCK_BYTES)
def test_byte_order_marks_at_the_start_of_a_line_are_dropped(tmp_path: Path, block_bytes: int) -> None:
    part = MARK + b"u0,i,1,5\nu1,i" + MARK + b",1,5\n"
    (tmp_path / "log").write_bytes(part * 100)
    result = read(tmp_path / "log", build_source("csv", header=False), block_bytes)
    assert [(row["user_id"], row["item_id"]) for row in result[0]] == [("u0", "i"), ("u1", "i\ufeff")] * 100


@pytest.mark.parametrize("block_bytes", BLOCK_BYTES)
def test_the_width_of_a_file_without_header_is_that_of_most_of_its_first_lines(
    tmp_path: Path, block_bytes: int
) -> None:
    """The first block of 64 bytes has lines of three fields alone."""
    content = b"u,i,1\n" * 20 + b"u,i,1,5\n" * 30
    rejects = reject_texts(tmp_path / "log", content, build_source("csv", header=False), block_bytes)
    assert rejects == [(line, "arity", "u,i,1") for line in range(1, 21)]


@pytest.mark.parametrize(("depth", "accepted"), [(255, 1), (256, 0), (100_000, 0)])
def test_lines_may_be_nested_256_deep(tmp_path: Path, depth: int, accepted: int) -> None:
    nested = '"[{", "more": ' + "[" * depth + "]" * depth
    line = '{"u": "u", "i": "i", "t": 1, "r": 5, "text": ' + nested + "}\n"
    (tmp_path / "log").write_text(line)
    rows, rejects = read(tmp_path / "log", build_source("jsonl", header=True), 1 << 23)
    assert (len(rows), [row["reason"] for row in rejects]) == (accepted, ["syntax"] * (1 - accepted))


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (b'a,"b,""c"""', [b"a", b'b,"c"']), (b'"a"b"c,d', [b'ab"c', b"d"]), (b'a"b",c', [b'a"b"', b"c"]),
        (b'"",', [b"", b""]), (b',""', [b"", b""]), (b'"a"\r', [b"a"]), (b'"a\rb",c', [b"a\rb", b"c"]),
        (b'a\r,"b"', None), (b'"a', None), (b'a,"b""', None),
    ],
)  # fmt: skip
def test_lines_with_quotes_are_split(line: bytes, fields: list[bytes] | None) -> None:
    split = split_line(line, ",", quoted=True, most=10)
    assert (split and split.fields) == fields
