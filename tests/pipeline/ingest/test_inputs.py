"""What enters the keys of interactions and rejects, and what is made again under the same keys."""

from pathlib import Path
from typing import Any

import pytest
from raw_logs import CSV, source
from raw_logs import RawLogs as World

from data_contracts.contracts import INTERACTIONS, REJECTS
from data_contracts.schema import Contract
from data_contracts.settings.ingest import IngestSettings
from data_contracts.settings.logs import Columns
from data_contracts.settings.machine import ComputeSettings
from pipeline.ingest import stage as ingest_stage
from pipeline.ingest.inputs import ingest_inputs
from pipeline.logs.discovery import find_logs


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_same_inputs_are_not_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put("a.csv", CSV)
    made = world.ingest(source("a.csv"))
    monkeypatch.setattr(ingest_stage, "run_ingest", None)
    assert {name: artifact.path for name, artifact in world.ingest(source("a.csv")).items()} == {
        name: artifact.path for name, artifact in made.items()
    }


def test_moving_the_data_does_not_change_the_key(tmp_path: Path) -> None:
    keys = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.csv").write_bytes(CSV)
        keys.append(ingest_inputs(REJECTS, IngestSettings(), find_logs([source(f"{name}/*.csv")], tmp_path)))
    assert keys[0] == keys[1]


@pytest.mark.parametrize("contract", [INTERACTIONS, REJECTS])
@pytest.mark.parametrize("change", ["content", "one more", "one less", "ending", "domain", "columns", "settings"])
def test_any_change_but_that_of_a_name_changes_the_inputs(tmp_path: Path, change: str, contract: Contract) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_bytes(CSV + name.encode() + b",i\n")
    before = ingest_inputs(contract, IngestSettings(), find_logs([source("*")], tmp_path))
    keys: dict[str, Any] = {"domain": {"domain": "e"}, "columns": {"columns": Columns(user="u")}}.get(change, {})
    if change == "content":
        (tmp_path / "a.csv").write_bytes(CSV + b"u3,i3\n")
    if change == "one more":
        (tmp_path / "c.csv").write_bytes((tmp_path / "b.csv").read_bytes())
    if change == "one less":
        (tmp_path / "b.csv").unlink()
    if change == "ending":
        (tmp_path / "a.csv").rename(tmp_path / "a.tsv")
    stage = IngestSettings(cold="keep") if change == "settings" else IngestSettings()
    assert ingest_inputs(contract, stage, find_logs([source("*", **keys)], tmp_path)) != before


def test_renamed_logs_give_the_same_interactions_to_the_byte_and_rejects_of_their_names(
    world: World, tmp_path: Path
) -> None:
    """The names are exchanged, so that the order of the files changes, too."""
    parts = [f"user_id,item_id\nu{n},i{n}\nu{n},i{n % 2}\nbroken-{n}\n" for n in range(3)]
    for name, part in zip("abc", parts, strict=True):
        world.put(f"{name}.csv", part)
    before = world.ingest(source("*.csv"))
    (tmp_path / "elsewhere").mkdir()
    for other in (world, World(tmp_path / "elsewhere")):
        for name, part in zip("cab", parts, strict=True):
            other.put(f"{name}.csv", part)
        made = other.ingest(source("*.csv"))
        digests = [[entry.sha256 for entry in each["interactions"].manifest.files] for each in (before, made)]
        assert digests[0] == digests[1]
        assert made["interactions"].key == before["interactions"].key
        assert [tuple(row.values()) for row in made["rejects"].read(["file", "text"]).to_pylist()] == [
            ("a.csv", "broken-1"), ("b.csv", "broken-2"), ("c.csv", "broken-0"),
        ]  # fmt: skip


def test_a_killed_ingest_goes_on_with_renamed_logs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had read is not taken for the files that now have these names."""
    parts = [f"user_id,item_id\nu{n},i{n}\nbroken-{n}\n" for n in range(2)]
    for name, part in zip("ab", parts, strict=True):
        world.put(f"{name}.csv", part)
    with monkeypatch.context() as patch:
        patch.setattr(
            ingest_stage, "build_vocabulary", lambda _task: (_ for _ in ()).throw(OSError("the disk is full"))
        )
        with pytest.raises(OSError, match="the disk is full"):
            world.ingest(source("*.csv"), ComputeSettings(threads=1))
    for name, part in zip("ba", parts, strict=True):
        world.put(f"{name}.csv", part)
    rejects = world.rejects(source("*.csv"))
    assert [text for _, _, text in rejects] == ["broken-1", "broken-0"]


def test_deleted_rejects_are_made_again(world: World) -> None:
    world.put("a.csv", "user_id,item_id\nu,i\nbroken\n")
    rejects = world.ingest(source("a.csv"))["rejects"]
    for path in rejects.path.iterdir():
        path.unlink()
    rejects.path.rmdir()
    assert world.rejects(source("a.csv")) == [(3, "arity", "broken")]
