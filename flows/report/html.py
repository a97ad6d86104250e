"""The report of a run: one HTML file that needs nothing else, written beside the run's links in the store."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from data_contracts.contracts import INTERACTIONS, MACRO, METRICS, PAIRS
from data_contracts.store.files import require_writable, write_atomically
from data_contracts.store.store import Store
from flows.output.tables import metric_names, metric_values
from flows.report.blocks import Note, Section, number
from flows.runner.lookup import Told, told_recorded

FILE = "report.html"

_NOT_TAKEN = (
    "What was not taken was made anew: vectors of nodes by walking, pairs of two domains by comparing nodes, rows of "
    "tables from their neighbours' or by drawing. Interactions and graphs are always made anew."
)


def write_report(told: Told, output: Path | None = None) -> Path:
    """Write a run's report.

    Args:
        told: the run, finished or not.
        output: the file; by default in the run's folder in the store.

    Returns:
        Where it is.

    Raises:
        ValueError: nothing of the run was made yet.
        PermissionError: the file's folder may only be read.
    """
    if not told.artifacts:
        raise ValueError(f"run {told.name!r} has made nothing yet; start it with: edda run RUN.toml")
    path = output or report_path(told.store.root, told.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    require_writable(path.parent, f"keep {path.name}", "name another file by --output")
    write_atomically({path: as_html(told).encode()})
    return path


def keep_report(name: str, store: Store) -> None:
    """Write a recorded run's report where there is none, or one that is older than the run's record.

    Nothing is fetched for it: where an artifact is on object storage only, it is `edda report` that does so.
    """
    path, record = report_path(store.root, name), store.root / "runs" / name / "run.json"
    if not (path.exists() and record.exists() and path.stat().st_mtime >= record.stat().st_mtime):
        told = told_recorded(name, store)
        if all(artifact.is_here for artifact in told.artifacts.values()):
            write_report(told)


def report_path(root: Path, name: str) -> Path:
    """Where the report of a store's run is."""
    return root / "runs" / name / FILE


def as_html(told: Told) -> str:
    """The report as a page; whatever comes from the logs is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("flows.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["kind"] = lambda block: type(block).__name__
    page = environment.get_template("report.html.j2")
    moments = sorted(artifact.manifest.made["at"] for artifact in told.artifacts.values())
    times = [f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M UTC}" for moment in moments]
    return page.render(name=told.name, times=times, figures=list(_figures(told)), sections=list(_sections(told)))


def _sections(told: Told) -> Iterator[Section]:
    from flows.output.tables import reuse_table
    from flows.report.accuracy import accuracy_section
    from flows.report.data import data_section
    from flows.report.evidence import evidence_section
    from flows.report.pairs import pairs_section
    from flows.report.results import cost_section, provenance_section, training_section

    yield data_section(told)
    if reused := reuse_table(told.artifacts):
        yield Section("Update", [reused, Note(_NOT_TAKEN)])
    sections = pairs_section, training_section, evidence_section, accuracy_section, cost_section, provenance_section
    for section in sections:
        yield section(told)


def _figures(told: Told) -> Iterator[tuple[str, str]]:
    """What a reader wants to know first: names and numbers."""
    artifacts = told.artifacts
    if INTERACTIONS.name in artifacts:
        yield "domains", number(len(told.sizes))
        yield "interactions", number(artifacts[INTERACTIONS.name].manifest.rows)
    if PAIRS.name in artifacts:
        yield "aligned pairs", number(artifacts[PAIRS.name].manifest.rows)
    if METRICS.name in artifacts:
        values = metric_values(artifacts[METRICS.name])
        for metric in metric_names(values):
            if (MACRO, metric) in values and metric.startswith(("auc", "full_recall", "full_ndcg")):
                yield f"mean test {metric}", number(values[MACRO, metric]["value"], 3)
    if told.costs:
        yield "seconds of work", number(sum(cost.seconds for cost in told.costs.values()))
