"""A report that cannot be written does not fail the run that is finished."""

from __future__ import annotations

import errno
import logging
import os

import pytest

from data_contracts.store.store import Store
from flows.report.keep import keep_report


@pytest.fixture
def failing(monkeypatch, tmp_path):
    """Let every report fail with an error of the operating system."""

    def fail_with(number: int) -> None:
        def write(_view) -> None:
            raise OSError(number, os.strerror(number), str(tmp_path / "report.html"))

        monkeypatch.setattr("flows.report.html.write_report", write)

    monkeypatch.setattr(logging.getLogger("flows"), "propagate", True)
    return fail_with


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_or_read_only_disk_is_said_in_one_line(tiny_run, tmp_path, failing, caplog, number):
    failing(number)
    keep_report("tiny", Store(tiny_run.store))
    (record,) = caplog.records
    assert record.getMessage().startswith(
        f"the run is finished, but not its report: {tmp_path / 'report.html'}: {os.strerror(number)}; "
    )
    assert record.getMessage().endswith("; then: edda report tiny")


def test_other_errors_are_errors(tiny_run, failing):
    failing(errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        keep_report("tiny", Store(tiny_run.store))
