"""Failures of processes that train together are one line; what starts them is tested in end_to_end/test_torchrun.py."""

import json
from pathlib import Path

import pytest

from flows.runner.torchrun import record_error

torch_errors = pytest.importorskip("torch.distributed.elastic.multiprocessing.errors")

from flows.runner.launch import _describe_failure, launch  # noqa: E402

GOES_ON = "; what was finished is kept, the same command continues from there"


def failure(folder: Path, rank: int, status: int, problem: str = "") -> object:
    """How a process ended, with the error that it has left behind."""
    path = folder / f"{rank}.json"
    if problem:
        record_error(problem, {"TORCHELASTIC_ERROR_FILE": str(path)})
    return torch_errors.ProcessFailure(rank, 100 + rank, status, str(path))


@pytest.mark.parametrize(
    ("ends", "line"),
    [
        ({0: (1, "edda: r.toml: no such file"), 1: (-15, "")}, ""),
        ({1: (1, "edda: no space"), 0: (-15, "")}, f"process 1 failed: no space{GOES_ON}"),
        ({0: (1, "edda: lost another one"), 1: (-9, "")}, f"process 1 was ended by SIGKILL{GOES_ON}"),
        ({0: (-11, ""), 1: (-15, "")}, f"process 0 was ended by SIGSEGV{GOES_ON}"),
        ({1: (3, "")}, f"process 1 ended with status 3{GOES_ON}"),
    ],
)
def test_the_process_that_failed_first_is_named_with_its_error(tmp_path: Path, ends: dict, line: str) -> None:
    """An error of the first process is on the screen already."""
    failures = {rank: failure(tmp_path, rank, *end) for rank, end in ends.items()}
    assert _describe_failure(torch_errors.ChildFailedError("edda", failures)) == line


def test_an_error_is_left_where_torchrun_looks_for_it_and_only_there(tmp_path: Path) -> None:
    record_error("edda: oops", {})
    record_error("edda: oops", {"TORCHELASTIC_ERROR_FILE": str(tmp_path / "no" / "folder")})
    record_error("edda: oops", {"TORCHELASTIC_ERROR_FILE": str(tmp_path / "error.json")})
    message = json.loads((tmp_path / "error.json").read_text())["message"]
    assert (message["message"], message["extraInfo"]["py_callstack"]) == ("edda: oops", "edda: oops")


def test_options_that_do_not_fit_are_one_line(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr("logging.disable", lambda _level: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert launch(["--nproc-per-node=none", "train", "r.toml"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("edda: ")
