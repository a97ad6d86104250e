"""The picture of `neighbours.py --curve`: accuracy of estimated weights against cost, one colour per data set.

python benchmarks/studies/neighbours.py --curve --long 20000 --json > long.json
python benchmarks/studies/neighbours_curve.py FILE.png long.json …
"""

# mypy: ignore-errors
from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")
STYLES = {"walk": "o-", "independent": "o:"}
LABELS = {"walk": "method walk: evenly spaced", "independent": "independent walks"}
TITLES = {
    "overlap_at_20": "Share of the 20 best neighbours found",
    "relative_error": "Mean error of the 100 largest weights",
}


def draw(curves: dict[str, dict[str, list[dict[str, float]]]], path: Path) -> None:
    """Two lines for each data set, and a star where its exact weights are.

    Args:
        curves: data set → kind of walks → points with `seconds` and each measure of `TITLES`.
        path: of the picture.
    """
    figure, panels = plt.subplots(1, 2, figsize=(11, 5.1), layout="constrained")
    for axes, (measure, title) in zip(panels, TITLES.items(), strict=True):
        for color, (name, kinds) in zip(COLORS, curves.items(), strict=False):
            for kind, style in STYLES.items():
                points = [(point["seconds"], point[measure]) for point in kinds[kind]]
                label = name if kind == "walk" else None
                axes.plot(*zip(*points, strict=True), style, color=color, markersize=5, label=label)
            exact = kinds["exact"][0]
            axes.plot(exact["seconds"], exact[measure], "*", color=color, markersize=15, fillstyle="none")
        axes.set(xscale="log", ylim=(-0.04, 1.24 if measure == "relative_error" else 1.04), title=title)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3)
    for kind, style in STYLES.items():
        panels[1].plot([], [], style, color="black", markersize=5, label=LABELS[kind])
    panels[1].plot([], [], "*", color="black", markersize=13, fillstyle="none", linestyle="none", label="exact")
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside upper center", ncols=6, frameon=False)
    walks = ", ".join(f"{point['walks']:,}" for point in next(iter(curves.values()))["walk"])
    figure.supxlabel(f"CPU seconds for 1,000 items; the points of a line: {walks} walks", fontsize=11)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Draw the curves in output files of `neighbours.py --curve --json`."""
    picture, *results = map(Path, sys.argv[1:])
    curves = [json.loads(result.read_text())["curves"] for result in results]
    draw({name: kinds for file in curves for name, kinds in file.items()}, picture)


if __name__ == "__main__":
    main()
