"""Keep a run's report up to date; what draws it is imported only when it is written."""

from __future__ import annotations

from data_contracts.store.store import Store
from flows.runner.lookup import recorded_run, report_path


def keep_report(name: str, store: Store) -> None:
    """Write a recorded run's report where there is none, or one that is older than the run's record.

    Nothing is fetched for it: where an artifact is on object storage only, `edda report` writes it.
    """
    path, record = report_path(store.root, name), store.root / "runs" / name / "run.json"
    if path.exists() and record.exists() and path.stat().st_mtime >= record.stat().st_mtime:
        return
    view = recorded_run(name, store)
    if all(artifact.is_here for artifact in view.artifacts.values()):
        from flows.report.html import write_report  # matplotlib and SciPy

        write_report(view)
