"""The report's section on experiments: those with the run, and no others."""

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from tiny_world import TinyRun

from data_contracts.contracts import EXPERIMENT
from data_contracts.store.draft import Draft
from data_contracts.store.runs import RunRecord
from data_contracts.store.store import Store
from flows.output.tables import Table
from flows.report.blocks import Note, Plots
from flows.report.experiments import experiments_section
from flows.report.html import as_html
from flows.runner.lookup import RunView

QUESTION = "Does <overlap> pay?"


def add_results(store: Store, run: str, experiment: str, question: str = QUESTION) -> None:
    """Link results of two cases and two seeds into an experiment's run."""
    cases = [("shared = 0 %", 0.1), ("shared = 100 %", 0.3)]
    rows = [
        (case, seed, "macro", "all", "full_ndcg@20", value + seed / 100) for case, value in cases for seed in (1, 2)
    ]

    def write(draft: Draft) -> None:
        draft.write(pa.table(list(map(pa.array, zip(*rows, strict=True))), EXPERIMENT.file_schema))
        if question:
            draft.statistics |= {
                "question": question, "compared": [["shared", "0 %"]], "along": "shared", "measures": ["full_ndcg@20"],
                "by_domain": [],
            }  # fmt: skip

    results = store.make(EXPERIMENT, {"experiment": experiment, "of": run, "question": question}, {}, write)
    store.link_run(RunRecord.build(run, {}))
    store.link(run, EXPERIMENT.name, results)


@pytest.fixture
def view(tiny_run: TinyRun, tmp_path: Path) -> RunView:
    shutil.copytree(tiny_run.store, tmp_path / "store", symlinks=True)
    store = Store(tmp_path / "store")
    return RunView("tiny", store, {}, {})


def test_a_run_without_experiments_has_no_section(view: RunView) -> None:
    assert not experiments_section(view).blocks


def test_experiments_with_the_run_are_shown_and_others_are_not(view: RunView) -> None:
    add_results(view.store, "tiny-overlap", "overlap")
    add_results(view.store, "tiny-x-overlap", "overlap", "of another run")
    add_results(view.store, "tiny-depth", "depth", "")  # by a version that kept no question
    section = experiments_section(view)
    notes = [block.text for block in section.blocks if isinstance(block, Note)]
    assert notes[0] == f"overlap: {QUESTION}"
    assert section.lead == "Questions that were answered by variants of this run: overlap."
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    assert table.rows == (("shared: 100 % − 0 %", "+0.2000"),)  # no seed changes it
    (plots,) = [block for block in section.blocks if isinstance(block, Plots)]
    assert "full_ndcg@20: shared, less 0 %" in plots.svgs[0]


def test_an_experiments_own_run_shows_it_too(view: RunView) -> None:
    add_results(view.store, "tiny-overlap", "overlap")
    assert experiments_section(RunView("tiny-overlap", view.store, {}, {})).blocks


def test_questions_are_escaped_in_the_page(view: RunView, tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    add_results(view.store, "tiny-overlap", "overlap")
    sections = [experiments_section(view)]
    monkeypatch.setattr("flows.report.html._sections", lambda *_: sections)
    page = as_html(RunView("tiny", view.store, {}, tiny_run.artifacts))
    assert "Does &lt;overlap&gt; pay?" in page
    assert 'href="#experiments"' in page
