"""Every name that a benchmark imports exists, also where it is imported only when it is needed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PACKAGES = ("data_contracts", "pipeline", "model", "flows", "edda")
SCRIPTS = sorted(path.relative_to(BENCHMARKS).as_posix() for path in BENCHMARKS.rglob("*.py"))


def imports(script: Path) -> Iterator[tuple[str, str]]:
    """Module and name of each `from module import name`, in functions as well."""
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            for name in node.names:
                yield "." * node.level + (node.module or ""), name.name


def defined(module: Path) -> set[str]:
    """Names that a file's functions, classes, assignments and imports define."""
    names: set[str] = set()
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {name.asname or name.name for name in node.names}
    return names


def is_importable(module: str, name: str) -> bool:
    try:
        return hasattr(import_module(module), name) or bool(import_module(f"{module}.{name}"))
    except ImportError:
        return False


def missing(script: Path) -> Iterator[str]:
    """What a script imports from the packages, or from files beside it or below, that is not there."""
    for module, name in imports(script):
        file = script.parent.joinpath(*module.lstrip(".").split(".")).with_suffix(".py")
        first = module.partition(".")[0]
        is_there = (
            is_importable(module, name) if first in PACKAGES
            else name in defined(file) if file.exists()
            else first not in {name for path in SCRIPTS for name in Path(path).with_suffix("").parts}
        )  # fmt: skip
        if not is_there:
            yield f"{module}.{name}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_name_that_a_script_imports_exists(script: str) -> None:
    assert [*missing(BENCHMARKS / script)] == []


def test_names_that_do_not_exist_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("there: int = 1\n")
    (tmp_path / "script.py").write_text(
        "from beside import there, gone\nfrom peers.join import K\n\n"
        "def run():\n    from data_contracts.settings import machine, NoSettings\n    from pipeline.graph import none\n"
    )
    assert [*missing(tmp_path / "script.py")] == [
        "beside.gone", "peers.join.K", "data_contracts.settings.NoSettings", "pipeline.graph.none",
    ]  # fmt: skip
