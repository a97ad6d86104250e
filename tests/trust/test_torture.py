"""Some cases of each group of `make torture`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_nothing_is_wrong_and_nothing_crashes_under_some_torture():
    command = [sys.executable, "benchmarks/torture", "--small", "--seed", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    tried = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stdout[-5000:] + tried.stderr[-5000:]
    counts = re.search(r"^all +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)$", tried.stdout, re.MULTILINE)
    assert counts, tried.stdout
    same, refused, harmless, wrong, crashed = map(int, counts.groups())
    assert (wrong, crashed) == (0, 0)
    assert same >= 6
    assert same + refused + harmless >= 29
