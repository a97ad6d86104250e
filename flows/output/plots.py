"""Small plots as SVG that lies inside a page: its text and lines take their colours from the page's CSS."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_contracts.contracts import CHECKPOINT
from data_contracts.store.artifact import Artifact

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = 8
"""Series that a page tells apart; `var(--series-0)` and so on are their colours."""

STANDS_OUT = -1
"""In place of a colour's number: the text's colour, and thicker."""

_INK, _RULE, _REST = "#0000b0", "#0000b1", "#0000b2"
_CSS = {_INK: "currentColor", _RULE: "var(--rule)", _REST: "var(--muted)",
        **{f"#0000a{number}": f"var(--series-{number})" for number in range(COLOURS)}}  # fmt: skip
"""Colours that matplotlib draws in → what they become."""

_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "edda", "text.parse_math": False, "font.family": "sans-serif",
    "font.size": 9, "text.color": _INK, "axes.labelcolor": _INK, "axes.edgecolor": _REST, "axes.titlesize": 10,
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "axes.axisbelow": True, "grid.color": _RULE, "grid.linewidth": 0.8, "xtick.color": _INK, "ytick.color": _INK,
    "lines.linewidth": 1.4, "savefig.transparent": True,
}  # fmt: skip
_WIDTH, _HEIGHT = 5.2, 3.1
"""Inches of one plot: two side by side fill a desktop's page, one a phone's."""

_UNWANTED = [re.compile(pattern, re.DOTALL) for pattern in (
    r"<metadata>.*?</metadata>", r"<style.*?</style>", r' width="[\d.]+pt" height="[\d.]+pt"', r' xmlns[:\w]*="[^"]*"',
    r'(?<=<g) id="[^"]*"', r" font-family: [^;]*;", r' transform="rotate\(-0 [^"]*"',
)]  # fmt: skip
"""What a page has already, or has one of for many plots."""

Points = tuple[Sequence[float] | NDArray[np.generic], Sequence[float] | NDArray[np.generic]]


@dataclass(frozen=True)
class Series:
    """One line of a plot and the number of its colour."""

    points: Points
    number: int | None = None
    """None: one of many that are not told apart; STANDS_OUT: in the text's colour."""


@dataclass(frozen=True)
class Spread:
    """Values with intervals, one for each label; a gap where the value is no number."""

    values: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def line_plot(
    title: str, axes: tuple[str, str], lines: Sequence[Series], *, scale: str = "linear", marked: float | None = None
) -> str:
    """Lines over a common x.

    Args:
        title: of the plot.
        axes: labels of x and y.
        lines: the last lies on top.
        scale: of both axes, linear or log.
        marked: an x to draw a dashed line at.
    """

    def draw(plot: Axes) -> None:
        plot.set(xlabel=axes[0], ylabel=axes[1], xscale=scale, yscale=scale)
        if scale == "log":
            for axis in (plot.xaxis, plot.yaxis):
                axis.set_major_formatter("{x:,.0f}")
                axis.set_minor_formatter("")
        elif all(np.asarray(line.points[0]).dtype.kind == "i" for line in lines):
            plot.locator_params(axis="x", integer=True)
        for line in sorted(lines, key=lambda line: line.number is not None):
            marker = "o" if len(line.points[0]) == 1 else None
            width = 2.2 if line.number == STANDS_OUT else 0.8 if line.number is None else 1.4
            alpha = 0.5 if line.number is None else 1.0
            size = 5 if line.number == STANDS_OUT else 3
            plot.plot(*line.points, color=_colour(line.number), lw=width, marker=marker, markersize=size, alpha=alpha)
        if marked is not None:
            plot.axvline(marked, color=_REST, linewidth=1, linestyle="--")

    return _svg(title, draw)


def bars(title: str, label: str, values: Mapping[str, float]) -> str:
    """A horizontal bar for each name, the first on top."""

    def draw(plot: Axes) -> None:
        plot.set(xlabel=label)
        plot.barh(list(values), list(values.values()), color=_colour(0), height=0.6)
        plot.invert_yaxis()
        plot.grid(False, axis="y")

    return _svg(title, draw, height=0.9 + 0.24 * len(values))


def intervals(title: str, labels: Sequence[str], spreads: Sequence[Spread]) -> str:
    """Values with intervals, labels downwards, the spreads of one label close together."""
    step = 0.7 / max(1, len(spreads))

    def draw(plot: Axes) -> None:
        for number, spread in enumerate(spreads):
            value = np.array(spread.values)
            reach = np.abs(np.array([spread.low, spread.high]) - value)
            place = np.arange(len(labels)) + (number - (len(spreads) - 1) / 2) * step
            plot.errorbar(value, place, xerr=reach, fmt="o", markersize=4, color=_colour(number), elinewidth=1.4)
        plot.set_yticks(range(len(labels)), labels)
        plot.set_ylim(len(labels) - 0.5, -0.5)
        plot.grid(False, axis="y")

    return _svg(title, draw, height=0.9 + len(labels) * max(0.24, 0.1 * len(spreads)))


def _colour(number: int | None) -> str:
    return _REST if number is None else _INK if number == STANDS_OUT else f"#0000a{number % COLOURS}"


def _svg(title: str, draw: Callable[[Axes], None], height: float = _HEIGHT) -> str:
    """An `<svg>` element as wide as its place in the page, in the page's font and colours."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    stream = StringIO()
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # names stay text, and a browser has other fonts
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        plot = figure.subplots()
        draw(plot)
        plot.set_title(title)
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    for unwanted in _UNWANTED:
        text = unwanted.sub("", text)
    return re.sub(r"#0000[ab]\d", lambda found: _CSS[found.group()], text)


if TYPE_CHECKING:
    from matplotlib.axes import Axes


def learning_curve(artifacts: Mapping[str, Artifact]) -> bytes | None:
    """Loss and the score that selects, by epoch, means over domains, a line for each seed; the kept epoch is marked.

    Args:
        artifacts: of a run, by role.

    Returns:
        A PNG; None where the run has no checkpoint.
    """
    from matplotlib.figure import Figure

    checkpoints = {role: found for role, found in artifacts.items() if found.contract is CHECKPOINT}
    if not checkpoints:
        return None
    figure = Figure(figsize=(9, 3.4), dpi=80, layout="constrained")
    losses, measures = figure.subplots(1, 2)
    for role, checkpoint in checkpoints.items():
        table, seed = checkpoint.read(), role.partition("-")[2]
        kept = int(checkpoint.statistics.get("epoch", 0))
        _line(losses, _mean(table.filter(pc.equal(table["metric"], "loss"))), kept, seed)
        _line(measures, _mean(table.filter(pc.equal(table["metric"], "score"))), kept, seed)
    score = f"Validation score: {selected_by(next(iter(checkpoints.values())))}"
    for axes, title in ((losses, "Training loss"), (measures, score)):
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    losses.legend(title="seed")
    picture = BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def selected_by(checkpoint: Artifact) -> str:
    """The measure of the validation split that a training's epochs are selected by; AUC where nothing is selected."""
    return str(checkpoint.manifest.settings.get("select_by", "auc"))


def _mean(table: pa.Table) -> dict[int, float]:
    """Epoch → the mean of its values, in order."""
    means = table.group_by("epoch").aggregate([("value", "mean")]).sort_by("epoch")
    return dict(zip(means["epoch"].to_pylist(), means["value_mean"].to_pylist(), strict=True))


def _line(axes: Axes, values: Mapping[int, float], kept: int, seed: str) -> None:
    (line,) = axes.plot(list(values), list(values.values()), label=seed)
    if kept in values:
        axes.plot([kept], [values[kept]], "o", color=line.get_color())
