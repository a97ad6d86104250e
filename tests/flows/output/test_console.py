import io
import re

import pytest
from rich.console import Console

from data_contracts.progress import Logged, Unit
from flows.output.console import Pace, bars, log_lines


class Clock:
    """Seconds that only pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def summary(clock: Clock, *calls: tuple[float, int], total: int = 0, unit: str = "nodes") -> str:
    """The summary of the last of some calls, each so many seconds after the start."""
    pace, began, text = Pace(clock), clock.now, ""
    for seconds, done in calls:
        clock.now = began + seconds
        text = pace.summary(done, total, unit)
    return text


def test_done_speed_and_time_left_are_reported(clock):
    assert summary(clock, (3, 0), (6, 36_000), total=96_510) == "36,000 of 96,510 nodes, 12 k nodes/s, 5 s left"


def test_speed_is_measured_in_a_units_parts(clock):
    unit = Unit("nodes", 2000, "steps")
    assert summary(clock, (0, 0), (10, 15_700), total=31_400, unit=unit) == (
        "15,700 of 31,400 nodes, 3.14 M steps/s, 10 s left"
    )


def test_nothing_done_has_no_speed_and_no_time_left(clock):
    assert summary(clock, (0, 0), (9, 0), total=8) == "0 of 8 nodes"


def test_no_time_passed_has_no_speed(clock):
    assert summary(clock, (0, 0), (0, 4), total=8) == "4 of 8 nodes"


def test_without_a_total_there_is_a_speed_and_no_time_left(clock):
    assert summary(clock, (0, 0), (4, 20)) == "20 nodes, 5 nodes/s"


def test_when_all_is_done_nothing_is_left(clock):
    assert summary(clock, (0, 0), (4, 20), total=20) == "20 of 20 nodes, 5 nodes/s"


def test_the_first_of_many_took_as_long_as_the_watch(clock):
    assert summary(clock, (20, 1), total=4, unit="epochs") == "1 of 4 epochs, 3 epochs/min, 60 s left"


def test_what_was_done_before_the_first_call_is_no_speed(clock):
    assert summary(clock, (2, 51), total=100, unit="epochs") == "51 of 100 epochs"
    assert summary(clock, (2, 51), (4, 52), total=100, unit="epochs") == "52 of 100 epochs, 30 epochs/min, 96 s left"


def test_what_an_earlier_attempt_finished_is_no_speed(clock):
    counted = [(number / 1000, number * 100) for number in range(51)]
    assert summary(clock, *counted, (10.05, 5200), total=10_000) == "5,200 of 10,000 nodes, 20 nodes/s, 4 min left"


def test_speed_follows_the_work(clock):
    slow = [(second, second) for second in range(31)]
    fast = [(30 + second, 30 + 100 * second) for second in range(1, 31)]
    assert summary(clock, *slow, *fast, total=4030) == "3,030 of 4,030 nodes, 100 nodes/s, 10 s left"


def test_tasks_that_finish_side_by_side_count_for_the_time_they_took(clock):
    assert summary(clock, (0, 0), (10, 5), (10.001, 10), total=20) == "10 of 20 nodes, 1 nodes/s, 10 s left"


def test_a_pause_of_the_process_is_no_work(clock):
    steady = [(5 * second, second) for second in range(1, 9)]
    after = [(5 * second + 3600, second) for second in range(9, 12)]
    assert summary(clock, *steady, *after, total=40, unit="epochs").endswith(", 12 epochs/min, 2 min left")


def test_work_that_stays_slow_is_no_pause(clock):
    calls = [(second, second) for second in range(1, 9)] + [(8 + 100 * slow, 8 + slow) for slow in range(1, 21)]
    assert summary(clock, *calls, total=100) == "28 of 100 nodes, 36 nodes/h, 2 h left"


def test_units_with_a_log_line_of_their_own_get_no_other(clock):
    lines: list[str] = []
    with log_lines(lines.append, clock)("checkpoint-7") as progress:
        for seconds in range(0, 30, 5):
            clock.now = 100.0 + seconds
            progress(seconds // 5, 40, "epochs", Logged())
    assert lines == []
    with log_lines(lines.append, clock, with_logged=True)("checkpoint-7") as progress:
        clock.now += 10
        progress(3, 40, "epochs", Logged())
    assert lines == ["checkpoint-7: 3 of 40 epochs"]


def test_a_note_stands_before_the_speed(clock):
    pace = Pace(clock)
    pace.summary(0, 100, "epochs")
    clock.now += 36
    note = "loss 0.213, validation AUC 0.8412 (best 0.8420 at 9)"
    assert pace.summary(12, 100, "epochs", note) == f"12 of 100 epochs, {note}, 20 epochs/min, 4 min left"


def test_another_count_starts_a_new_measurement(clock):
    pace = Pace(clock)
    pace.summary(0, 10, "files")
    clock.now += 10
    pace.summary(10, 10, "files")
    assert pace.summary(0, 900, "buckets") == "0 of 900 buckets"
    clock.now += 2
    assert pace.summary(300, 900, "buckets") == "300 of 900 buckets, 150 buckets/s, 4 s left"
    assert pace.summary(2, 900, "buckets") == "2 of 900 buckets"


@pytest.mark.parametrize(
    ("per_second", "text"),
    [
        (35_000, "35 k"),
        (35_149, "35.1 k"),
        (999.4, "999"),
        (999.5, "1 k"),
        (999_600, "1 M"),
        (12.34, "12.3"),
        (1.0, "1"),
        (3.14e9, "3.14 G"),
        (2.5e12, "2.5 T"),
    ],
)
def test_speeds_have_three_digits_and_a_prefix(clock, per_second, text):
    done = round(per_second * 1000)
    assert summary(clock, (0, 0), (1000, done)) == f"{done:,} nodes, {text} nodes/s"


@pytest.mark.parametrize(("seconds", "text"), [(2, "30 nodes/min"), (60, "1 nodes/min"), (1800, "2 nodes/h")])
def test_slow_work_is_counted_by_the_minute_or_hour(clock, seconds, text):
    assert summary(clock, (0, 0), (10 * seconds, 10)) == f"10 nodes, {text}"


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (0.2, "1 s"),
        (99.4, "99 s"),
        (99.6, "2 min"),
        (3600, "60 min"),
        (5969, "99 min"),
        (6000, "2 h"),
        (36_000, "10 h"),
    ],
)
def test_time_left_is_whole_seconds_minutes_or_hours(clock, left, text):
    assert summary(clock, (0, 0), (10, 100), total=100 + round(left * 10)).endswith(f", {text} left")


def test_lines_come_every_few_seconds(clock):
    lines: list[str] = []
    with log_lines(lines.append, clock)("reach") as progress:
        for seconds in range(13):
            clock.now = 100.0 + seconds
            progress(1000 * seconds, 40_000, "nodes")
    assert lines == [
        "reach: 5,000 of 40,000 nodes, 1 k nodes/s, 35 s left",
        "reach: 10,000 of 40,000 nodes, 1 k nodes/s, 30 s left",
    ]


def on_screen(width: int, note: str = "") -> str:
    """What a terminal was sent, without control codes."""
    screen = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        wide = Console(file=screen, force_terminal=True, width=width, legacy_windows=False)
        patch.setattr("flows.output.console.STDERR", wide)
        with bars()("interactions") as progress:
            progress(12_000, 96_510, "nodes", note)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_bar_shows_what_is_reported_on_one_line_of_any_terminal(width):
    lines = re.split(r"[\r\n]+", on_screen(width))
    shown = [line for line in lines if "of 96,510" in line]
    assert shown
    assert all(line.startswith("interactions ") and "12,000 of 96,510 nodes" in line for line in shown)
    assert all(len(line.rstrip()) <= min(width, 100) for line in lines)


def test_a_bar_shows_the_note_where_there_is_room():
    assert "12,000 of 96,510 nodes, loss 0.213" in on_screen(80, "loss 0.213")
    lines = re.split(r"[\r\n]+", on_screen(60, "loss 0.213, validation AUC 0.8412 (best 0.8420 at 9)"))
    assert all(len(line.rstrip()) <= 60 for line in lines)
