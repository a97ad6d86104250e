"""The picture of `quality.py`: full NDCG@20 on test against CPU seconds from raw logs on, one panel a data set.

    python benchmarks/pictures/quality_curve.py FILE.png demo.json amazon.json …

A line shows at every time the state with the best validation score until then, so nothing is chosen by test.
"""

# mypy: ignore-errors
from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

STYLES = {
    "edda": ("#d62728", "o"),
    "edda, vectors": ("#ff9896", "o"),
    "implicit ALS": ("#1f77b4", "s"),
    "implicit BPR": ("#17becf", "s"),
    "implicit item-knn": ("#9467bd", "s"),
    "lenskit ALS": ("#2ca02c", "^"),
    "lenskit item-knn": ("#8c564b", "^"),
    "recbole EASE": ("#7f7f7f", "D"),
    "recbole LightGCN": ("#bcbd22", "D"),
}
SCOPES = {"domain": ("-", "full"), "union": (":", "none")}


def best_so_far(points: list[dict[str, float]]) -> list[tuple[float, float]]:
    """(seconds, NDCG) of every state that validates better than all before it."""
    kept, best = [], -1.0
    for point in points:
        if point["valid"] > best:
            best = point["valid"]
            kept.append((point["seconds"], point["ndcg"]))
    return kept


def draw(results: list[dict], path: Path) -> None:
    """Write the picture."""
    figure, panels = plt.subplots(
        1, len(results), figsize=(max(9.0, 1.5 + 5.0 * len(results)), 5.6), layout="constrained", squeeze=False
    )
    for axes, result in zip(panels[0], results, strict=True):
        latest = max(point["seconds"] for points in result["curves"].values() for point in points)
        for label, points in result["curves"].items():
            name, _, scope = label.rpartition(", ")
            name, scope = (name, scope) if scope in SCOPES else (label, "domain")
            (color, marker), (line, fill) = STYLES[name], SCOPES[scope]
            if not points:
                continue
            seconds, ndcg = zip(*best_so_far(points), strict=True)
            width = 2.5 if name == "edda" else 1.2
            axes.step(
                [*seconds, latest], [*ndcg, ndcg[-1]], line, color=color, where="post", linewidth=width, label=label
            )
            axes.plot(seconds[0], ndcg[0], marker, color=color, fillstyle=fill, markersize=6)
        axes.set(xscale="log", title=result["run"], xlabel="CPU seconds from raw logs on")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("full NDCG@20, test, mean over domains")
    handles = dict(pair for axes in panels[0] for pair in zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Draw the output files of `quality.py --json`."""
    picture, *results = map(Path, sys.argv[1:])
    draw([json.loads(result.read_text()) for result in results], picture)


if __name__ == "__main__":
    main()
