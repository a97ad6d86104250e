"""Commands that set runs side by side: `compare`, `tune`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.cli.options import Options, up_to_date
from flows.output.console import answer, watcher

if TYPE_CHECKING:
    from flows.compare.runs import Compared
    from flows.config.presets import Run


def compare(
    *runs: str,
    variant: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    baselines: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    evidence: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    json_: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False,
    markdown: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    options: Options = Options(),
) -> None:
    """Bring runs up to date and print their test metrics side by side, and what sets them apart from the first.

    Parameters
    ----------
    runs:
        TOML files, or names of runs that the store has.
    variant:
        further overrides of the first file, e.g. "train.alignment=0 train.width=32": one more run; may be repeated.
    baselines:
        compare the first file's run with all baselines, whose vectors rank alone.
    evidence:
        compare it also with itself without evidence from walks, or with it; every baseline with that evidence, too.
    json_:
        print JSON.
    markdown:
        print Markdown.
    """
    from flows.compare.runs import cautions
    from flows.compare.tables import as_json, comparison_tables

    files: list[Run] = [(Path(run), options.overrides) for run in runs if run.endswith(".toml")]
    if not runs or (not files and (variant or baselines or evidence)):
        raise ValueError(
            "edda compare: there must be a run's TOML file, or, without --variant, --baselines and --evidence, a name"
        )
    more = _variants(files[0], variant, baselines, evidence) if files else []
    found = _compared(runs, [*files, *more], options)
    if json_:
        answer(json.dumps(as_json(found), indent=2, ensure_ascii=False))
        return
    tables = comparison_tables(found)
    answer("\n\n".join(table.markdown() if markdown else table.plain() for table in tables))
    for caution in cautions(found):
        answer(f"\nCAUTION: {caution}")


def tune(*runs: Path, options: Options = Options()) -> None:
    """Search for the settings that validate best; several runs are judged by their mean. Goes on where it stopped.

    Parameters
    ----------
    runs:
        TOML files; [tune] of the first says what is searched and how long. The test split is never looked at.
    """
    from flows.config.run_config import load_config
    from flows.tune import as_options, best_of, search_settings, trials_table

    if not runs:
        raise ValueError("edda tune: there must be at least one run's TOML file")
    trials = search_settings([(run, options.overrides) for run in runs], watcher())
    best = best_of(trials)
    answer(trials_table(trials, load_config(runs[0], options.overrides).train.score).plain())
    answer(f"\nBest of {len(trials)}: trial {best.number + 1}, validation score {best.score:.5f}")
    for run in runs:
        answer(f"  edda run {run} {as_options(best.values)}")


def _variants(first: Run, changes: Sequence[str], baselines: bool, evidence: bool) -> list[Run]:
    """What is compared with the first file's run: changed, baselines, all of them with and without walks."""
    from flows.config.presets import baseline_runs, other_evidence, variant_run, with_walks

    more = [variant_run(first, shlex.split(change)) for change in changes]
    more += [other_evidence(first)] if evidence else []
    for run in baseline_runs(first) if baselines else ():
        more += [run, *(with_walks(run) if evidence else [])]
    return more


def _compared(runs: Sequence[str], files: Sequence[Run], options: Options) -> list[Compared]:
    """The named runs, files brought up to date, then those of further files."""
    from data_contracts.open_store import open_store
    from flows.compare.runs import finished, recorded
    from flows.config.run_config import store_place

    made = iter(up_to_date(files, options, "evaluate") if files else ())
    store = open_store(options.store or store_place())
    found = [finished(next(made)) if run.endswith(".toml") else recorded(run, store) for run in runs]
    return [*found, *map(finished, made)]
