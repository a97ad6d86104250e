"""Commands in the README and the manual exist and take the options that they are shown with."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[3] / "docs" / "site" / "console_blocks.py"


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
    assert len([*blocks.commands(blocks.DOCS / "usage.md")]) >= 20
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


def test_the_readme_has_the_tutorials_recommendations_with_two_reasons_each(blocks: ModuleType) -> None:
    printed = (
        "1\ta\t1.5\tbecause of b (x) 7 %, c (x) 6 %, d (y) 5 %; vectors 4 %, evidence 96 %\n"
        "2\te\t1.0\tbecause of f (x) 9 %, g (x, y) 1 %; vectors 1 %, evidence 99 %\n"
    )
    assert blocks.for_readme(printed) == (
        "    1  a  1.5  because of b (x) 7 %, c (x) 6 %, …; vectors 4 %, evidence 96 %\n"
        "    2  e  1.0  because of f (x) 9 %, g (x, y) 1 %; vectors 1 %, evidence 99 %\n"
    )


def test_a_readme_that_shows_something_else_is_found_and_written(
    blocks: ModuleType, tmp_path: Path, monkeypatch
) -> None:
    page = tmp_path / "README.md"
    page.write_text(
        "It prints\n\n    1  west-i0 0.1  because of nothing\n    2  west-i1\n\nand more.\n", encoding="utf-8"
    )
    monkeypatch.setattr(blocks, "README", page)
    (problem,) = blocks.problems()
    assert problem.startswith(f"{page}: the block '    1  west-i' differs from that of ")
    shown = blocks.for_readme(blocks.text_of(blocks.RECOMMENDED.page, blocks.RECOMMENDED.first))
    blocks.replace_block(page, blocks.FIRST_OF_README, shown)
    assert page.read_text(encoding="utf-8") == f"It prints\n\n{shown}\nand more.\n"
    assert [*blocks.problems()] == []
