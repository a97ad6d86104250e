"""Whatever is damaged, and however, a command ends in one line: which file, what is wrong and what to do."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import change_one, rehash, signed
from fake_stages import edda
from tiny_world import build, exported, random_log
from torture.byte_damage import cut, flip, zero_tail

from data_contracts.store.artifact import Artifact
from data_contracts.store.manifest import MANIFEST
from data_contracts.store.runs import RunRecord
from data_contracts.store.store import Store
from flows.config.run_config import load_config
from flows.output.console import inform
from flows.tune.search import Search, run_search
from model.data.dataset import load_dataset
from model.edda.checkpoint import load_checkpoint
from model.serving.approximate import build_index

SIZES = {"books": (30, 20, 260), "films": (16, 14, 120), "games": (8, 10, 50)}
WEIGHTS = {"books": (1.0, 2.0), "films": (0.0, 1.0), "games": (1.0, 0.0)}
Damage = Callable[[bytes, random.Random], bytes]


LOAD = ["load the model"]
"""No command, but what several do."""


@dataclass(frozen=True)
class Damaged:
    """A run that may be damaged: its store, and its artifacts by role."""

    store: Store
    artifacts: dict[str, Artifact]

    @property
    def commands(self) -> list[list[str]]:
        """Commands that read the run, without the store."""
        recommend = ["recommend", "tiny", "--domain", "books", "--user", self.user, "--why"]
        report = ["report", "tiny", "--output", str(self.store.root.parent / "report.html")]
        sql = "select count(*), min(domain) from nodes"
        return [["inspect"], ["inspect", "tiny"], ["inspect", "tiny", "--sql", sql], recommend, [*recommend, "--index"],
                report, ["gc", "--dry-run"], LOAD]  # fmt: skip

    def load_model(self) -> int:
        """What `export` does first; the exit status and the message are those of a command."""
        artifacts = {role: Artifact(artifact.contract, artifact.folder) for role, artifact in self.artifacts.items()}
        try:
            load_checkpoint(artifacts["checkpoint-1"], load_dataset(artifacts["nodes"], artifacts["graph"]))
        except (ValueError, OSError) as error:
            inform(f"edda: {error}")
            return 1
        return 0

    @property
    def user(self) -> str:
        """A user of books."""
        return str(self.artifacts["nodes"].read(["id"], domain="books")["id"][0])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    """A run as a command records it, with an index."""
    folder = tmp_path_factory.mktemp("one-line")
    (folder / "run.toml").write_text('name = "tiny"\n[[logs]]\npath = "logs.csv"\ndomain = "books"\n')
    store = Store(folder / "store")
    world = build(store, random_log(1, SIZES), every_pair=True)
    artifacts = {**exported(world, "tiny", WEIGHTS), "pairs": world.parents["pairs"]}
    artifacts["index"] = build_index(store, artifacts)
    config = load_config(folder / "run.toml").model_dump(mode="json")
    store.link_run(RunRecord.build("tiny", artifacts, config=config))
    return Damaged(store, artifacts)


def other_text(_: bytes, draw: random.Random) -> bytes:
    return draw.choice([b"", b"[]", b"[" * 100_000, b'{"a":' * 100_000, b"null", b"\xff\xfe{\x00", b"\xef\xbb\xbf{}",
                        b"9" * 5_000, b'"\\ud800"', b"<html>"])  # fmt: skip


BYTES: tuple[Damage, ...] = (flip, zero_tail, cut, other_text)


def other_manifest(content: bytes, draw: random.Random) -> bytes:
    manifest = change_one(json.loads(content), draw)
    return signed(manifest, manifest.get("made"), sign=draw.random() < 0.5)


def other_record(content: bytes, draw: random.Random) -> bytes:
    record = change_one(json.loads(content), draw)
    return signed(record, record, sign=draw.random() < 0.5)


def other_json(content: bytes, draw: random.Random) -> bytes:
    return json.dumps(change_one(json.loads(content), draw)).encode()


def other_header(content: bytes, draw: random.Random) -> bytes:
    """A file of tensors whose header says something else."""
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(change_one(json.loads(content[8 : 8 + length]), draw)).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def other_table(content: bytes, draw: random.Random) -> bytes:
    """A Parquet file with other columns: one is missing, named otherwise, also in no UTF-8, or of another type."""
    table = pq.read_table(pa.BufferReader(content))
    column = draw.randrange(table.num_columns)
    name = table.column_names[column]
    sink = pa.BufferOutputStream()
    change = draw.choice(["drop", "rename", "type", "rows", "bytes"])
    if change == "drop":
        table = table.remove_column(column)
    elif change == "type":
        table = table.set_column(column, name, pa.array([[1]] * len(table)))
    elif change == "rows":
        table = pa.concat_tables([table, table])
    elif change == "rename":
        table = table.rename_columns(["x" if other == name else other for other in table.column_names])
    pq.write_table(table, sink)
    written = sink.getvalue().to_pybytes()
    return written.replace(name.encode(), b"\xff" * len(name)) if change == "bytes" else written


@dataclass(frozen=True)
class Kind:
    """A kind of file: where it is, ways to damage it, and whether its artifact's manifest is made to fit afterwards."""

    pattern: str
    damages: tuple[Damage, ...]
    fits: bool = False


KINDS = {
    "manifests": Kind(f"[!r]*/*/{MANIFEST}", (*BYTES, other_manifest, other_manifest, other_manifest)),
    "records": Kind("runs/*/run.json", (*BYTES, other_record, other_record, other_record)),
    "model.json": Kind("checkpoint/*/model.json", BYTES),
    "model.json that its manifest names": Kind("checkpoint/*/model.json", (other_json, other_text), fits=True),
    "tensors": Kind("[!r]*/*/**/*.safetensors", BYTES),
    "tensors that their manifest names": Kind("[!r]*/*/**/*.safetensors", (other_header, cut, other_text), fits=True),
    "parquet": Kind("[!r]*/*/**/*.parquet", BYTES),
    "parquet that its manifest names": Kind("[!r]*/*/**/*.parquet", (other_table, flip, cut, zero_tail), fits=True),
    "indexes": Kind("index/*/items/*.faiss", BYTES),
    "indexes that their manifest names": Kind("index/*/items/*.faiss", (cut, other_text), fits=True),
}


@pytest.fixture
def damage(run: Damaged) -> Iterator[Callable[[Kind, random.Random], Path]]:
    """Damages a file of a kind, in place of what it has damaged before."""
    before: dict[Path, bytes] = {}

    def restore() -> None:
        for path, content in before.items():
            path.write_bytes(content)
        before.clear()

    def damage_one(kind: Kind, draw: random.Random) -> Path:
        restore()
        path = draw.choice(sorted(run.store.root.glob(kind.pattern)))
        before[path] = path.read_bytes()
        path.write_bytes(draw.choice(kind.damages)(before[path], draw))
        if kind.fits:
            (artifact,) = (artifact for artifact in run.artifacts.values() if path.is_relative_to(artifact.folder))
            before[artifact.folder / MANIFEST] = (artifact.folder / MANIFEST).read_bytes()
            rehash(Artifact(artifact.contract, artifact.folder))
        return path

    yield damage_one
    restore()


def complaint(errors: str) -> str:
    """The only line of a command's messages that is no line of the log."""
    lines = [line for line in errors.splitlines() if not re.match(r"\d\d:\d\d:\d\d ", line)]
    return lines[0] if len(lines) == 1 else f"{len(lines)} lines"


def is_well_said(line: str, path: Path, store: Path) -> bool:
    """The line names the file, or its artifact's or run's folder, and what to do, and nothing unreadable."""
    folders = [folder for folder in path.parents if folder.is_relative_to(store) and folder != store][:-1]
    names = any(str(place) in line for place in (path, *folders))
    unwanted = ("[Errno", "ValidationError", "KeyError", "TypeError", "--debug", "Traceback")
    return names and "; " in line and line.isprintable() and not any(word in line for word in unwanted)


def check_kind(run: Damaged, damage: Callable[[Kind, random.Random], Path], capsys, kind: str, count: int) -> None:
    draw, refused, store = random.Random(kind), 0, run.store.root
    commands = run.commands
    for number in range(count):
        path = damage(KINDS[kind], draw)
        for command in commands:
            status = run.load_model() if command == LOAD else edda(*command, "--store", str(store))
            said = capsys.readouterr()
            where = f"{number}: {command[:2]}, {path}: {said.err}"
            assert status in (0, 1), where
            if status and "VIOLATION: " not in said.out:
                refused += 1
                assert is_well_said(complaint(said.err), path, store), where
    assert refused >= count // 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_command_says_in_one_line_which_file_is_damaged(run, damage, capsys, kind):
    check_kind(run, damage, capsys, kind, int(os.environ.get("EDDA_TEST_DAMAGES", "4")))


def test_the_run_is_read_while_it_is_whole(run, capsys):
    for command in run.commands:
        assert command == LOAD or edda(*command, "--store", str(run.store)) == 0, capsys.readouterr().err
    assert run.load_model() == 0


def test_a_log_whose_column_has_a_name_in_no_utf8_is_named(tmp_path, capsys):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"user_id": ["u"], "item_id": ["i"], "odd_name": ["x"]}), sink, store_schema=False)
    log = tmp_path / "log.parquet"
    log.write_bytes(sink.getvalue().to_pybytes().replace(b"odd_name", b"\xff" * 8))
    (tmp_path / "r.toml").write_text('name = "r"\n[[logs]]\npath = "log.parquet"\ndomain = "d"\n')
    assert edda("ingest", str(tmp_path / "r.toml"), "--store", str(tmp_path / "store")) == 1
    reason = "a column's name is not UTF-8; write it again"
    assert complaint(capsys.readouterr().err) == f"edda: {log} cannot be read: {reason}"


def test_a_damaged_record_of_a_search_is_named(tmp_path):
    search = Search({}, {}, 1, 1, tmp_path / "tune" / "r.db", "study")
    search.record.parent.mkdir()
    search.record.write_bytes(b"no database" * 100)
    with pytest.raises(OSError, match=f"^{search.record} cannot be used: file is not a database; .* delete it"):
        run_search(search, lambda *_: 0.0)
