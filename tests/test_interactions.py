"""From raw logs to interactions and rejects, end to end."""

import gzip
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle_ingest import Row, ingest_given

from data_contracts.contracts import INTERACTIONS, REJECTS
from data_contracts.settings import Columns, ComputeSettings, IngestSettings, LogSource, SplitSettings
from data_contracts.store import Store
from pipeline import rejected, sifted
from pipeline.interactions import ingest, ingest_inputs
from pipeline.logs import LogError, find_logs

KEEP: dict[str, Any] = {"cold": "keep", "rejected_share_at_most": 1.0}
ALL_TRAIN = SplitSettings(valid_share=0.0, test_share=0.0)
GIVEN = SplitSettings(method="given")
BY_PATH = r"/(?P<domain>[^/_]+)_(?P<split>train|val|test)\.csv$"


class World:
    """A folder of logs and a store."""

    def __init__(self, folder: Path) -> None:
        self.logs, self.store = folder / "logs", Store(folder / "store")
        self.logs.mkdir()

    def put(self, name: str, content: str | bytes) -> None:
        path = self.logs / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def ingest(self, source: LogSource, compute: ComputeSettings | None = None, **options: Any) -> dict[str, Any]:
        """Settings default to: everything is train, nothing is too cold or too malformed."""
        stage = IngestSettings(**{"split": ALL_TRAIN, **KEEP, **options})
        logs = find_logs([source], self.logs)
        return ingest(self.store, stage, logs, compute or ComputeSettings(threads=2))

    def rows(self, source: LogSource, *columns: str, **options: Any) -> list[tuple[Any, ...]]:
        table = self.ingest(source, **options)["interactions"].read(list(columns))
        return [tuple(row.values()) for row in table.to_pylist()]

    def rejects(self, source: LogSource, **options: Any) -> list[tuple[int, str, str]]:
        table = self.ingest(source, **options)["rejects"].read(["line", "reason", "text"])
        return [tuple(row.values()) for row in table.to_pylist()]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def source(path: str, **keys: Any) -> LogSource:
    return LogSource(**{"path": path, "domain": "d", **keys})


PAIR = ("user_id", "item_id")


def parquet(**columns: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


CSV, TSV = b"user_id,item_id\nu1,i1\nu2,i2\n", b"user_id\titem_id\nu1\ti1\nu2\ti2\n"
JSON = b'{"user_id": "u1", "item_id": "i1"}\n{"item_id": "i2", "user_id": "u2"}\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("a.csv.gz", gzip.compress(CSV)),
        ("two-members.csv.gz", gzip.compress(CSV[:20]) + gzip.compress(CSV[20:])),
        ("a.csv.zst", zstd(CSV)),
        ("a.tsv", TSV),
        ("a.tsv.gz", gzip.compress(TSV)),
        ("a.jsonl", JSON),
        ("a.ndjson.zst", zstd(JSON)),
        ("a.parquet", parquet(user_id=["u1", "u2"], item_id=["i1", "i2"])),
        ("bom.csv", b"\xef\xbb\xbf" + CSV),
        ("crlf.csv", CSV.replace(b"\n", b"\r\n")),
        ("no-last-line-end.csv", CSV[:-1]),
        ("blank-start.csv", b"\n\r\n" + CSV),
        ("bom.jsonl", b"\xef\xbb\xbf" + JSON),
    ],
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


def test_numeric_ids_of_parquet_become_their_digits(world: World) -> None:
    world.put(
        "a.parquet", parquet(user_id=pa.array([12, 7], pa.int64()), item_id=pa.array(["x", "y"]).dictionary_encode())
    )
    assert world.rows(source("a.parquet"), *PAIR) == [("12", "x"), ("7", "y")]


def test_quotes_are_data_in_tsv(world: World) -> None:
    world.put("a.tsv", 'user_id\titem_id\n"u1\ti"1"\n')
    assert world.rows(source("a.tsv"), *PAIR) == [('"u1', 'i"1"')]


def test_no_domain_is_called_as_the_mean_over_domains_is(world: World) -> None:
    world.put("a.csv", "user_id,item_id\nu,i\n")
    with pytest.raises(LogError, match="a domain is called 'macro', must not be"):
        world.ingest(source("a.csv", domain="macro"))


def test_numbers_are_ranks_among_all_domains_in_byte_order(world: World) -> None:
    world.put("a.csv", "user_id,item_id,m\nb,z,north\nB,a,south\nä,z,south\n")
    rows = world.rows(source("a.csv", columns=Columns(domain="m")), "domain", "user_id", "user", "item_id", "item")
    assert rows == [("north", "b", 1, "z", 1), ("south", "B", 0, "a", 0), ("south", "ä", 2, "z", 1)]


def test_numbers_count_kept_interactions_only(world: World) -> None:
    world.put("d_train.csv", "u2,i2\n")
    world.put("d_test.csv", "u1,i1\nu2,i2\n")
    given_split = LogSource(path="*.csv", header=False, columns=Columns(user=0, item=1), path_pattern=BY_PATH)
    rows = world.rows(given_split, "user_id", "user", "item", split=GIVEN, cold="drop", protocol="released")
    assert rows == [("u2", 0, 0), ("u2", 0, 0)]


def test_duplicates_merge_with_count_and_earliest_time(world: World) -> None:
    world.put("a.csv", "user_id,item_id,t\nu,i,30\nu,i,10\nu,j,5\nu,i,20\n")
    rows = world.rows(source("a.csv", columns=Columns(timestamp="t")), "item_id", "timestamp", "count")
    assert rows == [("i", 10, 3), ("j", 5, 1)]


def test_without_time_column_times_are_null(world: World) -> None:
    world.put("a.csv", CSV)
    assert world.rows(source("a.csv"), "timestamp") == [(None,), (None,)]


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


def test_unknown_split_is_rejected_and_known_ones_are_normalised(world: World) -> None:
    world.put("a.csv", "user_id,item_id,s\nu,a,train\nu,b,VAL\nu,c,validation\nu,d,test\nu,e,dev\n")
    by_column = source("a.csv", columns=Columns(split="s"))
    assert world.rows(by_column, "item_id", "split", split=GIVEN) == [
        ("a", "train"), ("b", "valid"), ("c", "valid"), ("d", "test"),
    ]  # fmt: skip
    assert world.rejects(by_column, split=GIVEN) == [(6, "split", "dev")]


def test_too_many_malformed_rows_fail_the_run_and_leave_the_rejects(world: World) -> None:
    world.put("a.csv", "user_id,item_id\nu,i\nbroken\n")
    expected = (
        r"50\.00% of 2 raw rows are malformed \(arity 1\), must be at most 49\.00%; "
        r"the first is line 3 of a\.csv \(arity: 'broken'\); see "
    )
    with pytest.raises(LogError, match=expected) as error:
        world.ingest(source("a.csv"), rejected_share_at_most=0.49)
    (manifest,) = world.store.root.glob("rejects/*/manifest.json")
    assert str(manifest.parent) in str(error.value)
    assert not list(world.store.root.glob("interactions/*/manifest.json"))


def test_malformed_share_at_the_limit_passes(world: World) -> None:
    world.put("a.csv", "user_id,item_id\nu,i\nbroken\n")
    assert world.rows(source("a.csv"), "user_id", rejected_share_at_most=0.5) == [("u",)]


def test_empty_files_are_fine(world: World) -> None:
    for name in ("a.csv", "b.jsonl", "c.tsv"):
        world.put(name, "")
    world.put("d.csv", "user_id,item_id\n")
    world.put("e.csv", CSV)
    assert world.rows(source("*"), *PAIR) == [("u1", "i1"), ("u2", "i2")]


def test_nothing_but_empty_files_give_no_interactions(world: World) -> None:
    world.put("a.csv", "")
    made = world.ingest(source("a.csv"))
    assert made["interactions"].read().num_rows == made["rejects"].read().num_rows == 0


@pytest.mark.parametrize(
    ("name", "content", "keys", "message"),
    [
        ("a.csv", b"user,item\nu,i\n", {}, r"columns\.user is 'user_id', must be one of the header's names: user, "),
        ("a.csv", b"user_id,user_id,item_id\n1,2,3\n", {}, "occurring once"),
        ("a.csv", b"u,i\n", {"header": False}, "must be a position where header = false"),
        ("a.csv", b"u,i\n", {"header": False, "columns": Columns(user=0, item=2)}, "a position from 0 to 1"),
        ("a.jsonl", JSON, {"columns": Columns(user=0, item=1)}, "must be a key's name in JSON lines"),
        ("a.parquet", parquet(user=["u"]), {}, r"columns\.user is 'user_id', must be one of user"),
        ("a.parquet", parquet(user_id=[[1]], item_id=["i"]), {}, "column 'user_id' is list"),
        ("a.parquet", b"PAR1 cut short", {}, "cannot be read"),
        ("a.csv.gz", gzip.compress(CSV)[:-9], {}, "cannot be read: Truncated"),
        ("a.txt", CSV, {}, "the ending 'txt' tells no format"),
        ("a.csv", b'user_id,"item_id\nu,i\n', {}, "must close its quotes"),
    ],
)  # fmt: skip
def test_files_that_are_not_as_their_source_says_are_errors(
    world: World, name: str, content: bytes, keys: dict[str, Any], message: str
) -> None:
    world.put(name, content)
    with pytest.raises(LogError, match=message):
        world.ingest(source(name, **keys))


@pytest.mark.parametrize(
    ("keys", "split", "message"),
    [
        ({}, GIVEN, r"needs splits; set columns\.split"),
        ({}, SplitSettings(method="leave-last-out"), r"needs times; set columns\.timestamp"),
        ({"rating_at_least": 3.0}, ALL_TRAIN, r"set columns\.rating"),
    ],
)  # fmt: skip
def test_settings_that_need_an_unmapped_field_are_errors(
    world: World, keys: dict[str, Any], split: SplitSettings, message: str
) -> None:
    world.put("a.csv", CSV)
    with pytest.raises(LogError, match=message):
        world.ingest(source("a.csv", **keys), split=split)


PRE_SPLIT = LogSource(path="*.csv", header=False, columns=Columns(user=0, item=1), path_pattern=BY_PATH)


def pre_split(world: World) -> None:
    """u-i is in all three splits; v has no train row; the test row u-j is twice there."""
    world.put("d_train.csv", "u,i\nu,k\nu,j\n")
    world.put("d_val.csv", "u,i\nv,i\n")
    world.put("d_test.csv", "u,j\nu,i\nu,j\n")


def test_clean_protocol_keeps_a_pair_in_its_earliest_split(world: World) -> None:
    pre_split(world)
    rows = world.rows(PRE_SPLIT, "user_id", "item_id", "split", "count", split=GIVEN, cold="drop")
    assert rows == [("u", "i", "train", 1), ("u", "j", "train", 1), ("u", "k", "train", 1)]


def test_leaked_and_cold_rows_are_kept_in_rejects_with_file_and_line(world: World) -> None:
    pre_split(world)
    rejects = world.ingest(PRE_SPLIT, split=GIVEN, cold="drop", rejected_share_at_most=0.0)["rejects"].read()
    assert [tuple(row.values()) for row in rejects.to_pylist()] == [
        ("d_test.csv", 1, "leaked", "u\tj"),
        ("d_test.csv", 2, "leaked", "u\ti"),
        ("d_test.csv", 3, "leaked", "u\tj"),
        ("d_val.csv", 1, "leaked", "u\ti"),
        ("d_val.csv", 2, "cold", "v\ti"),
    ]


def test_released_protocol_keeps_repeated_pairs(world: World) -> None:
    pre_split(world)
    rows = world.rows(PRE_SPLIT, "item_id", "split", "count", split=GIVEN, cold="drop", protocol="released")
    assert rows == [
        ("i", "test", 1), ("i", "train", 1), ("i", "valid", 1), ("j", "test", 2), ("j", "train", 1), ("k", "train", 1),
    ]  # fmt: skip


def test_cold_rows_stay_where_wanted(world: World) -> None:
    pre_split(world)
    assert ("v", "valid") in world.rows(PRE_SPLIT, "user_id", "split", split=GIVEN, cold="keep")


def test_statistics_account_for_every_raw_row(world: World) -> None:
    pre_split(world)
    world.put("e_train.csv", "u,i\nu,i\nx\n")
    made = world.ingest(PRE_SPLIT, split=GIVEN, cold="drop")["interactions"]
    assert made.statistics == {
        "raw_rows": 11, "malformed": {"arity": 1}, "rating": 0, "leaked": 4, "cold": 1, "duplicates": 1,
        "pairs_in_several_domains": {"train": 1, "valid": 0, "test": 0}, "users": 1, "items": 3,
        "domains": {
            "d": {"users": 1, "items": 3, "train": 3, "valid": 0, "test": 0, "duplicates": 0, "leaked": 4, "cold": 1},
            "e": {"users": 1, "items": 1, "train": 1, "valid": 0, "test": 0, "duplicates": 1, "leaked": 0, "cold": 0},
        },
    }  # fmt: skip


raw_rows = st.lists(
    st.builds(
        Row,
        st.sampled_from("de"),
        st.sampled_from("uvw"),
        st.sampled_from("ijk"),
        st.sampled_from(("train", "valid", "test")),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw_rows, st.sampled_from(("clean", "released")), st.sampled_from(("drop", "keep")), st.integers(1, 40))
def test_ingest_of_split_logs_equals_the_slow_oracle(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], protocol: str, cold: str, bucket_rows: int
) -> None:
    world = World(tmp_path_factory.mktemp("oracle"))
    world.put("a.csv", "".join(f"{row.domain},{row.user},{row.item},{row.split}\n" for row in rows))
    by_column = LogSource(path="a.csv", header=False, columns=Columns(domain=0, user=1, item=2, split=3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sifted, "_BUCKET_ROWS", (bucket_rows, bucket_rows))
        artifacts = world.ingest(by_column, split=GIVEN, protocol=protocol, cold=cold)
    made = artifacts["interactions"]
    table = made.read(["domain", "user_id", "item_id", "split", "count"])
    found = {tuple(row.values())[:4]: row["count"] for row in table.to_pylist()}
    expected, dropped = ingest_given(rows, protocol, cold)
    assert found == expected
    assert {reason: made.statistics[reason] for reason in dropped} == dropped
    assert Counter(artifacts["rejects"].read(["reason"])["reason"].to_pylist()) == +Counter(dropped)


def messy_logs(world: World) -> LogSource:
    """Two thousand rows in four files, every fiftieth broken."""
    for part in range(4):
        lines = [f"u{n * 7 % 61},i{n * 13 % 47},d{n % 3},{n}" for n in range(part * 500, part * 500 + 500)]
        lines[::50] = ["broken,line"] * len(lines[::50])
        world.put(f"{part}.csv", "user_id,item_id,d,t\n" + "\n".join(lines))
    return LogSource(path="*.csv", columns=Columns(domain="d", timestamp="t"))


def fingerprint(made: dict[str, Any]) -> list[str]:
    return [entry.sha256 for name in ("interactions", "rejects") for entry in made[name].manifest.files]


@pytest.mark.parametrize("threads", [1, 4])
def test_result_does_not_depend_on_threads_blocks_or_buckets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    options: dict[str, Any] = {"split": SplitSettings()}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = World(tmp_path / "a"), World(tmp_path / "b")
    expected = fingerprint(first.ingest(messy_logs(first), **options))
    monkeypatch.setattr(sifted, "_BLOCK_BYTES", (700, 700))
    monkeypatch.setattr(sifted, "_BUCKET_ROWS", (70, 70))
    assert fingerprint(second.ingest(messy_logs(second), ComputeSettings(threads=threads), **options)) == expected


def test_rows_do_not_depend_on_how_many_fill_a_file(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    logs = messy_logs(world)
    expected = {name: artifact.read() for name, artifact in world.ingest(logs, split=SplitSettings()).items()}
    monkeypatch.setattr(sifted, "_ROWS_PER_FILE", 10)
    monkeypatch.setattr(rejected, "_LINES", 17)
    world.store = Store(tmp_path / "other")
    made = world.ingest(logs, split=SplitSettings())
    assert len(made["interactions"].files(domain="d0")) == -(-expected["interactions"].num_rows // 30)
    assert {name: artifact.read() for name, artifact in made.items()} == expected


def test_result_does_not_depend_on_how_rows_are_spread_over_files(tmp_path: Path) -> None:
    lines = [f"u{n * 7 % 31},i{n * 13 % 47}\n" for n in range(300)]
    tables = []
    for name, order in (("a", lines), ("b", lines[::-1])):
        (tmp_path / name).mkdir()
        world = World(tmp_path / name)
        parts = 1 if name == "a" else 3
        for part in range(parts):
            world.put(f"{part}.csv", "user_id,item_id\n" + "".join(order[part::parts]))
        tables.append(world.ingest(source("*.csv"), split=SplitSettings())["interactions"].read())
    assert tables[0].equals(tables[1])


def test_random_split_uses_shares(world: World) -> None:
    world.put("a.csv", "user_id,item_id\n" + "".join(f"u{n // 10},i{n % 10}\n" for n in range(500)))
    made = world.ingest(source("a.csv"), split=SplitSettings())["interactions"]
    assert {name: made.statistics["domains"]["d"][name] for name in ("train", "valid", "test")} == {
        "train": 350, "valid": 50, "test": 100,
    }  # fmt: skip


def test_duplicates_do_not_straddle_splits(world: World) -> None:
    world.put("a.csv", "user_id,item_id\n" + "".join(f"u{n % 5},i{n % 12}\n" for n in range(600)))
    table = world.ingest(source("a.csv"), split=SplitSettings(), cold="keep")["interactions"].read()
    assert table.num_rows == 60
    assert pc.sum(table["count"]).as_py() == 600


def test_splits_of_paths_mean_nothing_to_a_random_split(world: World) -> None:
    """A pair counts once, whatever files it is in."""
    world.put("d_train.csv", "u,i\nu,j\n")
    world.put("d_test.csv", "u,i\n")
    rows = world.rows(PRE_SPLIT, "item_id", "split", "count", split=ALL_TRAIN)
    assert rows == [("i", "train", 2), ("j", "train", 1)]


def test_leave_last_out_goes_by_time_over_files(world: World) -> None:
    world.put("1.csv", "user_id,item_id,t\nu,a,9\nu,b,1\n")
    world.put("2.csv", "user_id,item_id,t\nu,c,5\n")
    split = SplitSettings(method="leave-last-out")
    rows = world.rows(source("*.csv", columns=Columns(timestamp="t")), "item_id", "split", split=split)
    assert rows == [("a", "test"), ("b", "train"), ("c", "valid")]


def test_same_inputs_are_not_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put("a.csv", CSV)
    made = world.ingest(source("a.csv"))
    monkeypatch.setattr(sifted, "sift_logs", None)
    assert {name: artifact.path for name, artifact in world.ingest(source("a.csv")).items()} == {
        name: artifact.path for name, artifact in made.items()
    }


def test_moving_the_data_does_not_change_the_key(tmp_path: Path) -> None:
    keys = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.csv").write_bytes(CSV)
        keys.append(ingest_inputs(IngestSettings(), find_logs([source(f"{name}/*.csv")], tmp_path)))
    assert keys[0] == keys[1]


@pytest.mark.parametrize("change", ["content", "name", "domain", "columns", "settings"])
def test_any_change_changes_the_inputs(tmp_path: Path, change: str) -> None:
    (tmp_path / "a.csv").write_bytes(CSV)
    before = ingest_inputs(IngestSettings(), find_logs([source("*.csv")], tmp_path))
    keys: dict[str, Any] = {"domain": {"domain": "e"}, "columns": {"columns": Columns(user="u")}}.get(change, {})
    if change == "content":
        (tmp_path / "a.csv").write_bytes(CSV + b"u3,i3\n")
    if change == "name":
        (tmp_path / "a.csv").rename(tmp_path / "b.csv")
    stage = IngestSettings(cold="keep") if change == "settings" else IngestSettings()
    assert ingest_inputs(stage, find_logs([source("*.csv", **keys)], tmp_path)) != before


def test_deleted_rejects_are_made_again(world: World) -> None:
    world.put("a.csv", "user_id,item_id\nu,i\nbroken\n")
    rejects = world.ingest(source("a.csv"))["rejects"]
    for path in rejects.path.iterdir():
        path.unlink()
    rejects.path.rmdir()
    assert world.rejects(source("a.csv")) == [(3, "arity", "broken")]


def test_artifacts_verify(world: World) -> None:
    made = world.ingest(messy_logs(world), split=SplitSettings())
    assert made["interactions"].verify() == made["rejects"].verify() == []
    assert (made["interactions"].contract, made["rejects"].contract) == (INTERACTIONS, REJECTS)


def test_progress_counts_files_buckets_and_parts(world: World) -> None:
    told: list[tuple[int, int, str]] = []
    logs = find_logs([messy_logs(world)], world.logs)
    stage = IngestSettings(rejected_share_at_most=1.0)
    listen: Callable[[int, int, str], None] = lambda done, total, unit: told.append((done, total, unit))  # noqa: E731
    ingest(world.store, stage, logs, ComputeSettings(threads=2), listen)
    parts_by_domain = [(n, 3, "parts") for n in (1, 2, 3)]
    assert told == [(n, 4, "files") for n in (1, 2, 3, 4)] + [(1, 1, "buckets")] + parts_by_domain


DATA = Path(os.environ.get("EDDA_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.mark.skipif(not (DATA / "Amazon").is_dir(), reason=f"needs the released Amazon logs in {DATA} (EDDA_DATA)")
def test_released_amazon_logs_have_the_known_duplicates_and_leaks(tmp_path: Path) -> None:
    """Duplicate train rows, and test rows that repeat a train row, in the files as their authors released them."""
    pattern = r"(?P<domain>[^/]+)_(?P<split>train|test)\.csv$"
    released = LogSource(
        path=f"{DATA}/Amazon/*_t*.csv", header=False, columns=Columns(user=1, item=0), path_pattern=pattern
    )
    stage = IngestSettings(split=GIVEN, cold="keep")
    made = ingest(Store(tmp_path), stage, find_logs([released], tmp_path), ComputeSettings())["interactions"]
    trains = {d: made.read(["split", "count"], domain=d) for d in ("Luxury", "Music", "Pantry")}
    trains = {domain: table.filter(pc.equal(table["split"], "train")) for domain, table in trains.items()}
    repeated = {domain: pc.sum(table["count"]).as_py() - table.num_rows for domain, table in trains.items()}
    leaked = {domain: row["leaked"] for domain, row in made.statistics["domains"].items()}
    assert repeated == {"Luxury": 3548, "Music": 12131, "Pantry": 3297}
    tests = {"Luxury": 6857, "Music": 33866, "Pantry": 27507}
    assert {d: round(100 * leaked[d] / tests[d], 1) for d in leaked} == {"Luxury": 23.0, "Music": 20.1, "Pantry": 6.8}
