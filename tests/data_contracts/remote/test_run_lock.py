"""One machine works on a run's name in a remote store; the others wait, unless it is gone."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from fake_stages import Stages, stages
from object_storage import address, endpoint

from data_contracts.remote import run_lock
from data_contracts.remote.client import Remote
from data_contracts.remote.run_lock import hold_run_lock
from flows.config.run_config import load_config
from flows.runner.execute import run_stages

pytestmark = pytest.mark.slow

__all__ = ["address", "endpoint", "stages"]

WORKING = "runs/r/working"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "SECONDS_BETWEEN_POLLS", 0.05)


def left_behind(remote: Remote, memory: Path) -> bytes:
    """What a machine leaves that is killed while it works."""
    with hold_run_lock(remote, "r", memory):
        content = remote.read(WORKING)
    assert content is not None
    remote.write(WORKING, content)
    return content


@contextmanager
def waiting(remote: Remote, memory: Path, caplog: pytest.LogCaptureFixture) -> Iterator[threading.Event]:
    """Another machine that waits for the name, and says when it has it."""
    works = threading.Event()

    def work() -> None:
        with hold_run_lock(remote, "r", memory):
            works.set()

    thread = threading.Thread(target=work)
    thread.start()
    until = time.monotonic() + 60
    while "waiting for another machine (" not in caplog.text and time.monotonic() < until:
        time.sleep(0.02)
    yield works
    thread.join(60)
    assert works.is_set()


def test_a_machine_waits_until_the_other_has_ended_and_nothing_is_left(address, tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO)
    remote = Remote(address)
    with ExitStack() as works, hold_run_lock(remote, "other", tmp_path / "other"):
        works.enter_context(hold_run_lock(remote, "r", tmp_path / "one"))
        content = remote.read(WORKING)
        assert content is not None
        with waiting(remote, tmp_path / "two", caplog) as works_too:
            assert not works_too.wait(0.3)
            works.close()
    assert list(remote.listing()) == []
    assert f"({content.decode().splitlines()[0]})" in caplog.text


def test_what_a_killed_process_of_this_machine_left_holds_nobody_up(address, tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO)
    remote = Remote(address)
    content = left_behind(remote, tmp_path / "one")
    with hold_run_lock(remote, "r", tmp_path / "one"):
        assert remote.read(WORKING) != content
    assert ("waiting" in caplog.text, "taking over from" in caplog.text) == (False, True)


def test_a_machine_that_gives_no_sign_any_more_is_not_waited_for(address, tmp_path, caplog, monkeypatch) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(run_lock, "SECONDS_UNTIL_STALE", 1.5)
    remote = Remote(address)
    left_behind(remote, tmp_path / "one")
    with waiting(remote, tmp_path / "two", caplog):
        pass
    monkeypatch.setattr(run_lock, "SECONDS_BETWEEN_HEARTBEATS", 0.05)
    caplog.clear()
    with ExitStack() as works:
        works.enter_context(hold_run_lock(remote, "r", tmp_path / "one"))
        with waiting(remote, tmp_path / "two", caplog) as works_too:
            assert not works_too.wait(3)
            works.close()


def test_a_run_waits_for_the_machine_that_works_on_its_name(address, tmp_path, caplog, stages: Stages) -> None:
    caplog.set_level(logging.INFO)
    remote, made = Remote(address), []
    (tmp_path / "r.toml").write_text(f'name = "r"\nstore = "{address}"\ntrain.alignment = 0.3\n[world]\n')
    config = load_config(tmp_path / "r.toml")
    with hold_run_lock(remote, "r", tmp_path / "one"):
        run = threading.Thread(target=lambda: made.append(run_stages(config, "walk").made))
        run.start()
        until = time.monotonic() + 60
        while "waiting for another machine (" not in caplog.text and time.monotonic() < until:
            time.sleep(0.02)
        assert (made, list(remote.listing())) == ([], [WORKING])
    run.join(60)
    assert made == [["world", "rejects", "interactions", "nodes", "graph", "reach"]]
