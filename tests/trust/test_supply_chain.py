"""The lock file has the pinned versions, each with the digests of its files, and no address."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD_ONLY = {"ninja", "wheel", "types-psutil"}
"""Pinned for `make sparse` and for types; nothing that is installed depends on them."""


def _locked() -> dict[str, tuple[str, list[str]]]:
    """Version and digests by package."""
    text = (ROOT / "requirements.lock").read_text()
    entries = re.findall(r"^([\w.-]+)==([^\s;]+)[^\\\n]*((?:\\\n +--hash=\S+ ?)+)", text, re.MULTILINE)
    return {name: (version, re.findall(r"--hash=(\S+)", hashes)) for name, version, hashes in entries}


def test_every_pinned_package_is_locked_at_its_version():
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    locked = {name: version for name, (version, _) in _locked().items()}
    assert len(pinned) > 150
    wrong = {name: version for name, version in pinned.items() if locked.get(name) != version}
    assert set(wrong) <= BUILD_ONLY


def test_every_locked_package_has_digests_and_no_address():
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert sum("==" in line for line in lines) == len(_locked())
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for _, digests in _locked().values() for digest in digests)
    assert not [
        line for line in lines if "://" in line or line.lstrip().startswith(("-i", "--index", "--extra", "--find"))
    ]
