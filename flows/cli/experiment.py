"""The command `experiment`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import tomli_w
from cyclopts import Parameter
from cyclopts.validators import Number

from data_contracts.open_store import open_store
from data_contracts.store.files import write_atomically
from flows.cli.options import Options, Whole
from flows.compare.effect_tables import MARKS, experiment_tables
from flows.compare.experiments import experiment_run, require_cutoff
from flows.config.run_config import store_location
from flows.experiments.cases import Bench, Case
from flows.experiments.page import experiment_page, experiment_plot
from flows.experiments.registry import EXPERIMENTS
from flows.experiments.results import run_cases
from flows.output.console import print_result, watcher

Name = Literal[
    "gradient-conflict", "overlap", "oracle-twins", "depth-or-alignment", "domain-count", "building-blocks",
    "small-domains", "walk-quality",
]  # fmt: skip

SMALL_WORLD = {
    "name": "small",
    "world": {"domains": 3, "users": 400, "items": 240, "interactions": 8_000, "twins": 0.2},
    "train": {"width": 32, "intra_width": 16, "epochs": 8, "patience": 8, "learning_rate": 2e-2, "batch_size": 1024},
    "compute": {"threads": 1},
}
"""A generated world whose runs take seconds."""

_FIRST_SEED = 2022


def experiment(
    name: Name | None = None,
    run: Path | None = None,
    /,
    *,
    small: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    seeds: Annotated[Whole | None, Parameter(validator=Number(gte=1), metavar="N")] = None,
    only: Annotated[tuple[str, ...], Parameter(negative="", show_default=False, metavar="TEXT")] = (),
    out: Annotated[Path | None, Parameter(metavar="FOLDER")] = None,
    options: Options = Options(),
) -> None:
    """Answer a question about the method by the runs of an experiment. Resumes where it stopped.

    Parameters
    ----------
    name:
        name of the experiment; without it all are listed.
    run:
        TOML file of the run that is varied.
    small:
        few cases on a small generated world, in place of a run; ends within a minute or two.
    seeds:
        number of training seeds, from 2022 on; by default 3, with --small 2.
    only:
        run only cases whose label has this text, e.g. "evidence = on", or one of several, e.g. "= apart|= twins
        merged"; if repeated, all of them.
    out:
        folder of the page and its picture; by default <store>/experiments/<run>/<experiment>.
    """
    if name is None:
        for each, known in EXPERIMENTS.items():
            print_result(f"{each:<20} {known.question}")
        return
    if (run is None) != small:
        raise ValueError(f"edda experiment {name}: needs a run's TOML file or --small, and not both")
    if not all(part.strip() for text in only for part in text.split("|")):
        raise ValueError(f"--only {' --only '.join(map(repr, only))}: has an empty part, which is in every label")
    if out and out.exists() and not out.is_dir():
        raise NotADirectoryError(f"--out {out}: is a file, must be a folder")
    path = run or _small_run(options)
    given = options.spec(path)
    require_cutoff(given.config, f"edda experiment {name}")
    chosen = [_FIRST_SEED + n for n in range(seeds or (2 if small else 3))]
    label, asked = experiment_run(given.config.name, name), EXPERIMENTS[name]
    bench = Bench(given.with_overrides(f"name={label}", f"train.seeds={chosen}"), watcher(), options.uses_prefect)
    results = run_cases(name, asked.design, _chosen(asked.cases(bench, small), only), bench)
    folder = out or bench.store.root / "experiments" / label
    folder.mkdir(parents=True, exist_ok=True)
    page, picture = folder / f"{label}.md", folder / f"{label}.png"
    text = experiment_page(results, asked.design, picture.name)
    write_atomically({picture: experiment_plot(results, asked.design), page: text.encode()})
    for table in experiment_tables(results, asked.design):
        print_result(f"{table.plain()}\n")
    print_result(f"{MARKS}\n")
    print_result(f"Page: {page}\nPlot: {picture}\nData: {results.address}")


def _chosen(cases: Iterator[Case], wanted: tuple[str, ...]) -> Iterator[Case]:
    """The cases whose labels have all texts; of a text with `|` they have one of its parts.

    Raises:
        ValueError: none has, after the last.
    """
    labels, chosen = [], 0
    for case in cases:
        labels.append(case.label)
        if all(any(part in case.label for part in text.split("|")) for text in wanted):
            chosen += 1
            yield case
    if not chosen:
        raise ValueError(f"--only {' --only '.join(map(repr, wanted))}: is in no case's label: {', '.join(labels)}")


def _small_run(options: Options) -> Path:
    """The file of the small world's run, written into the store's folder of experiments."""
    path = open_store(options.store or store_location()).root / "experiments" / "small.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically({path: tomli_w.dumps(SMALL_WORLD).encode()})
    return path
