"""Keep a run's report up to date; matplotlib and SciPy are imported only when it is written."""

from __future__ import annotations

import errno
import logging

from data_contracts.store.store import Store
from flows.runner.failures import describe_error
from flows.runner.lookup import recorded_run, report_path

log = logging.getLogger(__name__)

_CANNOT_BE_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def keep_report(name: str, store: Store) -> None:
    """Write a recorded run's report if there is none, or if it is older than the run's record.

    Nothing is fetched: if an artifact is only on object storage, no report is written, but `edda report` does it.
    """
    path, record = report_path(store.root, name), store.root / "runs" / name / "run.json"
    if path.exists() and record.exists() and path.stat().st_mtime >= record.stat().st_mtime:
        return
    view = recorded_run(name, store)
    if all(artifact.is_local for artifact in view.artifacts.values()):
        from flows.report.html import write_report  # matplotlib and SciPy

        try:
            write_report(view)
        except OSError as error:
            if error.errno not in _CANNOT_BE_WRITTEN and not isinstance(error, PermissionError):
                raise
            log.warning(
                "the run is finished, but not its report: %s; then: edda report %s", describe_error(error), name
            )
