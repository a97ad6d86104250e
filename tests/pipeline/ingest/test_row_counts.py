"""No source, file or domain vanishes without a word, and the log says what became of its rows."""

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from raw_logs import ALL_TRAIN, BY_PATH, GIVEN, RawLogs, parquet, source

from data_contracts.settings.ingest import IngestSettings, SplitSettings
from data_contracts.settings.logs import Columns, LogSource
from pipeline.ingest.row_counts import RowCounts
from pipeline.logs.discovery import LogError

STRICT: dict[str, Any] = {"rejected_share_at_most": 1.0, "kept_share_at_least": 0.5}
BY_NAME = LogSource(path="*.csv", path_pattern=r"(?P<domain>[a-z]+)\d*\.csv", columns=Columns(timestamp="t"))
BY_COLUMN = source("a.csv", domain=None, columns=Columns(domain="d", timestamp="t"))


@pytest.fixture
def world(tmp_path: Path) -> RawLogs:
    return RawLogs(tmp_path)


def rows(user: str, times: list[str], domain: str = "") -> str:
    return "".join(f"{user},i{n},{time}{domain and ','}{domain}\n" for n, time in enumerate(times))


def test_a_small_domain_whose_every_time_is_bad_stops_the_run_below_the_limit_of_all_rows(world: RawLogs) -> None:
    world.put("books.csv", "user_id,item_id,t\n" + rows("u", ["1"] * 1500))
    world.put("films.csv", "user_id,item_id,t\n" + rows("v", ["noon"] * 12))
    expected = r"100\.00% of 12 raw rows of domain 'films' are malformed \(number 12\)"
    with pytest.raises(LogError, match=expected + r".* line 2 of films\.csv \(number: 'noon', is neither a number nor"):
        world.ingest(BY_NAME, rejected_share_at_most=0.01)


def test_one_malformed_row_of_a_small_domain_does_not_stop_the_run(world: RawLogs) -> None:
    world.put("books.csv", "user_id,item_id,t\n" + rows("u", ["1"] * 1500))
    world.put("films.csv", "user_id,item_id,t\n" + rows("v", ["1"] * 10 + ["noon"]))
    made = world.ingest(BY_NAME, **{**STRICT, "rejected_share_at_most": 0.01})
    assert made["interactions"].statistics["domains"]["films"]["train"] == 10


def test_a_file_without_any_interaction_is_named_with_an_example(world: RawLogs) -> None:
    world.put("films1.csv", "user_id,item_id,t\n" + rows("u", ["1"] * 50))
    world.put("films2.csv", "user_id,item_id,t\n" + rows("u", ["", "x", "x"]))
    expected = (
        r"of the 3 rows of file 'films2\.csv' none became interactions \(missing 1, number 2\), must be at least 50%; "
        r"for example line 3 of films2\.csv \(number: 'x'"
    )
    with pytest.raises(LogError, match=expected):
        world.ingest(BY_NAME, **STRICT)


def test_a_domain_with_less_than_half_is_named_where_it_is_a_column(world: RawLogs) -> None:
    lines = rows("u", ["1"] * 20, "books") + rows("u", ["1", "x", "x"], "films")
    world.put("a.csv", "user_id,item_id,t,d\n" + lines)
    with pytest.raises(LogError, match=r"of the 3 rows of domain 'films' 1 became interactions \(number 2\)"):
        world.ingest(BY_COLUMN, **STRICT)


def test_exactly_half_is_enough_and_merged_rows_count(world: RawLogs) -> None:
    world.put("a.csv", "user_id,item_id,t,d\nu,i,1,e\nu,i,2,e\nu,j,x,e\nu,k,x,e\n")
    made = world.ingest(BY_COLUMN, **STRICT)["interactions"]
    assert (made.statistics["domains"]["e"]["train"], made.statistics["domains"]["e"]["duplicates"]) == (1, 1)


def test_a_domain_of_cold_rows_stops_the_run_unless_allowed(world: RawLogs) -> None:
    world.put("a.csv", "user_id,item_id,t,d\n" + rows("u", ["1"] * 20, "books") + rows("v", ["9"] * 2, "films"))
    split = SplitSettings(method="time", valid_from=5, test_from=7)
    with pytest.raises(LogError, match=r"of the 2 rows of domain 'films' none became interactions \(cold 2\)"):
        world.ingest(BY_COLUMN, **STRICT, split=split, cold="drop")
    made = world.ingest(BY_COLUMN, **{**STRICT, "kept_share_at_least": 0.0}, split=split, cold="drop")
    assert made["interactions"].statistics["domains"]["films"]["cold"] == 2


def test_cold_rows_of_a_small_domain_do_not_count_where_a_part_of_every_user_is_held_out(world: RawLogs) -> None:
    """Six users with three items of their own: the last two of each are cold, so 6 of 18 rows are kept."""
    lines = "".join(f"u{n // 3},i{n},{n},films\n" for n in range(18)) + rows("u9", ["1"] * 20, "books")
    world.put("a.csv", "user_id,item_id,t,d\n" + lines)
    split = SplitSettings(method="leave-last-out")
    made = world.ingest(BY_COLUMN, **STRICT, split=split, cold="drop")["interactions"]
    films = made.statistics["domains"]["films"]
    assert (films["train"], films["cold"]) == (6, 12)
    by_time = SplitSettings(method="time", valid_from=6, test_from=7)
    with pytest.raises(LogError, match=r"of the 18 rows of domain 'films' 6 became interactions \(cold 12\)"):
        world.ingest(BY_COLUMN, **STRICT, split=by_time, cold="drop")


def test_cold_rows_do_not_count_against_a_file_that_keeps_some(world: RawLogs) -> None:
    world.put("d_train.csv", "u,i\nu,j\nv,i\nv,j\n")
    world.put("d_test.csv", "u,k\nu,l\nv,i\nw,i\nu,i\n")
    pre_split = LogSource(path="*.csv", header=False, columns=Columns(user=0, item=1), path_pattern=BY_PATH)
    with pytest.raises(LogError, match=r"of the 5 rows of file 'd_test\.csv' none became .*\(cold 3, leaked 2\)"):
        world.ingest(pre_split, **STRICT, split=GIVEN, cold="drop")
    world.put("d_train.csv", "u,i\nu,j\nv,j\n")
    made = world.ingest(pre_split, **{**STRICT, "kept_share_at_least": 0.5}, split=GIVEN, cold="drop")
    assert made["interactions"].statistics["domains"]["d"]["test"] == 1


def test_rows_rated_too_low_do_not_count_but_a_source_of_nothing_else_stops_the_run(world: RawLogs) -> None:
    rated = source("*.csv", columns=Columns(rating="r"), rating_at_least=4)
    world.put("a.csv", "user_id,item_id,r\n" + "".join(f"u,i{n},{1 if n else 5}\n" for n in range(10)))
    world.put("b.csv", "user_id,item_id,r\nu,j,1\n")
    assert world.rows(rated, "item_id", **STRICT) == [("i0",)]
    world.put("a.csv", "user_id,item_id,r\nu,i0,3\n")
    with pytest.raises(LogError, match=r"of the 2 rows of source '\*\.csv' none became interactions \(rating 2\)"):
        world.ingest(rated, **STRICT)


def test_parquet_nanoseconds_beside_iso_texts_are_refused(world: RawLogs) -> None:
    moment = pa.array([1_715_000_000_000_000_000], pa.timestamp("ns"))
    world.put("a.parquet", parquet(user_id=["u"], item_id=["i"], t=moment))
    world.put("b.csv", "user_id,item_id,t\nu,j,2024-05-06\n")
    times = source("*", columns=Columns(timestamp="t"))
    split = SplitSettings(method="leave-last-out")
    with pytest.raises(LogError, match=r"times of b\.csv .*, those of a\.parquet from 1715000000000000000 .*one unit"):
        world.ingest(times, split=split)
    assert len(world.rows(times, "item_id", split=ALL_TRAIN)) == 2


def test_units_may_differ_between_domains_where_times_order_within_a_domain(world: RawLogs) -> None:
    world.put("books.csv", "user_id,item_id,t\nu,i,1715000000\nu,j,1715000001\n")
    world.put("films.csv", "user_id,item_id,t\nu,i,1715000000000\n")
    assert len(world.rows(BY_NAME, "item_id", split=SplitSettings(method="leave-last-out"))) == 3
    with pytest.raises(LogError, match="must have one unit"):
        world.ingest(BY_NAME, split=SplitSettings(method="time", valid_from=1, test_from=2))


def test_the_log_ends_with_a_line_for_each_domain(world: RawLogs, caplog: pytest.LogCaptureFixture) -> None:
    world.put("d_train.csv", "u,i\nu,i\nu,k\nx\n")
    world.put("d_test.csv", "u,i\nv,k\n")
    world.put("e_train.csv", "x,\n")
    pre_split = LogSource(path="*.csv", header=False, columns=Columns(user=0, item=1), path_pattern=BY_PATH)
    with caplog.at_level(logging.INFO, "pipeline.ingest.stage"):
        world.ingest(pre_split, split=GIVEN, cold="drop")
    assert [record.getMessage() for record in caplog.records if "domain" in record.getMessage()] == [
        "domain d: 6 rows, 2 interactions, 1 merged, 1 rejected, 1 leaked, 1 cold",
        "domain e: 1 rows, 0 interactions, 0 merged, 1 rejected, 0 leaked, 0 cold",
    ]


def test_a_decimal_comma_is_called_so(world: RawLogs) -> None:
    world.put("a.csv", "user_id;item_id;stars\nu;i;4,5\nu;j;3,0\n")
    rated = source("a.csv", delimiter=";", columns=Columns(rating="stars"), rating_at_least=3)
    with pytest.raises(LogError, match=r"line 2 of a\.csv \(number: '4,5', has a decimal comma, must have a point\)"):
        world.ingest(rated, rejected_share_at_most=0.01)


def test_rows_of_a_domain_that_cannot_be_read_are_said(world: RawLogs, caplog: pytest.LogCaptureFixture) -> None:
    """The comma in the name makes each row of `food, drinks` one of another width."""
    lines = rows("u", ["1"] * 1500, "books") + rows("u", ["1"] * 3, "food, drinks")
    world.put("a.csv", "user_id,item_id,t,d\n" + lines)
    world.ingest(BY_COLUMN, rejected_share_at_most=0.01)
    said = (
        "3 malformed rows are of no known domain (arity 3); a domain that has no others is lost; the first is line "
        "1502 of a.csv (arity: 'u,i0,1,food, drinks', has more or fewer fields than the header, or than most lines"
    )
    assert [r.getMessage().startswith(said) for r in caplog.records if "no known domain" in r.msg] == [True]


def test_keys_are_those_of_versions_without_the_limit() -> None:
    assert "kept_share_at_least" not in IngestSettings().keyed()
    assert IngestSettings(kept_share_at_least=0.0).keyed()["kept_share_at_least"] == 0.0


@pytest.mark.parametrize(("malformed", "is_few"), [(9, True), (10, False)])
def test_nine_malformed_rows_are_few_in_a_domain_but_not_in_all(malformed: int, is_few: bool) -> None:
    domain = RowCounts("domain", "d", rows=100)
    domain.reasons["number"] = malformed
    assert domain.has_few_malformed(0.01) == is_few
    everything = RowCounts("all", rows=100, reasons=domain.reasons)
    assert not everything.has_few_malformed(0.01)


@pytest.mark.parametrize("empty", ["", "user_id,item_id,t\n", "\n\n"])
def test_an_empty_log_or_one_of_a_header_alone_stops_the_run_by_name(world: RawLogs, empty: str) -> None:
    world.put("books.csv", "user_id,item_id,t\n" + rows("u", ["1"] * 9))
    world.put("films.csv", empty)
    with pytest.raises(
        LogError, match=r"file 'films\.csv' has no rows, must have some; remove it, correct its source's"
    ):
        world.ingest(BY_NAME, **STRICT)
    assert len(world.rows(BY_NAME, "item_id", kept_share_at_least=0.0)) == 9


def test_parquet_without_rows_is_a_part_as_spark_writes_it_unless_its_source_has_no_others(world: RawLogs) -> None:
    empty = parquet(user_id=pa.array([], pa.string()), item_id=pa.array([], pa.string()))
    world.put("part-0.parquet", empty)
    with pytest.raises(LogError, match=r"file 'part-0\.parquet' has no rows"):
        world.ingest(source("*.parquet"), **STRICT)
    world.put("part-1.parquet", parquet(user_id=["u"], item_id=["i"]))
    assert world.rows(source("*.parquet"), "user_id", **STRICT) == [("u",)]
