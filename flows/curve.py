"""The learning curve: a training's loss and validation score by epoch, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.artifact import Artifact
from data_contracts.contracts import CHECKPOINT

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
