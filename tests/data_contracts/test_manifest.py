"""Manifests are validated when they are read: what they say of files and of themselves must fit."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from damage import DAMAGES, damage_file, edit_manifest, rehash

from data_contracts.contracts import GRAPH, NODES, REJECTS
from data_contracts.store.artifact import Artifact, read_blocks
from data_contracts.store.dataset import ArtifactDataset
from data_contracts.store.draft import Draft
from data_contracts.store.files import write_parquet
from data_contracts.store.garbage import collect_garbage
from data_contracts.store.manifest import MANIFEST, Manifest
from data_contracts.store.runs import RunRecord
from data_contracts.store.store import Store, open_artifact

ROWS = pa.table(
    {"file": ["a.csv"] * 3, "line": [1, 2, 3], "reason": ["arity"] * 3, "text": ["x"] * 3}, REJECTS.file_schema
)

Entry = dict[str, Any]


@pytest.fixture
def made(tmp_path: Path) -> Artifact:
    """An artifact of two files, with a parent."""
    store = Store(tmp_path)
    parent = store.make(REJECTS, {"parent": True}, {}, lambda draft: draft.write(ROWS))

    def write(draft: Draft) -> None:
        draft.write(ROWS)
        draft.write(ROWS.slice(0, 1))
        draft.statistics["share"] = 0.25

    return store.make(REJECTS, {"rate": 1e-2, "name": "ä", "list": [1, 2.0]}, {"rejects": parent}, write)


def entries(artifact: Artifact) -> list[Entry]:
    return [entry.model_dump() for entry in artifact.manifest.files]


def refused(artifact: Artifact, problem: str) -> None:
    """Every way to read a manifest says in one line which file is damaged and what to do."""
    for read in (
        lambda: Artifact(artifact.contract, artifact.folder).manifest,
        lambda: Store(artifact.folder.parents[1]).find(artifact.contract, artifact.folder.name),
        lambda: open_artifact(artifact.folder).read(),
    ):
        with pytest.raises(OSError, match=r"; delete .* to make it again$") as error:
            read()
        assert str(error.value).startswith(f"{artifact.folder / MANIFEST} is damaged: ")
        assert problem in str(error.value)
        assert "\n" not in str(error.value)


def test_a_manifest_reads_as_it_was_written(made):
    again = Artifact(REJECTS, made.folder)
    assert again.manifest == made.manifest
    assert (again.manifest.rows, again.manifest.statistics, again.verify()) == (4, {"share": 0.25}, [])
    assert again.manifest.made.keys() == {"at", "seconds", "edda", "pyarrow"}


def test_a_manifest_without_its_own_digest_is_of_an_earlier_version_and_read(made):
    path = made.folder / MANIFEST
    manifest = json.loads(path.read_bytes())
    del manifest["made"]["sha256"]
    path.write_text(json.dumps(manifest))
    assert Artifact(REJECTS, made.folder).read().num_rows == 4


def _renamed(path: str) -> Callable[[list[Entry]], list[Entry]]:
    return lambda files: [{**files[0], "path": path}, files[1]]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda files: files[:1], "files have 3 rows, must have 4 as the manifest says"),
        (lambda files: [*files, files[1]], "file part-00001.parquet is named 2 times, must be named once"),
        (lambda files: [{**files[0], "rows": -1}, files[1]], "files.0.rows: Input should be greater than"),
        (lambda files: [{**files[0], "rows": 10**30}, files[1]], f"files have {10**30 + 1} rows, must have 4"),
        (lambda files: [{**files[0], "rows": 2}, files[1]], "files have 3 rows, must have 4"),
        (lambda files: [{**files[0], "size": -1}, files[1]], "files.0.size: Input should be greater"),
        (lambda files: [{**files[0], "sha256": "x"}, files[1]], "files.0.sha256: String should match pattern"),
        (lambda files: [{**files[0], "more": 1}, files[1]], "files.0.more: Extra inputs are not permitted"),
        *((_renamed(path), "must be a relative path inside the artifact's folder")
          for path in ("/etc/passwd", "../part-00000.parquet", "a/../../b", "", ".", "a//b", "./a", "a/", "a\0b")),
    ],
)  # fmt: skip
def test_files_that_cannot_be_are_refused(made, change, problem):
    refused(edit_manifest(made, files=change(entries(made))), problem)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"rows": -1}, "rows: Input should be greater than or equal to 0"),
        ({"rows": 10**30}, f"files have 4 rows, must have {10**30}"),
        ({"rows": "many"}, "rows: Input should be a valid integer"),
        ({"settings": {"rate": 1e-3, "name": "ä", "list": [1, 2.0]}}, "by contract, version, settings and parents"),
        ({"parents": {"rejects": "0" * 20}}, "by contract, version, settings and parents"),
        ({"parents": {}}, "by contract, version, settings and parents"),
        ({"key": "0" * 20}, f"key is {'0' * 20}, must be "),
        ({"contract": "nodes"}, "contract is nodes, must be rejects"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
    ],
)
def test_a_manifest_that_does_not_fit_itself_is_refused(made, changes, problem):
    refused(edit_manifest(made, **changes), problem)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "Expecting value"), (b"{", "Expecting property name"), (b"[]", "it must be an object"),
        (b"[" * 100_000, "it is nested too deeply"), (b"\xff\xfe\xfd", "codec can't decode"),
        (b"{}", "contract: Field required"), (b"\0" * 900, "Expecting value"),
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_refused(made, content, problem):
    (made.folder / MANIFEST).write_bytes(content)
    refused(made, problem)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_is_refused(made, damage):
    damage_file(made.folder / MANIFEST, damage)
    refused(made, "")


def test_no_flipped_bit_changes_what_a_manifest_says(made):
    path, right, draw, harmless = made.folder / MANIFEST, made.manifest, random.Random(1), 0
    whole = path.read_bytes()
    for _ in range(1000):
        changed = bytearray(whole)
        changed[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        try:
            said = Artifact(REJECTS, made.folder).manifest
        except (OSError, ValueError):
            continue
        # white space between values, or the name of its own digest, without which it is one of an earlier version
        assert said.model_copy(update={"made": {**said.made, **right.made}}) == right.model_copy(
            update={"made": {**said.made, **right.made}}
        )
        harmless += 1
    assert harmless < 100


def test_another_artifact_copied_under_a_key_is_refused(made):
    (other,) = {path.name for path in made.folder.parent.iterdir()} - {made.key}
    shutil.rmtree(made.folder)
    shutil.copytree(made.folder.parent / other, made.folder)
    refused(made, f"key is {other}, must be {made.key} as the folder's name")


def test_another_contracts_artifact_copied_under_a_key_is_refused(made):
    copy = Artifact(NODES, made.folder.parents[1] / "nodes" / made.key)
    shutil.copytree(made.folder, copy.folder)
    refused(copy, "contract is rejects, must be nodes")


@pytest.mark.parametrize("link", ["file", "folder"])
def test_links_are_refused(tmp_path, link):
    rows = pa.table({"node": pa.array([0], pa.int32()), "neighbours": [[0]]}, GRAPH.file_schema)
    graph = Store(tmp_path).make(GRAPH, {}, {}, lambda draft: draft.write(rows, domain="d"))
    path = graph.files()[0] if link == "file" else graph.files()[0].parent
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    problem = "it is no plain file" if link == "file" else "it is a link, must be a folder"
    with pytest.raises(OSError, match=f"^{path} is damaged: {problem}; delete {graph.folder} to make it again$"):
        Store(tmp_path).find(GRAPH, graph.key)
    if link == "file":
        with pytest.raises(OSError, match="it is no plain file"):
            graph.read()
        assert [violation.found for violation in graph.verify()] == ["a link or a device"]


def test_a_pipe_or_a_device_in_place_of_a_manifest_is_refused_without_opening_it(made):
    path = made.folder / MANIFEST
    for replace in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        path.unlink()
        replace(path)
        again = Artifact(REJECTS, made.folder)
        with pytest.raises(OSError, match=f"^{path} is damaged: it is no plain file; delete {made.folder} "):
            again.read()


def test_a_pipe_in_place_of_a_runs_record_is_refused_without_opening_it(tmp_path):
    store = Store(tmp_path)
    (tmp_path / "runs" / "r").mkdir(parents=True)
    os.mkfifo(tmp_path / "runs" / "r" / "run.json")
    with pytest.raises(OSError, match=r"run.json is damaged: it is no plain file"):
        store.run("r")


def test_rows_are_those_of_parquets_footer(made):
    path = made.files()[0]
    write_parquet(ROWS.slice(0, 2), path)
    wrong = rehash(made)
    for read in (wrong.read, lambda: list(read_blocks(wrong, ["line"])), lambda: ArtifactDataset(wrong).to_table()):
        with pytest.raises(OSError, match=f"^{path} is damaged: it has 2 rows, must have 3 by its manifest; delete "):
            read()
    assert [str(violation) for violation in wrong.verify()] == [
        "rejects/part-00000.parquet: rows is 2, must be 3",
    ]


def test_a_file_that_the_manifest_does_not_name_is_found_by_verify_and_not_opened(made):
    (made.folder / "part-00002.parquet").write_bytes(made.files()[0].read_bytes())
    (made.folder / ".nfs0001").write_bytes(b"")
    assert made.read().num_rows == 4
    assert [str(violation) for violation in made.verify()] == [
        "rejects/part-00002.parquet: file is present, must be absent, as manifest.json does not name it"
    ]
    with pytest.raises(OSError, match=r"part-00002\.parquet is damaged: manifest\.json does not name it"):
        made.checked("part-00002.parquet")


def test_garbage_collection_keeps_everything_if_a_manifest_names_another_parent(made, tmp_path):
    Store(tmp_path).link_run(RunRecord.build("run", {"rejects": made}))
    edit_manifest(made, parents={"rejects": "0" * 20})
    before = sorted(tmp_path.glob("rejects/*"))
    with pytest.raises(ValueError, match=f"^{made.folder / MANIFEST} is damaged: key is .*; delete "):
        collect_garbage(tmp_path)
    assert sorted(tmp_path.glob("rejects/*")) == before


def test_a_number_that_is_not_finite_survives_as_json_has_none(made):
    manifest = made.manifest.model_copy(update={"statistics": {"score": float("nan")}})
    assert Manifest.parse(manifest.as_json(), "manifest.json", ".").statistics == {"score": None}
