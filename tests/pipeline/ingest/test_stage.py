"""From raw logs to interactions and rejects, end to end."""

import gzip
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle_ingest import Row, ingest_given
from raw_logs import ALL_TRAIN, BY_PATH, CSV, GIVEN, JSON, PAIR, parquet, source
from raw_logs import RawLogs as World

from data_contracts.contracts import INTERACTIONS, REJECTS
from data_contracts.settings.ingest import IngestSettings, SplitSettings
from data_contracts.settings.logs import Columns, LogSource
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import GraphSettings, PairsSettings, ReachSettings
from data_contracts.store.store import Store
from pipeline.graph import build_graph, number_nodes
from pipeline.ingest import rejects as rejects_module
from pipeline.ingest import stage as ingest_stage
from pipeline.ingest.stage import ingest
from pipeline.logs.discovery import LogError, find_logs
from pipeline.pairs.stage import pair_domains
from pipeline.reach.stage import compute_reach


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_no_domain_is_called_as_the_mean_over_domains_is(world: World) -> None:
    world.put("a.csv", "user_id,item_id\nu,i\n")
    with pytest.raises(LogError, match="a domain is called 'macro', must not be"):
        world.ingest(source("a.csv", domain="macro"))


@pytest.mark.parametrize(("name", "encoded"), [("a" * 242, 242), ("市" * 27, 243), ("a/" * 61, 244)])
def test_domains_whose_names_fit_no_folder_are_refused(world: World, name: str, encoded: int) -> None:
    world.put("a.csv", f"user_id,item_id,d\nu,i,{name}\nu,j,ok\n")
    with pytest.raises(LogError, match=f"whose name has {encoded} bytes when .* must have at most 241; shorten it"):
        world.ingest(source("a.csv", domain=None, columns=Columns(domain="d")))


@pytest.mark.parametrize("name", ["a" * 241, "市" * 26 + "a" * 7])
def test_the_longest_domain_names_go_through_all_stages(world: World, name: str) -> None:
    """Up to the pairs, whose folders have the longest names."""
    lines = [f"u{n * 7 % 20},i{n * 3 % 15},{name[: len(name) - n % 2]}" for n in range(100)]
    world.put("a.csv", "\n".join(["user_id,item_id,d", *lines]) + "\n")
    made = world.ingest(source("a.csv", domain=None, columns=Columns(domain="d")), split=SplitSettings())
    compute = ComputeSettings(threads=1)
    parents = {"interactions": made["interactions"]}
    parents["nodes"] = number_nodes(world.store, GraphSettings(), parents, compute)
    parents["graph"] = build_graph(world.store, GraphSettings(), parents, compute)
    parents["reach"] = compute_reach(world.store, ReachSettings(), parents, compute)
    pairs = pair_domains(world.store, PairsSettings(), parents, compute)
    assert {row["source_domain"] for row in pairs.partitions()} == {name, name[:-1]}


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
        r"the first is line 3 of a\.csv "
        r"\(arity: 'broken', has more or fewer fields than the header, or than most lines\); see "
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
        ("a.csv.gz", gzip.compress(CSV, mtime=0)[:-9], {}, "cannot be read: Truncated"),
        ("a.txt", CSV, {}, "the ending 'txt' is unknown"),
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
        "pairs_in_several_domains": {"train": 1, "valid": 0, "test": 0}, "tied_users": 0, "users": 1, "items": 3,
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
        patch.setattr(ingest_stage, "_BUCKET_ROWS", (bucket_rows, bucket_rows))
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
    monkeypatch.setattr(ingest_stage, "_BLOCK_BYTES", (700, 700))
    monkeypatch.setattr(ingest_stage, "_BUCKET_ROWS", (70, 70))
    assert fingerprint(second.ingest(messy_logs(second), ComputeSettings(threads=threads), **options)) == expected


def test_rows_do_not_depend_on_how_many_fill_a_file(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    logs = messy_logs(world)
    expected = {name: artifact.read() for name, artifact in world.ingest(logs, split=SplitSettings()).items()}
    monkeypatch.setattr(ingest_stage, "_ROWS_PER_FILE", 10)
    monkeypatch.setattr(rejects_module, "_LINES", 17)
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


DATA = Path(os.environ.get("EDDA_DATA", Path(__file__).parents[4] / "shared" / "data"))


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
