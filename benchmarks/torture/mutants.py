"""Mutation testing: how many small changes of kernels, join, losses, metrics and candidates do their tests notice?

    python benchmarks/torture/mutants.py --per-file 12 --seed 1
    python benchmarks/torture/mutants.py --file model/evaluation/metrics.py --function auc_parts --per-file 0

A mutant is one file with one change in the body of a function: another comparison or operator, another number, `and`
for `or`, a condition negated, `break` for `continue`, another function of a pair such as min and max, a statement left
out. Its test files (`TESTS`) run in a process of their own until one fails. The table counts by file

    killed      a test failed, or the process died
    timeout     the tests took five times as long as they take on the code as it is: killed as well
    SURVIVED    all tests passed; listed with the change

Mutants are drawn from all of a file's by the seed; `--per-file 0` takes all. One process at a time, at low priority.
mutmut leaves decorated functions out, and so all compiled ones; cosmic-ray starts an interpreter for every mutant,
which takes longer here than the tests. A process forked after the imports needs a second.
"""

# mypy: ignore-errors
from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import gc
import importlib
import importlib.util
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = {
    "model/compute/random_kernels.py": "tests/model/compute/test_kernels.py",
    "model/compute/ranking_kernels.py": "tests/model/compute/test_kernels.py",
    "model/data/candidates.py": "tests/model/data/test_candidates.py",
    "model/data/sampling_kernels.py": "tests/model/data/test_sampling_kernels.py",
    "model/edda/losses.py": "tests/model/edda/test_losses.py",
    "model/evaluation/fit_kernels.py": "tests/model/evaluation/test_fit_kernels.py",
    "model/evaluation/metrics.py": "tests/model/evaluation/test_metrics.py",
    "model/evidence/kernels.py": "tests/model/evidence/test_kernels.py",
    "model/learners/adam_kernels.py": "tests/model/learners/test_row_adam.py",
    "model/sparse/kernels.py": "tests/model/sparse/test_kernels.py",
    "model/sparse/product_kernel.py": "tests/model/sparse/test_kernels.py",
    "pipeline/compute/row_kernels.py": "tests/pipeline/compute/test_row_kernels.py",
    "pipeline/neighbours/kernels.py": "tests/pipeline/neighbours/test_stage.py",
    "pipeline/neighbours/slim_kernels.py": "tests/pipeline/neighbours/test_item_models.py",
    "pipeline/pairs/join.py": "tests/pipeline/pairs/test_join.py",
    "pipeline/pairs/join_kernels.py": "tests/pipeline/pairs/test_join.py",
    "pipeline/reach/expected_kernels.py": "tests/pipeline/reach/test_kernels.py",
    "pipeline/reach/walk_kernels.py": "tests/pipeline/reach/test_kernels.py",
}
"""The tests of each file."""

NO_RESULT = {"_prefetch"}
"""Functions that change no result, only times."""

OPERATORS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr, ast.Pow: ast.Mult, ast.And: ast.Or, ast.Or: ast.And, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.MatMult: ast.Mult,
}  # fmt: skip
NAMES = {
    "min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "sum": "max", "any": "all", "all": "any",
    "zeros": "ones", "ones": "zeros", "sqrt": "abs", "mean": "sum", "cumsum": "sort",
}  # fmt: skip
LEFT_OUT = ast.Expr | ast.AugAssign | ast.Continue | ast.Break


@dataclass(frozen=True)
class Mutant:
    """One file with one change: its source, the function, the line and the change in words."""

    file: str
    function: str
    line: int
    change: str
    source: str


def changed_terms(node: ast.AST) -> Iterator[tuple[str, Callable[[ast.AST], ast.AST]]]:
    """What an operator, number or name may become, in words, and the function that makes it of a copy of the node."""
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in OPERATORS:
        other = OPERATORS[type(node.op)]
        yield f"{type(node.op).__name__} → {other.__name__}", lambda copied: _with(copied, op=other())
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
        other = OPERATORS[type(node.ops[0])]
        yield (
            f"{type(node.ops[0]).__name__} → {other.__name__}",
            lambda copied: _with(copied, ops=[other(), *copied.ops[1:]]),
        )
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield f"{node.value} → {node.value + 1}", lambda copied: _with(copied, value=copied.value + 1)
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        yield f"{node.value} → {not node.value}", lambda copied: _with(copied, value=not copied.value)
    if isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield f"{node.attr} → {NAMES[node.attr]}", lambda copied: _with(copied, attr=NAMES[copied.attr])
    if isinstance(node, ast.Name) and node.id in NAMES and isinstance(node.ctx, ast.Load):
        yield f"{node.id} → {NAMES[node.id]}", lambda copied: _with(copied, id=NAMES[copied.id])


def changed_flow(node: ast.AST) -> Iterator[tuple[str, Callable[[ast.AST], ast.AST]]]:
    """The same for conditions and statements."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not | ast.Invert):
        yield f"{type(node.op).__name__} left out", lambda copied: copied.operand
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        negated = ast.UnaryOp(ast.Not(), node.test)
        yield "condition negated", lambda copied: _with(copied, test=copy.deepcopy(negated))
    if isinstance(node, ast.Continue | ast.Break):
        other = ast.Break if isinstance(node, ast.Continue) else ast.Continue
        yield f"→ {other.__name__}", lambda copied: ast.copy_location(other(), copied)
    is_element = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript)
    if isinstance(node, LEFT_OUT) or is_element:
        yield "statement left out", lambda copied: ast.copy_location(ast.Pass(), copied)


def _with(node: ast.AST, **fields: object) -> ast.AST:
    for name, value in fields.items():
        setattr(node, name, value)
    return node


def mutable_nodes(tree: ast.Module) -> Iterator[tuple[str, ast.AST, str, int | None]]:
    """Function, parent, field and index of every node in a function's body, but for docstrings and annotations."""

    def below(function: str, parent: ast.AST) -> Iterator[tuple[str, ast.AST, str, int | None]]:
        for name, value in ast.iter_fields(parent):
            if name in ("annotation", "returns", "decorator_list", "args") and not isinstance(parent, ast.Call):
                continue
            for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                is_text = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
                if not isinstance(child, ast.AST) or is_text:
                    continue
                if isinstance(child, ast.FunctionDef):
                    if child.name not in NO_RESULT:
                        yield from below(child.name if function in ("", "build") else function, child)
                    continue
                if function:
                    yield function, parent, name, index
                yield from below(function, child)

    yield from below("", tree)


def mutants(file: str, source: str) -> list[Mutant]:
    """All mutants of a file, in the order of its text."""
    tree = ast.parse(source)
    made = []
    for function, parent, name, index in mutable_nodes(tree):
        original = getattr(parent, name) if index is None else getattr(parent, name)[index]
        for change, apply in (*changed_terms(original), *changed_flow(original)):
            _put(parent, name, index, apply(copy.deepcopy(original)))
            text = ast.unparse(ast.fix_missing_locations(tree))
            _put(parent, name, index, original)
            made.append(Mutant(file, function, original.lineno, f"{change}: {ast.unparse(original)[:60]}", text))
    return made


def _put(parent: ast.AST, name: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[index] = node


class MutantFinder:
    """Imports one module from another file."""

    def __init__(self, module: str, path: Path) -> None:
        self.module, self.path = module, path

    def find_spec(self, name: str, *_: object) -> object:
        """The file, for the one module."""
        return importlib.util.spec_from_file_location(name, self.path) if name == self.module else None


def prepare_process() -> None:
    """Import what all tests need of other packages, once, so that forked processes have it."""
    import hypothesis
    import pytest  # noqa: F401
    import torch

    torch.set_num_threads(1)
    hypothesis.settings.register_profile("mutants", derandomize=True, database=None)
    hypothesis.settings.load_profile("mutants")


def load_libraries(names: list[str]) -> None:
    """Import what the tests of a file were seen to import of other packages."""
    for name in names:
        if name not in sys.modules:
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def run_tests(file: str, path: Path, tests: list[str], log: Path) -> int:
    """In a forked process: run the tests with the module of `file` from `path`; returns pytest's status."""
    import pytest
    from numba.core.dispatcher import Dispatcher

    gc.disable()

    module = file.removesuffix(".py").replace("/", ".")
    users = {
        str(other.relative_to(ROOT)).removesuffix(".py").replace("/", ".")
        for package in ("model", "pipeline")
        for other in (ROOT / package).rglob("*.py")
        if f"from {module} import" in other.read_text()
    }
    enable = Dispatcher.enable_caching

    def enable_caching(dispatcher: Dispatcher) -> None:  # Numba's cache would answer with the callee as it was
        if dispatcher.py_func.__module__ not in users | {module}:
            enable(dispatcher)

    Dispatcher.enable_caching = enable_caching
    sys.meta_path.insert(0, MutantFinder(module, path))
    with log.open("w") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning", "-m", "not slow"]
        status = pytest.main([*options, *tests])
    names = [name for name, module in sys.modules.items() if "site-packages" in str(getattr(module, "__file__", ""))]
    log.with_name("imported").write_text("\n".join(name for name in names if not name.startswith("_pytest")))
    return status


def outcome(file: str, source: str, tests: list[str], folder: Path, seconds: float) -> tuple[str, float]:
    """`passed`, `failed` or `timeout`, and the seconds that it took."""
    path, started = folder / Path(file).name, time.monotonic()
    path.write_text(source)
    child = os.fork()
    if child == 0:
        status = 99
        try:
            os.setpgid(0, 0)
            resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))
            status = int(run_tests(file, path, tests, folder / "log"))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return ("passed" if status == 0 else "failed"), time.monotonic() - started
        if time.monotonic() - started > seconds:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "timeout", seconds
        time.sleep(0.02)


def try_file(file: str, functions: list[str], count: int, seed: int, folder: Path) -> tuple[Counter, list[Mutant]]:
    """Counts of outcomes of a file's mutants, and those that survived."""
    source = (ROOT / file).read_text()
    alone = ["--noconftest", *TESTS[file].split()]  # importing what the fixtures need takes a second
    tests = alone if outcome(file, source, alone, folder, 600)[0] == "passed" else TESTS[file].split()
    drawn = [mutant for mutant in mutants(file, source) if not functions or mutant.function in functions]
    if count:
        drawn = random.Random(f"{seed} {file}").sample(drawn, min(count, len(drawn)))
    for _ in range(2):  # the first fills Numba's cache and says what to import
        right, seconds = outcome(file, source, tests, folder, 600)
        assert right == "passed", (folder / "log").read_text()
        load_libraries((folder / "imported").read_text().split())
    counts, survivors = Counter(), []
    for number, mutant in enumerate(sorted(drawn, key=lambda mutant: mutant.line)):
        own = folder / str(number)
        own.mkdir()
        result, _ = outcome(file, mutant.source, tests, own, 20 + 5 * seconds)
        counts[{"passed": "SURVIVED", "failed": "killed"}.get(result, result)] += 1
        if result == "passed":
            survivors.append(mutant)
            print(f"  survived: {file}:{mutant.line} {mutant.function}: {mutant.change}", flush=True)
    return counts, survivors


def main() -> None:
    """Try the mutants of each file and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", action="append", choices=sorted(TESTS), help="all if left out")
    parser.add_argument("--function", action="append", default=[], help="mutants in these functions only")
    parser.add_argument("--per-file", type=int, default=12, help="0 for all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-least", type=float, default=0.85, help="share killed below which the status is 1")
    options = parser.parse_args()
    os.chdir(ROOT)
    os.nice(10)
    os.environ |= {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    sys.path[:0] = [str(ROOT)]
    prepare_process()
    table = {}
    for file in options.file or sorted(TESTS):
        with tempfile.TemporaryDirectory(prefix="edda-mutants-") as folder:
            started = time.monotonic()
            table[file], _ = try_file(file, options.function, options.per_file, options.seed, Path(folder))
            print(f"{file}: {dict(table[file])}, {time.monotonic() - started:.0f} s", flush=True)
    table["all"] = sum(table.values(), Counter())
    print(f"\n{'file':<40}{'killed':>10}{'timeout':>10}{'SURVIVED':>10}")
    for file, counts in table.items():
        print(f"{file:<40}" + "".join(f"{counts[name]:>10}" for name in ("killed", "timeout", "SURVIVED")))
    total = table["all"].total()
    share = 1 - table["all"]["SURVIVED"] / max(total, 1)
    print(f"{share:.0%} of {total} mutants killed")
    sys.exit(share < options.at_least)


if __name__ == "__main__":
    main()
