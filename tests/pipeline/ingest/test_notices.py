"""What is said of logs that can be read and yet are odd."""

import logging
from pathlib import Path
from typing import Any

import pytest
from raw_logs import ALL_TRAIN, COMPUTE, RawLogs, source

from data_contracts.settings.ingest import IngestSettings, SplitSettings
from data_contracts.settings.logs import Columns, LogSource
from pipeline.ingest.stage import ingest
from pipeline.logs.discovery import find_logs


@pytest.fixture
def world(tmp_path: Path) -> RawLogs:
    return RawLogs(tmp_path)


def warnings(world: RawLogs, caplog: pytest.LogCaptureFixture, *sources: LogSource, **options: Any) -> list[str]:
    """The warnings of an ingest."""
    caplog.clear()
    ingest(world.store, IngestSettings(**options), find_logs(sources, world.logs), COMPUTE)
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_rating_that_is_named_and_not_used_is_said_once_with_the_share_of_those_that_are_not_positive(
    world: RawLogs, caplog: Any
) -> None:
    """Every third of nine ratings is -1; the log has two files."""
    for name in ("a.csv", "b.csv"):
        world.put(name, "user_id,item_id,r\n" + "".join(f"u{n},i,{(-1, 0.5, 1)[n % 3]}\n" for n in range(9)))
    assert warnings(world, caplog, source("*.csv", columns=Columns(rating="r"))) == [
        "a.csv: columns.rating is 'r' and is not used, so every row is a positive: of the first 9 ratings, which are "
        "-1 to 1, 33% are 0 or less; set rating_at_least, or remove columns.rating"
    ]


def test_ratings_that_are_used_or_none_are_not_described(world: RawLogs, caplog: Any) -> None:
    world.put("a.csv", "user_id,item_id,r\nu,i,good\nv,i,\n")
    (said,) = warnings(world, caplog, source("a.csv", columns=Columns(rating="r")))
    assert said.startswith("a.csv: columns.rating is 'r' and is not used, so every row is a positive; set")
    world.put("a.csv", "user_id,item_id,r\nu,i,3\nv,i,3\n")
    assert warnings(world, caplog, source("a.csv", columns=Columns(rating="r"), rating_at_least=2)) == []
    assert warnings(world, caplog, source("a.csv")) == []


def two_shops(world: RawLogs, columns: Columns, start: int = 0) -> list[LogSource]:
    """Books and films with the same users, after a third log, of music; the columns of films may be swapped."""
    for name, first in (("books", start), ("films", 0), ("music", start)):
        rows = [f"u{first + n % 30},{name}{n % 7}" for n in range(210)]
        world.put(f"{name}.csv", "user_id,item_id\n" + "\n".join(rows))
    others = [source(f"{name}.csv", domain=name) for name in ("books", "music")]
    return [*others, source("films.csv", domain="films", columns=columns)]


SWAPPED = Columns(user="item_id", item="user_id")


def test_swapped_columns_are_noticed_and_columns_in_order_are_not(world: RawLogs, caplog: Any) -> None:
    expected = (
        "log source 'films.csv': no users in common with the other sources, but what is a user in one is an item in "
        "the other: are columns.user and columns.item swapped?"
    )
    assert warnings(world, caplog, *two_shops(world, SWAPPED)) == [expected]
    assert warnings(world, caplog, *two_shops(world, Columns())) == []
    assert warnings(world, caplog, *two_shops(world, Columns(), start=100)) == []
    books, _, films = two_shops(world, SWAPPED)
    assert warnings(world, caplog, books, films) == [expected.replace("'films", "'books.csv', 'films")]


def test_users_and_items_that_are_both_numbered_from_1_do_not_look_swapped(world: RawLogs, caplog: Any) -> None:
    """The users of a are items in b, and of a, too."""
    world.put("a.csv", "user_id,item_id\n" + "".join(f"{n % 30},{n % 20}\n" for n in range(200)))
    world.put("b.csv", "user_id,item_id\n" + "".join(f"{100 + n % 30},{n % 90}\n" for n in range(200)))
    assert warnings(world, caplog, source("a.csv"), source("b.csv", domain="e"), split=ALL_TRAIN) == []


def test_domains_that_look_alike_are_said(world: RawLogs, caplog: Any) -> None:
    def said_of(*names: str) -> list[str]:
        rows = "".join(f"u{n % 5},i{n % 3},{names[n % len(names)]}\n" for n in range(60))
        world.put("a.csv", "user_id,item_id,domain\n" + rows)
        return warnings(world, caplog, source("a.csv", columns=Columns(domain="domain"), domain=None), split=ALL_TRAIN)

    assert said_of("Books", "books", "films", "b\u00fccher", "bu\u0308cher", "books ") == [
        "domains whose names differ only in case, blanks or composed letters are domains of their own: 'Books' and "
        "'books' and 'books '; 'bu\\u0308cher' and 'b\u00fccher'; write them alike in the logs if they are one"
    ]
    assert said_of("books", "book", "b\u00fccher", "bucher") == []


@pytest.mark.parametrize("word", ["NULL", "\\N", "None", "NaN", "undefined"])
def test_words_for_a_missing_value_are_said(world: RawLogs, caplog: Any, word: str) -> None:
    world.put("a.csv", "user_id,item_id\n" + "".join(f"{word if n % 2 else f'u{n}'},i{n % 3}\n" for n in range(20)))
    (said,) = warnings(world, caplog, source("a.csv"), split=ALL_TRAIN)
    assert said.startswith(f"{word!r} is the id of a user; if that is a missing value, leave it empty")


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (
            ["4,91E+11", "u1"],
            "1 user ids are numbers that a spreadsheet has rounded, such as 4,91E+11, so that several",
        ),
        (["1.5e+09", "7E+10"], "2 user ids are numbers that a spreadsheet has rounded, such as 1.5e+09"),
        (['"=""0017"""', "u1"], '1 user ids are formulas of a spreadsheet, such as ="0017"; in another log 0017 would'),
        (
            ["u1 ", " u2", "u3"],
            "2 user ids begin or end with blanks, such as ' u2'; in another log 'u2' would be another",
        ),
        (["1E5", "a=b", "e+10", "a b"], ""),
    ],
)
def test_ids_that_a_program_has_spoiled_are_said(world: RawLogs, caplog: Any, ids: list[str], said: str) -> None:
    rows = "".join(f"{ids[n % len(ids)]};i{n % 3}\n" for n in range(12))
    world.put("a.csv", "user_id;item_id\n" + rows)
    found = warnings(world, caplog, source("a.csv", delimiter=";"), split=ALL_TRAIN)
    assert [line.startswith(said) for line in found] == ([True] if said else [])


@pytest.mark.parametrize(
    ("times", "form", "said"),
    [
        (["01.02.24", "03.02.25"], "%d.%m.%Y", "times of a.csv go from 0024-02-01 to 0025-02-03; if nothing happened"),
        (["01.02.24", "03.02.25"], "%d.%m.%y", ""),
        (["1900-01-01", "2024-05-01"], None, "times of a.csv go from 1900-01-01 to 2024-05-01"),
        (["2024-05-01", "9999-12-31"], None, "times of a.csv go from 2024-05-01 to 9999-12-31"),
        (["0", "1700000000"], None, "times of a.csv go from 1970-01-01 to 2023-11-14"),
        (["600000000", "1700000000"], None, ""),
        (["600000000000", "1700000000000"], None, ""),
        (["1", "99999999"], None, ""),
        (["-5", "7"], None, "times of a.csv go from 1969-12-31 to 1970-01-01"),
    ],
)
def test_times_at_which_nothing_happened_are_said(
    world: RawLogs, caplog: Any, times: list[str], form: str | None, said: str
) -> None:
    world.put("a.csv", "user_id,item_id,t\n" + "".join(f"u{n},i,{times[n % 2]}\n" for n in range(6)))
    shop = source("a.csv", columns=Columns(timestamp="t"), timestamp_format=form)
    found = warnings(world, caplog, shop, split=SplitSettings(method="leave-last-out"))
    assert [line.startswith(said) for line in found] == ([True] if said else [])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("u{n},i{n}", ["user", "item"]),
        ("u{n},i7", ["100 rows have 100 different users", "all 100 rows have the item 'i7'; is columns.item another"]),
        ("u7,o{n}", ["all 100 rows have the user", "100 rows have 100 different items, so almost nothing repeats; is"]),
        ("u{few},i{few}", []),
    ],
)
def test_columns_that_are_no_ids_are_said(world: RawLogs, caplog: Any, row: str, said: list[str]) -> None:
    world.put("a.csv", "user_id,item_id\n" + "".join(row.format(n=n, few=n % 90) + "\n" for n in range(100)))
    found = warnings(world, caplog, source("a.csv"), split=ALL_TRAIN)
    assert [text in line for text, line in zip(said, found, strict=True)] == [True] * len(said)


def test_ids_written_as_decimals_and_ids_called_nan_are_said(world: RawLogs, caplog: Any) -> None:
    world.put("a.csv", "user_id,item_id\n" + "".join(f"{n}.0,1.5\n" for n in range(9)) + "nan,2.0\n")
    assert warnings(world, caplog, source("a.csv")) == [
        "'nan' is the id of a user; if that is a missing value, leave it empty, and the row is rejected",
        "user ids are written as decimals, such as 0.0: in another log 0 would be another user; write them as integers",
    ]
