"""What a person sees on a terminal: progress bars and log lines apart, and an interrupt that ends at once."""

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyte
import pytest
from prefect_server import clean_environment
from small_run import RUN

COLUMNS, LINES = 100, 50
LOG_LINE = re.compile(r"^\d\d:\d\d:\d\d ")


class Terminal:
    """A command on a pseudo-terminal, and its screen."""

    def __init__(self, arguments: list[str], folder: Path) -> None:
        self.screen = pyte.HistoryScreen(COLUMNS, LINES, history=10_000)
        self._stream = pyte.ByteStream(self.screen)
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (LINES, COLUMNS))
        environment = {**clean_environment("PREFECT", "COLUMNS", "NO_COLOR"), "TERM": "xterm", "HOME": str(folder)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - Ctrl-C needs a terminal
            cwd=Path(__file__).parents[2],
        )
        os.close(slave)

    def read(self, until: Callable[[list[str]], bool], seconds: float = 240.0) -> list[list[str]]:
        """All states of the screen until one is as wanted or the command has ended."""
        states, deadline = [], time.monotonic() + seconds
        while time.monotonic() < deadline:
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self._stream.feed(os.read(self.master, 4096))
                except OSError:  # the command has ended
                    return states
                states.append([line.rstrip() for line in self.screen.display])
                if until(states[-1]):
                    return states
        raise AssertionError("\n".join(states[-1] if states else ["nothing on the screen"]))

    def type(self, text: bytes) -> None:
        os.write(self.master, text)


def epochs(screen: list[str]) -> int:
    return sum(": loss " in line for line in screen)


@pytest.fixture
def run(tmp_path: Path) -> list[str]:
    (tmp_path / "run.toml").write_text(RUN)
    return ["train", str(tmp_path / "run.toml"), "--store", str(tmp_path / "store")]


def test_bars_and_log_lines_never_share_a_line(run: list[str], tmp_path: Path) -> None:
    terminal = Terminal([*run, "--set", "train.epochs=12"], tmp_path)
    states = terminal.read(lambda _screen: False)
    assert terminal.process.wait(30) == 0
    lines = {line for state in states for line in state}
    bars = {line for line in lines if line.startswith("checkpoint-2022") and "epochs" in line and "of 12" in line}
    assert any("━" in line for line in bars), "no progress bar was shown"
    assert all("━" not in line and "of 12 epochs" not in line for line in lines if LOG_LINE.match(line))
    last = states[-1]
    assert epochs(last) == 12
    assert not any("━" in line for line in last)


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--prefect"]])
def test_an_interrupt_ends_a_command_in_seconds_with_the_right_words(
    run: list[str], options: list[str], tmp_path: Path
) -> None:
    terminal = Terminal([*run, "--set", "train.epochs=100000", "--set", "train.patience=100000", *options], tmp_path)
    terminal.read(lambda screen: epochs(screen) > 3)
    children = psutil.Process(terminal.process.pid).children(recursive=True)
    started = time.monotonic()
    terminal.type(b"\x03")
    states = terminal.read(lambda _screen: False, 60)
    assert terminal.process.wait(10) == 130, states[-1:]
    assert time.monotonic() - started < 20, "an idle machine takes 2 s"
    assert any(line.startswith("interrupted; what was finished is kept") for line in states[-1])
    assert not any("Error" in line for state in states for line in state)
    assert not psutil.wait_procs(children, timeout=10)[1]


@pytest.mark.slow
def test_prefects_api_goes_with_a_killed_command(run: list[str], tmp_path: Path) -> None:
    terminal = Terminal([*run, "--set", "train.epochs=100000", "--set", "train.patience=100000", "--prefect"], tmp_path)
    terminal.read(lambda screen: epochs(screen) > 0)
    children = psutil.Process(terminal.process.pid).children(recursive=True)
    assert any("api_process" in " ".join(child.cmdline()) for child in children)
    terminal.process.send_signal(signal.SIGKILL)
    terminal.process.wait(10)
    assert not psutil.wait_procs(children, timeout=20)[1]
