"""Scratch folders and vocabularies."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.compute.scratch import batch_writer, ensure_folder, map_table, write_table
from pipeline.ingest import vocabulary
from pipeline.ingest.vocabulary import Vocabulary, VocabularyTask, build_vocabulary

IDS = pa.schema([("id", pa.string())])


def write_runs(path: Path, runs: list[list[str]]) -> Path:
    with batch_writer(path, IDS) as writer:
        for run in runs:
            writer.write_batch(pa.record_batch([pa.array(run, pa.string())], IDS))
    return path


runs_of_files = st.lists(st.lists(st.lists(st.text("aäz", max_size=3), unique=True), max_size=4), max_size=4)


@settings(deadline=None)  # a loaded machine may need longer
@given(runs_of_files, st.integers(1, 8))
def test_codes_rank_among_the_sorted_ids_of_all_runs(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[list[str]]], few: int
) -> None:
    folder = tmp_path_factory.mktemp("ids")
    paths = [write_runs(folder / f"{number}.arrow", runs) for number, runs in enumerate(files)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "_FEW", few)
        found = Vocabulary(build_vocabulary(VocabularyTask(tuple(paths), folder / "ids")))
    runs = [run for of_file in files for run in of_file]
    expected = sorted({text for run in runs for text in run}, key=str.encode)
    assert found.ids.to_pylist() == expected
    assert len(found) == len(expected)
    for number, run in enumerate(runs):
        codes = np.arange(len(run), dtype=np.int32)[::-1]
        assert found.ranks(number, codes).tolist() == [expected.index(run[code]) for code in codes]


def test_an_interrupted_folder_is_absent_and_leaves_nothing(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_folder(tmp_path / "folder", write)
    assert list(tmp_path.iterdir()) == []


def test_a_finished_folder_is_not_made_again(tmp_path: Path) -> None:
    ensure_folder(tmp_path / "folder", lambda folder: None)
    ensure_folder(tmp_path / "folder", lambda folder: pytest.fail("made again"))


def test_of_two_tasks_that_make_one_folder_at_once_the_first_stays(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        ensure_folder(tmp_path / "folder", lambda other: (other / "file").write_text("first") and None)
        (folder / "file").write_text("second")

    assert (ensure_folder(tmp_path / "folder", write) / "file").read_text() == "first"
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


@pytest.mark.parametrize("rows", [0, 3])
def test_a_table_comes_back_and_its_file_is_closed(tmp_path: Path, rows: int) -> None:
    table = pa.table({"id": pa.array([str(n) for n in range(rows)], pa.string())})
    write_table(tmp_path / "a.arrow", table)
    before = len(list(Path("/proc/self/fd").iterdir()))
    found = map_table(tmp_path / "a.arrow")
    assert found.equals(table)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
