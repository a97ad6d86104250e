"""Cut-offs of a split by time: numbers, dates and durations mean the same in every unit."""

import logging
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from raw_logs import RawLogs, source

from data_contracts.settings.ingest import IngestSettings, SplitSettings
from data_contracts.settings.logs import Columns
from pipeline.ingest.splits import resolve_cut_offs
from pipeline.logs.discovery import LogError

MAY_6 = 1_714_953_600
"""Seconds from 1970 to 2024-05-06, UTC."""
DAY = 86_400


def cut_offs(valid_from: Any, test_from: Any, latest: int, earliest: int = 0) -> tuple[Any, Any]:
    settings = SplitSettings(method="time", valid_from=valid_from, test_from=test_from)
    resolved = resolve_cut_offs(settings, earliest, latest)
    return resolved.valid_from, resolved.test_from


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
def test_dates_and_durations_take_the_unit_of_the_log(unit: int) -> None:
    latest = (MAY_6 + 10 * DAY) * unit
    assert cut_offs("2024-05-06", "2024-05-06T01:00:00+01:00", latest) == (MAY_6 * unit, MAY_6 * unit)
    assert cut_offs("10d", "1w", latest) == (MAY_6 * unit, (MAY_6 + 3 * DAY) * unit)
    assert cut_offs("2024-05-06", "36h", latest) == (MAY_6 * unit, (MAY_6 + 8 * DAY + DAY // 2) * unit)


def test_numbers_stay_as_they_are_in_any_unit() -> None:
    assert cut_offs(5, 7, latest=9) == (5, 7)


def test_dates_of_toml_are_texts_and_enter_the_key_so() -> None:
    settings = SplitSettings(method="time", valid_from=date(2024, 5, 6), test_from=datetime(2024, 5, 7, 12, tzinfo=UTC))  # type: ignore[arg-type]
    assert (settings.valid_from, settings.test_from) == ("2024-05-06", "2024-05-07T12:00:00+00:00")
    assert IngestSettings(split=settings).keyed()["split"]["valid_from"] == "2024-05-06"


@pytest.mark.parametrize(
    ("valid_from", "test_from", "message"),
    [
        ("noon", "2024-05-06", "'noon' must be a number, a date such as 2026-11-15, or a duration such as 30d"),
        ("2024-02-30", "30d", "'2024-02-30' must be"),
        ("2024-05-07", "2024-05-06", "valid_from is 2024-05-07, must be ≤ test_from"),
        ("7d", "14d", "valid_from is 7d, must be ≤ test_from"),
        (8, 7, "valid_from is 8, must be ≤ test_from"),
    ],
)
def test_cut_offs_that_mean_nothing_are_refused(valid_from: Any, test_from: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SplitSettings(method="time", valid_from=valid_from, test_from=test_from)


def test_dates_need_times_since_1970() -> None:
    with pytest.raises(LogError, match=r"valid_from is '2024-05-06', but the times of the logs, 1 to 9, do not count"):
        cut_offs("2024-05-06", "2024-05-07", latest=9, earliest=1)


def test_cut_offs_of_two_kinds_are_compared_in_the_unit_of_the_log() -> None:
    with pytest.raises(LogError, match=r"valid_from is '1d', must be ≤ test_from \('2024-05-06'\)"):
        cut_offs("1d", "2024-05-06", latest=MAY_6 + 10 * DAY)


@pytest.fixture
def world(tmp_path: Path) -> RawLogs:
    world = RawLogs(tmp_path)
    times = [MAY_6 - DAY, MAY_6 - 1, MAY_6, MAY_6 + DAY]
    lines = [f"u,i{n},{time * 1000}\n" for n, time in enumerate(times)]
    world.put("a.csv", "user_id,item_id,t\n" + "".join(lines))
    return world


TIMES = source("a.csv", columns=Columns(timestamp="t"))


@pytest.mark.parametrize("cut_offs", [("2024-05-06", "2024-05-07"), ("1d", "0d"), (MAY_6 * 1000, (MAY_6 + DAY) * 1000)])
def test_a_log_in_milliseconds_is_divided_alike_by_dates_durations_and_numbers(world: RawLogs, cut_offs: Any) -> None:
    split = SplitSettings(method="time", valid_from=cut_offs[0], test_from=cut_offs[1])
    assert world.rows(TIMES, "split", split=split) == [("train",), ("train",), ("valid",), ("test",)]


def test_cut_offs_in_seconds_for_a_log_in_milliseconds_are_refused(world: RawLogs) -> None:
    split = SplitSettings(method="time", valid_from=MAY_6, test_from=MAY_6 + DAY)
    with pytest.raises(LogError, match=rf"are from ingest\.split\.valid_from \({MAY_6}\) on, .* is its unit that of"):
        world.ingest(TIMES, split=split, kept_share_at_least=0.5)


def test_cut_offs_after_all_times_are_said(world: RawLogs, caplog: pytest.LogCaptureFixture) -> None:
    split = SplitSettings(method="time", valid_from="2025-01-01", test_from="2025-01-02")
    with caplog.at_level(logging.WARNING, "pipeline.ingest.splits"):
        assert world.rows(TIMES, "split", split=split) == [("train",)] * 4
    assert "are before ingest.split.valid_from (2025-01-01): nothing is held out" in caplog.text
