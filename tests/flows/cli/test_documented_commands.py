"""Commands in the README and the manual exist and take the options that they are shown with."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[3] / "docs" / "console_blocks.py"


@pytest.fixture(scope="module")
def blocks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("console_blocks", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "console_blocks", module)
        spec.loader.exec_module(module)
    return module


def test_every_documented_command_can_be_called(blocks: ModuleType) -> None:
    assert len([*blocks.commands(SCRIPT.parent / "usage.md")]) >= 20
    assert [*blocks.problems()] == []


def test_a_command_or_option_that_does_not_exist_is_found(blocks: ModuleType, tmp_path: Path, monkeypatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "    edda run my.toml   # fine\n    edda rnu my.toml\n$ edda config > my.toml\n$ edda status x --hed 3\n"
    )
    monkeypatch.setattr(blocks, "PAGES", (page,))
    monkeypatch.setattr(blocks, "BLOCKS", ())
    wrong, option = blocks.problems()
    assert wrong == f"{page}:2: there is no command 'rnu'"
    assert option.startswith(f"{page}:4: Unknown option: --hed")
