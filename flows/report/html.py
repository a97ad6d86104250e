"""The report of a run: one self-contained HTML file in the run's folder in the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from data_contracts.contracts import INTERACTIONS, MACRO, METRICS, PAIRS
from data_contracts.store.files import require_writable, write_alone
from flows.output.characters import escape
from flows.output.tables import metric_names, metric_values, reuse_table
from flows.report.accuracy import accuracy_sections
from flows.report.blocks import Note, Section, number
from flows.report.data import data_section
from flows.report.evidence import evidence_section
from flows.report.experiments import experiments_section
from flows.report.pairs import pairs_section
from flows.report.results import cost_section, provenance_section, training_section
from flows.report.terms import TERMS, explain_terms
from flows.runner.lookup import RunView, report_path

_DOCTYPE = b"<!DOCTYPE html>"
"""Every report begins with it."""
_UPDATED = "This run continued from an earlier one: what that knew was kept, and the rest was made anew."
_NOT_TAKEN = (
    "What was not taken was made anew: vectors of nodes by walking, pairs of two domains by comparing nodes, rows of "
    "tables from their neighbours' or by drawing. Interactions and graphs are always made anew."
)


def write_report(view: RunView, output: Path | None = None, against: Sequence[str] | None = None) -> Path:
    """Write a run's report.

    Args:
        view: the run, finished or not.
        output: the file; by default in the run's folder in the store.
        against: names of runs to compare it with; by default all of the store on the same interactions.

    Returns:
        Where it is.

    Raises:
        ValueError: the run has no artifact yet, or the file is a folder.
        FileExistsError: the file is there already and is not an HTML page.
        PermissionError: the file's folder is read-only.
    """
    if not view.artifacts:
        raise ValueError(f"run {view.name!r} has made nothing yet; start it with: edda run RUN.toml")
    path = output or report_path(view.store.root, view.name)
    if path.is_dir():
        raise ValueError(f"{path}: is a folder, must be a file")
    if output and path.exists() and path.stat().st_size and not path.read_bytes().startswith(_DOCTYPE):
        raise FileExistsError(f"{path}: is there already and is no report; name another file by --output")
    path.parent.mkdir(parents=True, exist_ok=True)
    require_writable(path.parent, f"keep {path.name}", "name another file by --output")
    write_alone(path, as_html(view, against).encode("utf-8", "backslashreplace"))
    return path


def as_html(view: RunView, against: Sequence[str] | None = None) -> str:
    """The report as a page; all text from the logs is escaped."""
    environment = Environment(
        loader=PackageLoader("flows.report", "."),
        autoescape=True,
        finalize=_escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["explained"] = lambda text: explain_terms(escape(text, "\n\t"))
    page = environment.get_template("report.html.j2")
    moments = sorted(artifact.manifest.made["at"] for artifact in view.artifacts.values())
    times = [f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M UTC}" for moment in moments]
    sections = list(_sections(view, against))
    return page.render(name=view.name, times=times, figures=list(_figures(view)), sections=sections, terms=TERMS)


def _escaped(value: object) -> object:
    """Text without control and bidirectional characters, which a page would hide or turn around."""
    return type(value)(escape(value, "\n\t")) if isinstance(value, str) else value


def _sections(view: RunView, against: Sequence[str] | None) -> Iterator[Section]:
    yield data_section(view)
    if reused := reuse_table(view.artifacts):
        yield Section("Update", [reused, Note(_NOT_TAKEN)], _UPDATED)
    for section in (pairs_section, training_section, evidence_section):
        yield section(view)
    yield from accuracy_sections(view, against)
    if (experiments := experiments_section(view)).blocks:
        yield experiments
    yield cost_section(view)
    yield provenance_section(view)


def _figures(view: RunView) -> Iterator[tuple[str, str]]:
    """The numbers at the top of the page, with their names."""
    artifacts = view.artifacts
    if INTERACTIONS.name in artifacts:
        yield "domains", number(len(view.sizes))
        yield "interactions", number(artifacts[INTERACTIONS.name].manifest.rows)
    if PAIRS.name in artifacts:
        yield "aligned pairs", number(artifacts[PAIRS.name].manifest.rows)
    if METRICS.name in artifacts:
        values = metric_values(artifacts[METRICS.name])
        for metric in metric_names(values):
            if (MACRO, metric) in values and metric.startswith(("auc", "full_recall", "full_ndcg")):
                yield f"{MACRO} test {metric}", number(values[MACRO, metric]["value"], 3)
    if view.costs:
        yield "seconds of work", number(sum(cost.seconds for cost in view.costs.values()))
