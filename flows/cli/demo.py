"""The command `demo`: compares the product's ranking with simpler ones, and counts the planted twins that it finds."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from data_contracts.contracts import METRICS
from data_contracts.store.artifact import Artifact
from flows.cli.options import Options, bring_up_to_date, report_nothing_to_do
from flows.cli.run import recommend_command
from flows.config.presets import BASELINES, VECTORS_ALONE
from flows.config.run_config import DEFAULT_STORE, RunSpec
from flows.output.console import print_result, terminal_width
from flows.output.tables import Table, artifacts_table, domain_sizes, metric_names, metric_values, ordered_domains
from flows.output.twins import twins_table
from flows.runner.execute import Outcome
from flows.runner.lookup import report_path

RUN = Path(str(files("flows") / "runs" / "demo.toml"))

PRODUCT = "EDDA"
"""Name of the demo's own run in the comparison."""

_COMPARED = {
    "popularity": ("name=demo-popularity", *BASELINES["popularity"], VECTORS_ALONE),
    "walks alone": ("name=demo-walks", *BASELINES["walks"]),
    "each domain alone": ("name=demo-alone", "train.tables=intra", "train.alignment=0", "neighbours.scope=domain"),
    PRODUCT: (),
}


def demo_runs(run: RunSpec) -> dict[str, RunSpec]:
    """The runs that the demo compares, from the simplest to the product."""
    return {name: run.with_overrides(*changes) for name, changes in _COMPARED.items()}


def ranking_table(compared: Mapping[str, Mapping[str, Artifact]]) -> Table:
    """Recall and NDCG of the test split among all items, of several runs on the same interactions.

    Args:
        compared: name of a run → its artifacts by role.
    """
    *_, last = compared.values()
    *_, last_values = values_by_run = [metric_values(artifacts[METRICS.name]) for artifacts in compared.values()]
    sizes = domain_sizes(last)
    names = [name for name in metric_names(last_values) if name.startswith(("full_recall@", "full_ndcg@"))][:2]
    rows = []
    for domain in ordered_domains(last_values, sizes):
        cells = [" / ".join(f"{values[domain, name]['value']:.3f}" for name in names) for values in values_by_run]
        rows.append((domain, f"{sizes[domain]:,}" if domain in sizes else "", *cells))
    title = f"Test split, all items of a domain ranked: {' / '.join(names)}"
    return Table(title, ("domain", "interactions", *compared), tuple(rows))


def what_next(run: Outcome) -> str:
    """Commands to try on the finished demo."""
    store = run.plan.store
    option = "" if store.root == Path.cwd() / DEFAULT_STORE else f" --store {store}"
    return f"""\
What next (put .venv/bin on the PATH: export PATH="$PWD/.venv/bin:$PATH")
  edda inspect demo/pairs --head 5{option}
  {recommend_command(run)}
  edda inspect demo --sql "select kind, rank, count(*), avg(similarity) from pairs group by all order by all"{option}
  edda config > my.toml      every key with its meaning; point [[logs]] at your own files, then: edda run my.toml"""


def demo(*, options: Options = Options()) -> None:
    """Run the pipeline on a generated world and compare it with simpler recommenders.

    These are popularity, walks alone, and each domain alone, on the same interactions.
    """
    compared = demo_runs(options.spec(RUN))
    *simpler, product = compared.values()
    outcomes = bring_up_to_date(simpler, options, "evaluate", quietly=True)
    outcomes += bring_up_to_date([product], options, quietly=True)
    report_nothing_to_do(outcomes)
    run, keys = outcomes[-1], {outcome.plan.steps[role].key for outcome in outcomes for role in outcome.made}
    made = [role for role, artifact in run.artifacts.items() if artifact.key in keys]
    print_result(artifacts_table(run.config.name, run.artifacts, made).plain(terminal_width()) + "\n")
    if "pairs" in run.artifacts:
        print_result(twins_table(run.artifacts, run.config.pairs.k).plain(terminal_width()) + "\n")
    named = zip(compared, outcomes, strict=True)
    print_result(ranking_table({name: outcome.artifacts for name, outcome in named}).plain(terminal_width()) + "\n")
    print_result(what_next(run))
    print_result(f"Report: {report_path(run.plan.store.root, run.config.name)}")
