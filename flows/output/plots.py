"""Plots: small ones as SVG for an HTML page, whose CSS gives them their colours, and the learning curve as PNG."""

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
from data_contracts.statistics import CheckpointStatistics
from data_contracts.store.artifact import Artifact

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

COLOURS = 8
"""Number of colours of series in a page: `var(--series-0)` and so on."""

STANDS_OUT = -1
"""In place of a colour's number: a thicker line in the colour of the text."""

_INK, _RULE, _REST = "#0000b0", "#0000b1", "#0000b2"
_CSS = {
    _INK: "currentColor",
    _RULE: "var(--rule)",
    _REST: "var(--muted)",
    **{f"#0000a{number}": f"var(--series-{number})" for number in range(COLOURS)},
}
"""Colour that matplotlib draws with → the colour in the page."""

_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "edda", "text.parse_math": False, "font.family": "sans-serif",
    "font.size": 9, "text.color": _INK, "axes.labelcolor": _INK, "axes.edgecolor": _REST, "axes.titlesize": 10,
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "axes.axisbelow": True, "grid.color": _RULE, "grid.linewidth": 0.8, "xtick.color": _INK, "ytick.color": _INK,
    "lines.linewidth": 1.4, "savefig.transparent": True,
}  # fmt: skip
_WIDTH, _HEIGHT = 5.2, 3.1
"""Size of one plot in inches: two side by side fill the page on a desktop, one on a phone."""

_UNWANTED = re.compile(
    r"<metadata>.*?</metadata>"
    r"|<style.*?</style>"
    r'| width="[\d.]+pt" height="[\d.]+pt"'
    r'| xmlns[:\w]*="[^"]*"'
    r'|(?<=<g) id="[^"]*"'
    r"| font-family: [^;]*;"
    r'| transform="rotate\(-0 [^"]*"',
    re.DOTALL,
)
"""Markup that the page itself has, or that would clash among several plots."""

Points = tuple[Sequence[float] | NDArray[np.generic], Sequence[float] | NDArray[np.generic]]


@dataclass(frozen=True)
class Series:
    """One line of a plot."""

    points: Points
    number: int | None = None
    """Number of its colour; None: one of many lines of the same colour; STANDS_OUT: in the text's colour."""


@dataclass(frozen=True)
class Spread:
    """Values with intervals, one for each label; NaN leaves a gap."""

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
        lines: the last is drawn on top.
        scale: of both axes, linear or log.
        marked: x of a dashed vertical line.
    """

    def draw(plot: Axes) -> None:
        plot.set(xlabel=axes[0], ylabel=axes[1], xscale=scale, yscale=scale)
        if scale == "linear" and lines and all(np.asarray(line.points[0]).dtype.kind == "i" for line in lines):
            _label_whole_numbers(plot, lines)
        for line in sorted(lines, key=lambda line: line.number is not None):
            marker = "o" if len(line.points[0]) == 1 else None
            width = 2.2 if line.number == STANDS_OUT else 0.8 if line.number is None else 1.4
            alpha = 0.5 if line.number is None else 1.0
            size = 5 if line.number == STANDS_OUT else 3
            plot.plot(*line.points, color=_colour(line.number), lw=width, marker=marker, markersize=size, alpha=alpha)
        if marked is not None:
            plot.axvline(marked, color=_REST, linewidth=1, linestyle="--")
        if scale == "log":
            for axis in (plot.xaxis, plot.yaxis):
                _label_log_axis(axis)

    return _svg(title, draw)


_FEW_DECADES = 2.5
"""Powers of ten that an axis spans at most for 2 and 5 to be labelled in between."""


def _label_log_axis(axis: Axis) -> None:
    """Label powers of ten as plain numbers, on short axes also twice and five times each."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    low, high = sorted(axis.get_view_interval())
    steps = (1.0, 2.0, 5.0) if np.log10(high / low) <= _FEW_DECADES else (1.0,)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.set_minor_formatter("")


def _label_whole_numbers(plot: Axes, lines: Sequence[Series]) -> None:
    """Label x by whole numbers, of which the first is where the lines begin: epochs begin with 1."""
    from matplotlib.ticker import MaxNLocator

    values = np.concatenate([np.asarray(line.points[0]) for line in lines])
    first, last = int(values.min()), int(values.max())
    ticks = [int(tick) for tick in MaxNLocator(nbins=8, integer=True).tick_values(first, last)]
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1
    plot.set_xticks([first, *(tick for tick in ticks if first + step / 2 <= tick <= last and tick != first)])


def bars(title: str, label: str, values: Mapping[str, float]) -> str:
    """A horizontal bar for each name, the first at the top."""

    def draw(plot: Axes) -> None:
        plot.set(xlabel=label)
        plot.barh(list(values), list(values.values()), color=_colour(0), height=0.6)
        plot.invert_yaxis()
        plot.grid(False, axis="y")

    return _svg(title, draw, height=0.9 + 0.24 * len(values))


def intervals(title: str, labels: Sequence[str], spreads: Sequence[Spread], *, marked: float | None = None) -> str:
    """Values with intervals; the labels run downwards, and the spreads of one label are close together.

    Args:
        title: of the plot.
        labels: one for each value.
        spreads: each with a value and an interval for every label.
        marked: value of a dashed vertical line.
    """
    step = 0.7 / max(1, len(spreads))

    def draw(plot: Axes) -> None:
        for number, spread in enumerate(spreads):
            value = np.array(spread.values)
            error = np.abs(np.array([spread.low, spread.high]) - value)
            y = np.arange(len(labels)) + (number - (len(spreads) - 1) / 2) * step
            plot.errorbar(value, y, xerr=error, fmt="o", markersize=4, color=_colour(number), elinewidth=1.4)
        if marked is not None:
            plot.axvline(marked, color=_REST, linewidth=1, linestyle="--")
        plot.set_yticks(range(len(labels)), labels)
        plot.set_ylim(len(labels) - 0.5, -0.5)
        plot.grid(False, axis="y")

    return _svg(title, draw, height=0.9 + len(labels) * max(0.24, 0.1 * len(spreads)))


def _colour(number: int | None) -> str:
    return _REST if number is None else _INK if number == STANDS_OUT else f"#0000a{number % COLOURS}"


def _svg(title: str, draw: Callable[[Axes], None], height: float = _HEIGHT) -> str:
    """An `<svg>` element without a fixed width, in the page's font and colours."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    stream = StringIO()
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # text stays text, and browsers have other fonts
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        plot = figure.subplots()
        draw(plot)
        plot.set_title(title)
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    text = _UNWANTED.sub("", text[text.index("<svg") :])
    return re.sub(r"#0000[ab]\d", lambda colour: _CSS[colour.group()], text)


def interval_bars(title: str, labels: Sequence[str], spread: Spread, marked: int | None) -> bytes:
    """A PNG for a page without our CSS: a bar with an interval for each label, the first at the top, one in colour."""
    from matplotlib.figure import Figure

    value = np.array(spread.values)
    error = np.abs(np.array([spread.low, spread.high]) - value)
    colours = ["tab:blue" if number == marked else "lightgrey" for number in range(len(labels))]
    figure = Figure(figsize=(8, 0.8 + 0.22 * len(labels)), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(labels)), value, xerr=error, color=colours, height=0.7, error_kw={"elinewidth": 1})
    if marked is not None:
        axes.axvline(value[marked], color="tab:blue", linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(alpha=0.3, axis="x")
    stream = BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def learning_curve(artifacts: Mapping[str, Artifact]) -> bytes | None:
    """Loss and selecting score by epoch, as means over domains, a line for each seed with its best epoch marked.

    Args:
        artifacts: of a run, by role.

    Returns:
        A PNG; None if the run has no checkpoint.
    """
    from matplotlib.figure import Figure

    checkpoints = {role: artifact for role, artifact in artifacts.items() if artifact.contract is CHECKPOINT}
    if not checkpoints:
        return None
    figure = Figure(figsize=(9, 3.4), dpi=80, layout="constrained")
    losses, scores = figure.subplots(1, 2)
    for role, checkpoint in checkpoints.items():
        table, seed = checkpoint.read(), role.partition("-")[2]
        best = checkpoint.statistics_as(CheckpointStatistics)["epoch"]
        _line(losses, _means_by_epoch(table, "loss"), best, seed)
        _line(scores, _means_by_epoch(table, "score"), best, seed)
    score = f"Validation score: {selection_measure(next(iter(checkpoints.values())))}"
    for axes, title in ((losses, "Training loss"), (scores, score)):
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    losses.legend(title="seed")
    picture = BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def selection_measure(checkpoint: Artifact) -> str:
    """The validation measure that a training's epochs are selected by; AUC if nothing is selected."""
    return str(checkpoint.manifest.settings.get("select_by", "auc"))


def _means_by_epoch(history: pa.Table, metric: str) -> dict[int, float]:
    """Epoch → the mean of a metric's values, in order."""
    values = history.filter(pc.equal(history["metric"], metric))
    means = values.group_by("epoch").aggregate([("value", "mean")]).sort_by("epoch")
    return dict(zip(means["epoch"].to_pylist(), means["value_mean"].to_pylist(), strict=True))


def _line(axes: Axes, values: Mapping[int, float], best: int, seed: str) -> None:
    (line,) = axes.plot(list(values), list(values.values()), label=seed)
    if best in values:
        axes.plot([best], [values[best]], "o", color=line.get_color())
