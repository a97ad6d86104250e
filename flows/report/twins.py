"""How many of the planted twins of a generated world the aligned pairs find."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import NODES, PAIRS, USER, WORLD
from data_contracts.store.artifact import Artifact
from flows.output.tables import Table


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
