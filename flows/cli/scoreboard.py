"""The command `scoreboard`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from data_contracts.store.files import write_atomically
from flows.cli.options import Options, Whole
from flows.compare.scoreboard import Board, is_page, means_table, picture, section, summary, update_page
from flows.config.presets import parse_baselines
from flows.config.run_config import RunSpec
from flows.output.console import print_result, terminal_width, watcher
from flows.tune.scoreboard import DATA_SETS, Contest, absence, make_board
from pipeline.logs.discovery import Digests

log = logging.getLogger(__name__)


def scoreboard(
    *runs: Path,
    trials: Annotated[Whole, Parameter(validator=Number(gte=0), metavar="N")] = 20,
    seeds: Annotated[str, Parameter(metavar="LIST")] = "2022,2023,2024",
    baselines: Annotated[str, Parameter(metavar="LIST")] = "all",
    skip: Annotated[str, Parameter(show_default=False, metavar="LIST")] = "",
    parallel: Annotated[Whole, Parameter(validator=Number(gte=1), metavar="N")] = 1,
    out: Annotated[Path, Parameter(metavar="FILE")] = Path("docs/scoreboard.md"),
    options: Options = Options(),
) -> None:
    """Tune, train and compare all models on several data sets, and write a page about it. Resumes where it stopped.

    Parameters
    ----------
    runs:
        TOML files; by default those of the package whose data are in $EDDA_DATA, and the demo.
    trials:
        trials that tune each model, on validation; 0 tunes none and uses the settings that `edda tune` has kept.
    seeds:
        seeds that each model is trained with.
    baselines:
        baselines to compare with: all, or a list.
    skip:
        baselines to leave out: --skip slim,ease.
    parallel:
        trials at a time, each in a process of its own.
    out:
        the page; sections of other data sets stay. Pictures go to the folder `pictures` beside it.
    """
    _require_page(out)
    contest = Contest(trials, _parse_seeds(seeds), parse_baselines(baselines, skip), parallel, options.uses_prefect)
    present, digests = dict[str, RunSpec](), Digests()
    for path in runs or [Path(str(files("flows") / "runs" / f"{name}.toml")) for name in DATA_SETS]:
        spec = options.spec(path)
        if reason := absence(spec, digests):
            print_result(f"{path.stem}: skipped, its data are not here: {'; '.join(reason.splitlines())}")
        elif (name := spec.config.name) in present:
            raise ValueError(f"{path}: two runs are called {name!r}; names must differ: set `name` in one of them")
        else:
            present[name] = spec
    if not present:
        raise FileNotFoundError("edda scoreboard: the data of no run are here; see `edda datasets`")
    for spec in present.values():
        board = make_board(spec, contest, watcher(), digests)
        _write(board, out)
        print_result(
            "\n".join([f"{board.name}: {out}", "", means_table(board).plain(terminal_width()), "", *summary(board)])
        )
        for line in board.left_out:
            print_result(f"CAUTION: {line}")


def _require_page(out: Path) -> None:
    """Refuse, before hours of work, a page that cannot be written, or would overwrite another file."""
    if out.is_dir():
        raise IsADirectoryError(f"--out {out}: is a folder, must be a file")
    if out.exists() and not is_page(out.read_text("utf-8", "replace")):
        raise FileExistsError(f"--out {out}: is there already and is no page of a scoreboard; name another file")


def _parse_seeds(text: str) -> Sequence[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise ValueError(f"--seeds is {text!r}, must be numbers, e.g. 2022,2023,2024")
    seeds = [int(word) for word in words]
    if len({*seeds}) < len(seeds):
        raise ValueError(f"--seeds is {text!r}, must be different numbers, e.g. 2022,2023,2024")
    return seeds


def _write(board: Board, out: Path) -> None:
    """Write a data set's picture and its section of the page."""
    image = out.parent / "pictures" / f"scoreboard-{board.name}.png"
    image.parent.mkdir(parents=True, exist_ok=True)
    page = out.read_text("utf-8", "surrogateescape") if out.exists() else ""
    text = section(board, image.relative_to(out.parent).as_posix())
    write_atomically(
        {image: picture(board), out: update_page(page, {board.name: text}).encode("utf-8", "surrogateescape")}
    )
