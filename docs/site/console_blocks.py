"""Blocks of the README and the tutorial that show what commands print.

    python docs/site/console_blocks.py          # check: commands exist and take these options, the README shows what
                                                # the tutorial does
    python docs/site/console_blocks.py --write  # run the commands on the demo in a temporary store, write the blocks

A block that is written begins with the same words as before; the rest of it is what the command prints now. The README
has the tutorial's recommendations, shortened to its width. Blocks that are abridged by hand are only checked.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cyclopts import CycloptsError

from flows.cli.arguments import fill_in_baselines
from flows.cli.main import COMMANDS, app

DOCS = Path(__file__).parents[1]
PAGES = (DOCS.parent / "README.md", DOCS / "tutorial.md", DOCS / "usage.md")
_COMMAND = re.compile(r"^(?:    |\$ )(?:[A-Z_]+=\S+ )?(?:\.venv/bin/)?edda ([a-z].*?)(?:  +#.*| (?:&&|>|\|) .*)?$")


@dataclass(frozen=True)
class Block:
    """A block: its page, how its first line begins, the command that prints it, and the pattern of what is shown."""

    page: Path
    first: str
    command: str
    shown: str = r".*"


RECOMMENDED = Block(DOCS / "tutorial.md", "1\twest-i", "recommend demo --domain west --user west-u000299 --top 3 --why")
BLOCKS = (
    Block(DOCS / "tutorial.md", "Artifacts in edda-store/runs/demo/\n", "demo", r"Artifacts in .*?\n(?=\nWhat next)"),
    Block(
        DOCS / "tutorial.md", "Artifacts in edda-store/runs/demo-k1/\n",
        f"align {DOCS.parent}/flows/runs/demo.toml --set name=demo-k1 --set pairs.k=1",
    ),
    RECOMMENDED,
)  # fmt: skip
README, FIRST_OF_README = DOCS.parent / "README.md", "    1  west-i"
"""The page that has the recommendations, too, shortened and indented; and how the block begins there."""


def for_readme(printed: str) -> str:
    """Recommendations with their reasons as the README shows them: two reasons of each, two spaces for tabs."""
    shortened = re.sub(r"(because of [^;\n]*? %, [^;\n]*? %), [^;\n]+", r"\1, …", printed.rstrip("\n"))
    return "".join(f"    {line}\n" for line in shortened.replace("\t", "  ").splitlines())


def text_of(page: Path, first: str) -> str:
    """A block's text: to the end of a fenced block, or to the empty line after an indented one; empty if not there."""
    _, begin, rest = page.read_text(encoding="utf-8").partition(f"\n{first}")
    return begin[1:] + rest.partition("\n\n" if first.startswith("    ") else "\n```")[0] + "\n" if begin else ""


def commands(page: Path) -> Iterator[tuple[int, str]]:
    """Line number and arguments of each `edda` command in a page's blocks."""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if match := _COMMAND.match(line):
            yield number, match[1].rstrip("\\ ")


def problems() -> Iterator[str]:
    """Commands that do not exist or do not take their options, and blocks that are not there."""
    for page in PAGES:
        for number, command in commands(page):
            arguments = shlex.split(command)
            if arguments[0] not in COMMANDS:
                yield f"{page}:{number}: there is no command {arguments[0]!r}"
                continue
            try:
                app.parse_args(fill_in_baselines(arguments), exit_on_error=False, print_error=False)
            except CycloptsError as error:
                yield f"{page}:{number}: {error}"
    for page, first in [*((block.page, block.first) for block in BLOCKS), (README, FIRST_OF_README)]:
        if not text_of(page, first):
            yield f"{page}: no block begins with {first!r}"
    if text_of(README, FIRST_OF_README) != for_readme(text_of(RECOMMENDED.page, RECOMMENDED.first)):
        yield f"{README}: the block {FIRST_OF_README!r} differs from that of {RECOMMENDED.page}; see --write"


def write() -> None:
    """Run the commands of all blocks, one after another, and replace the blocks."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "EDDA_STORE": f"{folder}/edda-store", "PYTHONPATH": str(DOCS.parent)}
        for block in BLOCKS:
            command = [sys.executable, "-m", "flows.cli", *shlex.split(block.command)]
            done = subprocess.run(command, env=environment, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
            printed = done.stdout.replace(f"{folder}/", "")
            match = re.search(block.shown, printed, re.DOTALL)
            if match is None:
                raise ValueError(f"edda {block.command} prints nothing like {block.shown!r}")
            replace_block(block.page, block.first, match[0].rstrip("\n") + "\n")
    replace_block(README, FIRST_OF_README, for_readme(text_of(RECOMMENDED.page, RECOMMENDED.first)))


def replace_block(page: Path, first: str, text: str) -> None:
    """Write a block's text in place of what a page has there."""
    before = text_of(page, first)
    if not before:
        raise ValueError(f"{page}: no block begins with {first!r}")
    whole = page.read_text(encoding="utf-8").replace(f"\n{before}", f"\n{text}", 1)
    page.write_text(whole, encoding="utf-8")


def main() -> None:
    """Check or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        write()
    if found := list(problems()):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
