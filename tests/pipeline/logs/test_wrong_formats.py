"""Files that are not what their ending says: refused, with the right word."""

import json
from pathlib import Path

import pytest
from raw_logs import RawLogs, source

from data_contracts.settings import Columns
from pipeline.logs.discovery import LogError, find_logs
from pipeline.logs.formats import read_log


@pytest.fixture
def world(tmp_path: Path) -> RawLogs:
    return RawLogs(tmp_path)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("block_bytes", [64, 1 << 16])
def test_a_json_array_is_called_so(world: RawLogs, indent: int | None, block_bytes: int) -> None:
    rows = [{"user_id": f"u{n}", "item_id": "i"} for n in range(20)]
    world.put("a.json", "\n" + json.dumps(rows, indent=indent))
    (log,) = find_logs([source("a.json")], world.logs)
    with pytest.raises(LogError, match=r"a\.json is a JSON array, must be JSON lines"):
        list(read_log(log, {"user": "user_id", "item": "item_id"}, block_bytes))


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("a.csv", ["user_id,item_id", 'u,"a,b"', "u,j"]),
        ("a.tsv", ["user_id\titem_id", "u\ti"]),
        ("a.jsonl", ['{"user_id": "u", "item_id": "i"}', '{"user_id": "u", "item_id": "j"}']),
    ],
)
@pytest.mark.parametrize("block_bytes", [64, 1 << 16])
def test_line_ends_of_carriage_returns_alone_are_refused(
    world: RawLogs, name: str, lines: list[str], block_bytes: int
) -> None:
    world.put(name, "\r".join(lines) + "\r")
    (log,) = find_logs([source(name)], world.logs)
    with pytest.raises(LogError, match="lines end with a carriage return alone, must end with a line feed"):
        list(read_log(log, {"user": "user_id", "item": "item_id"}, block_bytes))


def test_carriage_returns_inside_a_record_are_no_line_ends(world: RawLogs) -> None:
    world.put("a.csv", b'u,"a\rb"\r')
    by_position = source("*", header=False, columns=Columns(user=0, item=1))
    assert world.rows(by_position, "item_id") == [("a\rb",)]
    (world.logs / "a.csv").unlink()
    world.put("a.jsonl", b'{"user_id": "u",\r "item_id": "i"}\r')
    assert world.rows(source("*"), "item_id") == [("i",)]
