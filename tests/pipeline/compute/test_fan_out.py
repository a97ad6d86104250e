"""Fan-out on threads and on a Dask cluster of processes."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import dask
import pytest
from distributed import LocalCluster

import pipeline.compute.fan_out
from data_contracts.settings.machine import ComputeSettings
from pipeline.compute.fan_out import TaskProgress, fan_out

THREADS = ComputeSettings(threads=2)


@pytest.fixture(params=["threads", "cluster"])
def compute(request: pytest.FixtureRequest) -> ComputeSettings:
    return THREADS if request.param == "threads" else on(request.getfixturevalue("cluster"))


def on(cluster: LocalCluster) -> ComputeSettings:
    return ComputeSettings(dask_scheduler=cluster.scheduler_address)


def square(number: int) -> int:
    time.sleep(number % 3 / 100)
    return number**2


def test_results_come_in_the_order_of_the_arguments(compute):
    assert fan_out(square, [3, 1, 2, 2], compute) == [9, 1, 4, 4]


def test_no_arguments_need_no_cluster():
    assert fan_out(square, [], ComputeSettings(dask_scheduler="tcp://127.0.0.1:9")) == []


def test_progress_counts_the_units_of_finished_tasks_from_none_to_all(compute):
    reported: list[tuple[int, int, str]] = []
    fan_out(square, [1, 1, 1], compute, TaskProgress(lambda *numbers: reported.append(numbers), "nodes", [10, 10, 10]))
    assert reported == [(done, 30, "nodes") for done in (0, 10, 20, 30)]


def test_a_part_is_reported_once_when_its_last_task_is_finished():
    reported: list[tuple[object, ...]] = []
    parts, alone = ["a", "a", "b"], ComputeSettings(threads=1)
    fan_out(square, [1, 1, 1], alone, TaskProgress(lambda *numbers: reported.append(numbers), parts=parts))
    assert [line[0] for line in reported] == [1, 2, 3]
    assert sorted(note for line in reported for note in line[3:]) == ["a", "b"]


def fail_at_two(folder: Path, number: int) -> None:
    if number == 2:
        raise ValueError("number is 2")
    (folder / str(number)).touch()
    time.sleep(0.05)


def test_a_tasks_error_is_raised_at_once_and_the_rest_given_up(tmp_path, cluster):
    with pytest.raises(ValueError, match=r"^number is 2$"):
        fan_out(partial(fail_at_two, tmp_path), range(200), on(cluster))
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) < 100


def kill_first(folder: Path, number: int) -> int:
    try:
        (folder / str(number)).touch(exist_ok=False)
    except FileExistsError:
        return number
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_lost_workers_tasks_run_again(tmp_path, cluster):
    reported: list[int] = []
    found = fan_out(
        partial(kill_first, tmp_path), range(20), on(cluster), TaskProgress(lambda done, *_: reported.append(done))
    )
    assert found == list(range(20))
    assert reported == list(range(1, 21))


def kill(_number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_task_that_kills_its_workers_is_reported_with_a_remedy(cluster, monkeypatch):
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    with pytest.raises(OSError, match=r"lost 1 workers? to one task; where memory ran out, lower compute.memory_mib"):
        fan_out(kill, [1], on(cluster))


def test_a_scheduler_that_is_lost_in_the_middle_is_reported():
    with LocalCluster(n_workers=1, processes=False, protocol="tcp", dashboard_address=None) as cluster:

        def lose(done: int, total: int, unit: str, note: str = "") -> None:
            if done == 1:
                cluster.close()

        with pytest.raises(ConnectionError, match=r"^the Dask scheduler at tcp://.* was lost; run again, finished"):
            fan_out(square, range(500), on(cluster), TaskProgress(lose))


def test_a_scheduler_that_does_not_answer_is_reported_with_its_address_and_a_remedy():
    nobody = ComputeSettings(dask_scheduler="tcp://127.0.0.1:9")
    message = (
        r"^the Dask scheduler at tcp://127.0.0.1:9 \(compute.dask_scheduler\) does not answer: .*; start one there"
    )
    with dask.config.set({"distributed.comm.timeouts.connect": "0.2s"}), pytest.raises(ConnectionError, match=message):
        fan_out(square, [1], nobody)


@pytest.mark.parametrize("address", ["somewhere", "http://somewhere:80", "tcp://somewhere"])
def test_an_address_without_scheme_or_port_is_reported(address):
    with pytest.raises(ValueError, match=f"^compute.dask_scheduler is '{address}', must be like tcp://host:8786: "):
        fan_out(square, [1], ComputeSettings(dask_scheduler=address))


def test_a_scheduler_without_workers_is_waited_for_and_named(monkeypatch):
    reported: list[str] = []
    with LocalCluster(n_workers=0, processes=False, protocol="tcp", dashboard_address=None) as cluster:

        def warned(message: str, *names: object) -> None:
            reported.append(message % names)
            cluster.scale(1)

        monkeypatch.setattr(pipeline.compute.fan_out.log, "warning", warned)
        assert fan_out(square, [2], on(cluster)) == [4]
        where = f"the Dask scheduler at {cluster.scheduler_address} (compute.dask_scheduler)"
        assert reported == [f"{where} has no workers; waiting for some"]
