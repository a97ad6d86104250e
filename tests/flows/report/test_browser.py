"""A browser without a network shows a report and prints it."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from flows.report.html import write_report


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_without_a_network_shows_it_without_a_complaint(updated, tmp_path, scheme):
    page = write_report(updated, tmp_path / "page.html")
    shot, dark = tmp_path / "shot.png", scheme == "dark"
    scheme_option = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    messages = _chromium(page, f"--screenshot={shot}", "--window-size=1200,2000", scheme_option)
    assert "CONSOLE" not in messages
    pixels = imread(shot)[..., :3]
    paper = float(np.median(pixels))
    assert (paper < 0.2) == dark
    assert (paper > 0.9) == (not dark)
    assert 0.01 < float((np.abs(pixels - paper).max(axis=2) > 0.5).mean()) < 0.5


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_prints_it(run, tmp_path):
    page = write_report(run, tmp_path / "page.html")
    printed = _printed(page)
    assert printed[:5] == b"%PDF-"
    assert len(printed) > 20_000
    assert _pages(printed) <= 8
    page.write_text(page.read_text().replace("<details>", "<details open>"))
    assert _pages(_printed(page)) > _pages(printed), "what is unfolded is printed, what is folded is not"


def _printed(page: Path) -> bytes:
    target = page.with_suffix(".pdf")
    _chromium(page, f"--print-to-pdf={target}", "--no-pdf-header-footer")
    return target.read_bytes()


def _pages(pdf: bytes) -> int:
    return len(re.findall(rb"/Type /Page\b", pdf))


def _chromium(page: Path, *options: str) -> str:
    """What a browser without a profile of its own and without a network writes while it shows a page."""
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={page.parent / 'profile'}", *options,
    ]  # fmt: skip
    return subprocess.run([*command, page.as_uri()], capture_output=True, text=True, check=True, timeout=300).stderr
