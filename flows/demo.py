"""What the demo shows: how well the product ranks beside simpler ones, and how many planted twins the pairs find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.artifact import Artifact
from data_contracts.contracts import MACRO, METRICS, NODES, PAIRS, USER, WORLD
from data_contracts.store import Store
from flows.baselines import BASELINES, VECTORS_ALONE, Run
from flows.config import DEFAULT_STORE
from flows.summary import Table, domain_sizes, metric_names, metric_values, ordered_domains

RUN = Path(str(files("flows") / "runs" / "demo.toml"))

PRODUCT = "EDDA"
"""The demo's run itself, among what it is compared with."""

_COMPARED = {
    "popularity": ("name=demo-popularity", *BASELINES["popularity"], VECTORS_ALONE),
    "walks alone": ("name=demo-walks", *BASELINES["walks"]),
    "each domain alone": ("name=demo-alone", "train.tables=intra", "train.alignment=0", "neighbours.scope=domain"),
    PRODUCT: (),
}


def demo_runs(overrides: Sequence[str]) -> dict[str, Run]:
    """What the demo compares, from the simplest to the product; of each domain alone, walks too stay in the domain."""
    return {name: (RUN, [*overrides, *changes]) for name, changes in _COMPARED.items()}


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


def twins_table(artifacts: Mapping[str, Artifact], k: int) -> Table:
    """Share of the planted twins that the pairs name among their first 1 to k partners, both ways, beside chance.

    Args:
        artifacts: `world`, `nodes` and `pairs` of a run.
        k: partners per node and target domain.
    """
    users = _users(artifacts[NODES.name])
    twins = artifacts[WORLD.name].read()
    rows = []
    for source, target in _directions(twins):
        planted = _planted(twins, users, source, target)
        if not planted.num_rows:
            continue
        ranks = _ranks(artifacts[PAIRS.name], planted, source, target)
        targets = pc.sum(pc.equal(users["domain"], target)).as_py()
        cells = []
        for rank in range(1, k + 1):
            found = sum(1 for value in ranks if value <= rank)
            cells.append(f"{found / planted.num_rows:.1%} (chance {rank / targets:.2%})")
        rows.append((f"{source} → {target}", f"{planted.num_rows:,}", f"{targets:,}", *cells))
    header = ("direction", "twins", "candidates", *(f"first {rank}" for rank in range(1, k + 1)))
    return Table("Planted twins found by the aligned pairs", header, tuple(rows))


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


def _users(nodes: Artifact) -> pa.Table:
    table = nodes.read(["domain", "kind", "node", "id"])
    return table.filter(pc.equal(table["kind"], USER)).drop_columns(["kind"])


def _directions(twins: pa.Table) -> list[tuple[str, str]]:
    planted = twins.group_by(["source_domain", "target_domain"]).aggregate([]).to_pylist()
    ways = [(row["source_domain"], row["target_domain"]) for row in planted]
    return sorted(ways + [(target, source) for source, target in ways])


def _planted(twins: pa.Table, users: pa.Table, source: str, target: str) -> pa.Table:
    """Nodes of the twins of two domains, where both have interactions: int32 source_node, target_node."""
    for first, second in (("source", "target"), ("target", "source")):
        here = twins.filter(
            pc.and_(pc.equal(twins[f"{first}_domain"], source), pc.equal(twins[f"{second}_domain"], target))
        )
        if here.num_rows:
            ids = pa.table({"source_id": here[f"{first}_user_id"], "target_id": here[f"{second}_user_id"]})
            left, right = _in_domain(users, source, "source"), _in_domain(users, target, "target")
            joined = ids.join(left, "source_id", join_type="inner").join(right, "target_id", join_type="inner")
            return joined.select(["source_node", "target_node"])
    return pa.table({"source_node": pa.array([], pa.int32()), "target_node": pa.array([], pa.int32())})


def _in_domain(users: pa.Table, domain: str, side: str) -> pa.Table:
    here = users.filter(pc.equal(users["domain"], domain))
    return pa.table({f"{side}_id": here["id"], f"{side}_node": here["node"]})


def _ranks(pairs: Artifact, planted: pa.Table, source: str, target: str) -> list[int]:
    """Ranks at which twins were found; identity pairs are no finds."""
    table = pairs.read(["source_node", "target_node", "rank"], source_domain=source, target_domain=target)
    table = table.filter(pc.greater(table["rank"], 0))
    found = planted.join(table, ["source_node", "target_node"], join_type="inner")
    ranks: list[int] = found["rank"].to_pylist()
    return ranks
