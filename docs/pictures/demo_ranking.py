"""Draw `demo-ranking.png`: NDCG@20 of the demo by domain and recommender, read from the table in docs/tutorial.md.

python docs/pictures/demo_ranking.py
"""

from __future__ import annotations

import re
from pathlib import Path

from matplotlib.figure import Figure

COLORS = {"popularity": "#b8c4c2", "walks alone": "#e0a458", "each domain alone": "#7a9cc6", "EDDA": "#00796b"}


def read_table(tutorial: Path) -> dict[str, list[float]]:
    """NDCG@20 by label, a value for each recommender in the order of `COLORS`."""
    table = tutorial.read_text(encoding="utf-8").partition("full_recall@20 / full_ndcg@20\n")[2].partition("```")[0]
    ndcg = {}
    for line in table.splitlines()[1:]:
        name, interactions = re.match(r"(\w+) +([\d,]+(?= ))?", line).groups()
        label = f"{name}\n{interactions} interactions" if interactions else f"{name} over\nthe domains"
        ndcg[label] = [float(value) for value in re.findall(r"/ ([\d.]+)", line)]
    return ndcg


def draw(ndcg: dict[str, list[float]], path: Path) -> None:
    """A group of bars for each domain, a bar for each recommender."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(COLORS)
    for index, (recommender, color) in enumerate(COLORS.items()):
        left = [group + (index - (len(COLORS) - 1) / 2) * width for group in range(len(ndcg))]
        bars = axes.bar(left, [values[index] for values in ndcg.values()], width * 0.92, color=color, label=recommender)
        axes.bar_label(bars, fmt=lambda value: f"{value:.3f}".lstrip("0"), fontsize=7.5, padding=2)
    axes.set_xticks(range(len(ndcg)), list(ndcg))
    axes.set(ylabel="NDCG@20, all items ranked", ylim=(0, 0.5))
    axes.tick_params(axis="x", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(COLORS), frameon=False)
    figure.savefig(path, dpi=120, facecolor="white")


if __name__ == "__main__":
    folder = Path(__file__).parent
    draw(read_table(folder.parent / "tutorial.md"), folder / "demo-ranking.png")
