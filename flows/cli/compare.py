"""Commands that compare several runs: `compare`, `tune`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from data_contracts.open_store import open_store
from flows.cli.options import Options, Whole, bring_up_to_date, report_nothing_to_do
from flows.compare.runs import cautions, evaluated_run
from flows.compare.tables import as_json, comparison_tables
from flows.config.presets import baseline_runs, other_evidence, parse_baselines, variant_run, with_walks
from flows.config.run_config import RunSpec, store_location
from flows.orchestration.up_to_date import Refusal, bring_each_up_to_date
from flows.output.console import print_result, terminal_width, watcher
from flows.runner.execute import Outcome
from flows.runner.lookup import RunView, build_view
from flows.tune.models import Tuned, compared_models, models_table, trials_table, tune_model, tune_models
from flows.tune.search import best_trial
from flows.tune.validation import as_options, build_search
from pipeline.logs.discovery import Digests


def compare(
    *runs: str,
    variant: Annotated[tuple[str, ...], Parameter(negative="", show_default=False, metavar="KEY=VALUE")] = (),
    baselines: Annotated[str, Parameter(show_default=False, metavar="LIST")] = "",
    skip: Annotated[str, Parameter(show_default=False, metavar="LIST")] = "",
    evidence: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    json_: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False,
    markdown: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    options: Options = Options(),
) -> None:
    """Bring runs up to date and print their test metrics side by side, with the settings that differ.

    Parameters
    ----------
    runs:
        TOML files, or names of runs that the store has.
    variant:
        further overrides of the first file, e.g. "train.alignment=0 train.width=32": one more run; may be repeated.
    baselines:
        compare the first file's run with all baselines, or with a list: --baselines ease,ials. Their vectors
        rank alone.
    skip:
        baselines to leave out: --baselines --skip slim,ease.
    evidence:
        compare also the first file's run without evidence from walks, or with it if it has none, and every baseline
        with that evidence.
    json_:
        print JSON.
    markdown:
        print Markdown.
    """
    files = [options.spec(Path(run)) for run in runs if run.endswith(".toml")]
    if not runs or (not files and (variant or baselines or evidence)):
        raise ValueError(
            "edda compare: there must be a run's TOML file, or, without --variant, --baselines and --evidence, a name"
        )
    if not files and (options.set or options.update):
        raise ValueError("edda compare: --set and --update need a run's TOML file")
    variants = _variants(files[0], variant, evidence) if files else []
    opponents = _baselines(files[0], parse_baselines(baselines, skip), evidence) if files else []
    views, not_made = _evaluate_runs(runs, [*files, *variants], opponents, options)
    if json_:
        print_result(json.dumps({**as_json(views), "not_made": not_made}, indent=2, ensure_ascii=False))
        return
    tables = comparison_tables(views, not_made)
    print_result("\n\n".join(table.markdown() if markdown else table.plain(terminal_width()) for table in tables))
    for warning in cautions(views):
        print_result(f"\nCAUTION: {warning}")


def tune(
    *runs: Path,
    baselines: Annotated[str, Parameter(show_default=False, metavar="LIST")] = "",
    skip: Annotated[str, Parameter(show_default=False, metavar="LIST")] = "",
    trials: Annotated[Whole | None, Parameter(validator=Number(gte=1), metavar="N")] = None,
    parallel: Annotated[Whole, Parameter(validator=Number(gte=1), metavar="N")] = 1,
    options: Options = Options(),
) -> None:
    """Search for the settings that validate best; several runs are judged by their mean. Resumes where it stopped.

    Parameters
    ----------
    runs:
        TOML files; [tune] of the first says what is searched and how long. The test split is never looked at.
    baselines:
        tune all baselines, too, or a list: --baselines ease,ials. Each has as many trials as the runs themselves.
    skip:
        baselines to leave out: --baselines --skip slim,ease.
    trials:
        trials of each model, in place of tune.trials.
    parallel:
        trials at a time, each in a process of its own. With several, which trials are drawn depends on their
        durations, too.
    """
    if not runs:
        raise ValueError("edda tune: there must be at least one run's TOML file")
    changes = [] if trials is None else [f"tune.trials={trials}"]
    specs = [options.spec(run).with_overrides(*changes) for run in runs]
    names = parse_baselines(baselines, skip)
    own, *others = compared_models(specs, names)
    search = build_search(specs)
    tuned = tune_model(own, search, watcher(), parallel)
    _show_trials(runs, tuned)
    results = list(tune_models(others, watcher(), parallel))
    if names:
        print_result("\n" + models_table([tuned, *results]).plain(terminal_width()))


def _show_trials(runs: Sequence[Path], tuned: Tuned) -> None:
    best = best_trial(tuned.trials)
    print_result(trials_table(tuned.trials, tuned.model.runs[0].config.train.score).plain(terminal_width()))
    print_result(f"\nBest of {len(tuned.trials)}: trial {best.number + 1}, validation score {best.score:.5f}")
    for run in runs:
        print_result(f"  edda run {run} {as_options(best.values)}")


def _variants(first: RunSpec, changes: Sequence[str], evidence: bool) -> list[RunSpec]:
    """The first file's run with changes, and without evidence from walks, or with it, if asked."""
    variants = [variant_run(first, shlex.split(change)) for change in changes]
    return [*variants, *([other_evidence(first)] if evidence else [])]


def _baselines(first: RunSpec, names: Sequence[str], evidence: bool) -> list[RunSpec]:
    """Baselines of the first file's run, each also with evidence from walks if asked."""
    runs = baseline_runs(first, names)
    return [beside for run in runs for beside in (run, *(with_walks(run) if evidence else []))]


def _evaluate_runs(
    runs: Sequence[str], specs: Sequence[RunSpec], opponents: Sequence[RunSpec], options: Options
) -> tuple[list[RunView], dict[str, str]]:
    """Bring specs and opponents up to date.

    Returns:
        The given runs, files and names, in their order, then the remaining specs, then the opponents that can be made;
        and name → reason of those that cannot.
    """
    digests, prefect = Digests(), options.uses_prefect
    outcomes = bring_up_to_date(specs, options, "evaluate", quietly=True, digests=digests) if specs else []
    results = bring_each_up_to_date(opponents, "evaluate", watcher(), prefect=prefect, digests=digests)
    made = [result for result in results if isinstance(result, Outcome)]
    if specs:
        report_nothing_to_do([*outcomes, *made])
    store, remaining = open_store(options.store or store_location()), iter(outcomes)
    views = [build_view(next(remaining)) if run.endswith(".toml") else evaluated_run(run, store) for run in runs]
    not_made = {result.name: result.reason for result in results if isinstance(result, Refusal)}
    return [*views, *map(build_view, [*remaining, *made])], not_made
