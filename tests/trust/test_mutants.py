"""Mutants of what every result is read from are noticed by its tests, all of them; `make mutants` tries many more."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_no_mutant_of_the_aucs_parts_or_of_the_bootstraps_percentiles_survives():
    options = ["--file", "model/evaluation/metrics.py", "--function", "auc_parts", "--function", "interval"]
    command = [sys.executable, "benchmarks/torture/mutants.py", *options, "--per-file", "0", "--at-least", "1"]
    tried = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stdout + tried.stderr
    assert int(tried.stdout.rsplit(" of ", 1)[1].split()[0]) >= 18
