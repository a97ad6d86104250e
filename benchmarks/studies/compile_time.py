"""CPU seconds that Numba takes to compile each kernel in a first run of the demo, with an empty cache.

    python benchmarks/studies/compile_time.py                # the demo; or: --run my.toml

The time of a kernel is its own and that of the functions of NumPy and Python that it makes Numba compile; kernels that
it calls count for themselves. What several kernels share counts for the first. The kernels are compiled in a process of
their own, whose cache is a temporary folder, as is its store.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from numba.core import event

RUN = Path(__file__).parents[2] / "flows" / "runs" / "demo.toml"


class CompileTimes(event.Listener):
    """Seconds by kernel: its own, and those of the functions of NumPy and Python that it makes Numba compile."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.library: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """Kernel → function of Numba's library → seconds."""
        self.signatures: Counter[str] = Counter()
        self._open: list[tuple[str, float, float]] = []

    def on_start(self, event: event.Event) -> None:
        """A function is about to be compiled."""
        function = event.data["dispatcher"].py_func
        self._open.append((f"{function.__module__}.{function.__name__}", time.thread_time(), 0.0))

    def on_end(self, event: event.Event) -> None:  # noqa: ARG002 - the start had the same data
        """A function was compiled."""
        name, started, of_callees = self._open.pop()
        seconds = time.thread_time() - started
        if self._open:
            caller, caller_started, before = self._open[-1]
            self._open[-1] = caller, caller_started, before + seconds
        if not name.startswith("numba."):
            self.seconds[name] += seconds - of_callees
            self.signatures[name] += 1
            return
        kernel = next((opened for opened, *_ in reversed(self._open) if not opened.startswith("numba.")), "")
        self.library[kernel][name] += seconds - of_callees


def measure(run: Path, store: str) -> None:
    """Make all stages of a run in this process, and print a Markdown table of the kernels that were compiled."""
    from flows.config.run_config import RunSpec
    from flows.runner.execute import run_stages

    times, started = CompileTimes(), time.perf_counter()
    event.register("numba:compile", times)
    run_stages(RunSpec(run, (f"store={store}", "train.epochs=1", "compute.threads=1")).config)
    totals = {name: seconds + times.library[name].total() for name, seconds in times.seconds.items()}
    print("| kernel | signatures | seconds | of which for functions of NumPy and Python |\n|---|---:|---:|---|")
    for name, seconds in sorted(totals.items(), key=lambda item: -item[1]):
        library = times.library[name]
        listed = ", ".join(f"{function.removeprefix('numba.')} {own:.2f}" for function, own in library.most_common(4))
        print(f"| `{name}` | {times.signatures[name]} | {seconds:.2f} | {library.total():.2f}: {listed} |")
    wall = time.perf_counter() - started
    count, total = times.signatures.total(), sum(totals.values())
    print(f"| {len(totals)} kernels, in a run of {wall:.1f} s | {count} | {total:.2f} | |")


def main() -> None:
    """Measure in a process with an empty cache."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=RUN)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.store:
        measure(options.run, options.store)
        return
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": f"{folder}/numba", "PYTHONPATH": str(RUN.parents[2])}
        command = [sys.executable, __file__, "--run", str(options.run), "--store", f"{folder}/store"]
        subprocess.run(command, env=environment, check=True)


if __name__ == "__main__":
    main()
