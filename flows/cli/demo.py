"""What the demo shows: how well the product ranks beside simpler ones, and how many planted twins the pairs find."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from data_contracts.contracts import MACRO, METRICS
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from flows.cli.options import Options, bring_up_to_date, say_where_nothing_was_made
from flows.config.presets import BASELINES, VECTORS_ALONE
from flows.config.run_config import DEFAULT_STORE, RunSpec
from flows.output.console import answer
from flows.output.tables import Table, artifacts_table, domain_sizes, metric_names, metric_values, ordered_domains
from flows.report.twins import twins_table
from flows.runner.lookup import report_path

RUN = Path(str(files("flows") / "runs" / "demo.toml"))

PRODUCT = "EDDA"
"""The demo's run itself, among what it is compared with."""

_COMPARED = {
    "popularity": ("name=demo-popularity", *BASELINES["popularity"], VECTORS_ALONE),
    "walks alone": ("name=demo-walks", *BASELINES["walks"]),
    "each domain alone": ("name=demo-alone", "train.tables=intra", "train.alignment=0", "neighbours.scope=domain"),
    PRODUCT: (),
}


def demo_runs(run: RunSpec) -> dict[str, RunSpec]:
    """What the demo compares, from the simplest to the product; of each domain alone, walks too stay in the domain."""
    return {name: run.with_overrides(*changes) for name, changes in _COMPARED.items()}


def ranking_table(compared: Mapping[str, Mapping[str, Artifact]]) -> Table:
    """Recall and NDCG of the test split among all items, of several runs on the same interactions.

    Args:
        compared: artifacts of each run, by role, by what the run is called.
    """
    last = list(compared.values())[-1]
    values = {name: metric_values(artifacts[METRICS.name]) for name, artifacts in compared.items()}
    measured, sizes = values[list(compared)[-1]], domain_sizes(last)
    names = [name for name in metric_names(measured) if name.startswith(("full_recall@", "full_ndcg@"))][:2]
    rows = []
    for domain in ordered_domains(measured, sizes):
        called = "mean" if domain == MACRO else domain
        cells = [" / ".join(f"{of_run[domain, name]['value']:.3f}" for name in names) for of_run in values.values()]
        rows.append((called, f"{sizes[domain]:,}" if domain in sizes else "", *cells))
    title = f"Test split, all items of a domain ranked: {' / '.join(names)}"
    return Table(title, ("domain", "interactions", *compared), tuple(rows))


def what_next(store: Store, recommendations: Artifact) -> str:
    """Commands to try on the finished demo."""
    table = recommendations.read(["domain", "user_id"])
    domain, user = (table[name][-1].as_py() for name in ("domain", "user_id"))
    option = "" if store.root == Path.cwd() / DEFAULT_STORE else f" --store {store}"
    return f"""\
What next (put .venv/bin on the PATH: export PATH="$PWD/.venv/bin:$PATH")
  edda inspect demo/pairs --head 5{option}
  edda recommend demo --domain {domain} --user {user} --top 5{option}
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
    say_where_nothing_was_made(outcomes)
    run, keys = outcomes[-1], {outcome.plan.steps[role].key for outcome in outcomes for role in outcome.made}
    made = [role for role, artifact in run.artifacts.items() if artifact.key in keys]
    answer(artifacts_table(run.config.name, run.artifacts, made).plain() + "\n")
    if "pairs" in run.artifacts:
        answer(twins_table(run.artifacts, run.config.pairs.k).plain() + "\n")
    named = zip(compared, outcomes, strict=True)
    answer(ranking_table({name: outcome.artifacts for name, outcome in named}).plain() + "\n")
    answer(what_next(run.plan.store, run.artifacts["recommendations"]))
    answer(f"Report: {report_path(run.plan.store.root, run.config.name)}")
