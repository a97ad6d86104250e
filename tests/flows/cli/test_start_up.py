"""What commands that make nothing import: no test is timed, but these modules are where the time would go."""

import subprocess
import sys
from pathlib import Path

import pytest
from fake_stages import Stages, edda, here, stages

__all__ = ["here", "stages"]

NEVER = {
    *("torch", "numba", "llvmlite", "scipy", "dask", "distributed", "prefect", "pandas", "matplotlib", "duckdb"),
    *("fastapi", "uvicorn", "sklearn", "faiss", "optuna", "fsspec"),
}
NOT_FOR_HELP = {*NEVER, "numpy", "pyarrow", "pydantic", "psutil"}
SCRIPT = """
import sys
from flows.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print("modules:", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def imported(*arguments: str) -> set[str]:
    """Top-level modules that a command has imported when it ends."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].removeprefix("modules: ").split())


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("help",)], ids=" ".join)
def test_help_of_all_commands_imports_neither_arrow_nor_settings(arguments):
    modules = imported(*arguments)
    assert "cyclopts" in modules
    assert modules & NOT_FOR_HELP == set()


@pytest.mark.parametrize("command", ["run", "recommend", "train"])
def test_help_of_a_command_imports_nothing_that_makes_anything(command):
    assert imported(command, "--help") & NEVER == set()


@pytest.mark.parametrize(
    "arguments",
    [("run", "r.toml"), ("align", "r.toml"), ("run", "r.toml", "--dry-run"), ("status", "r.toml"), ("status", "r"),
     ("runs",), ("runs", "r")],
    ids=" ".join,
)  # fmt: skip
def test_a_command_that_makes_nothing_imports_nothing_that_does(here: Path, stages: Stages, arguments):
    (here / "log.csv").write_text("user_id,item_id\nu,i\n")
    (here / "r.toml").write_text('name = "r"\ntrain.alignment = 0.3\n[[logs]]\npath = "log.csv"\ndomain = "books"\n')
    assert edda("run", "r.toml", "--no-prefect") == 0
    modules = imported(*arguments)
    assert "pyarrow" in modules
    assert modules & NEVER == set()
