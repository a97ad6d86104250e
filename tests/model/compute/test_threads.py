import os

import pytest
import torch

from flows.runner.torchrun import is_first, is_multi_process, run_under_torchrun
from model.compute.threads import share_rows, torch_threads


def test_processes_of_one_machine_share_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    used = []
    for threads, beside in ((0, 1), (0, 3), (0, 9), (5, 3)):
        with torch_threads(threads, beside):
            used.append(torch.get_num_threads())
    assert used == [8, 2, 1, 5]


@pytest.mark.parametrize(
    ("environment", "several", "first"),
    [
        ({}, False, True),
        ({"WORLD_SIZE": "1", "RANK": "0"}, False, True),
        ({"WORLD_SIZE": "2", "RANK": "0"}, True, True),
        ({"WORLD_SIZE": "2", "RANK": "1"}, True, False),
    ],
)
def test_the_first_of_several_processes_is_known_by_torchruns_environment(environment, several, first) -> None:
    assert (is_multi_process(environment), is_first(environment)) == (several, first)


def test_one_process_just_runs_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert run_under_torchrun(lambda: 3) == 3


@pytest.mark.parametrize("operations", [1, 10**9])
def test_rows_are_shared_out_once_each(operations: int) -> None:
    done: list[int] = []
    with torch_threads(3):
        share_rows(10, operations, lambda first, last: done.extend(range(first, last)))
    assert sorted(done) == list(range(10))
