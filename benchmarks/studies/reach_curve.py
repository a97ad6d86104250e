"""The picture of `reach.py`: accuracy against cost, one line per data set.

python benchmarks/studies/reach.py --run edda-store/runs/aliccp --json > aliccp.json
python benchmarks/studies/reach_curve.py FILE.png aliccp.json …
"""

# mypy: ignore-errors
from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b", "#e377c2")
MARKERS = {"exact": ("*", 15), "pruned": ("s", 11)}
TITLES = {"mean_cosine": "Mean cosine with the exact vector", "top_1": "Best partner as good as the true best"}


def draw(runs: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    """A line of walks for each data set, and a point for each other method.

    Args:
        runs: run → method → `seconds` and each measure of `TITLES`.
        path: of the picture.
    """
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
    for axes, (measure, title) in zip(panels, TITLES.items(), strict=True):
        for color, (name, methods) in zip(COLORS, runs.items(), strict=False):
            draw_run(axes, name, color, {method: (cost["seconds"], cost[measure]) for method, cost in methods.items()})
        axes.set(xscale="log", ylim=(-0.04, 1.04), title=title)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.margins(x=0.14)
        axes.grid(alpha=0.3)
    for method, (marker, size) in MARKERS.items():
        panels[0].plot([], [], marker, color="black", markersize=size, fillstyle="none", label=method)
    panels[0].legend(loc="lower right")
    figure.supxlabel("CPU seconds for 1,000 nodes; the points of a line: 100, 500, 5,000 and 50,000 walks", fontsize=11)
    figure.savefig(path, dpi=100)


def draw_run(axes: plt.Axes, name: str, color: str, points: dict[str, tuple[float, float]]) -> None:
    """One data set: walks joined by a line, the other methods by their markers."""
    walks = {method: point for method, point in points.items() if method not in MARKERS}
    axes.plot(*zip(*walks.values(), strict=True), "o-", color=color, markersize=5, label=name)
    for method in points.keys() & MARKERS.keys():
        marker, size = MARKERS[method]
        axes.plot(*points[method], marker, color=color, markersize=size, fillstyle="none", markeredgewidth=1.5)


def main() -> None:
    """Draw the runs in output files of `reach.py --json`."""
    picture, *results = map(Path, sys.argv[1:])
    runs = [json.loads(result.read_text())["runs"] for result in results]
    draw({name: methods for file in runs for name, methods in file.items()}, picture)


if __name__ == "__main__":
    main()
