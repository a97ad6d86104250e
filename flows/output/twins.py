"""How many planted twins of a generated world the aligned pairs find."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import NODES, PAIRS, USER, WORLD
from data_contracts.store.artifact import Artifact
from flows.output.tables import Table


def twins_table(artifacts: Mapping[str, Artifact], k: int) -> Table:
    """Share of the planted twins among the first 1 to k partners, in both directions, next to that of chance.

    Args:
        artifacts: `world`, `nodes` and `pairs` of a run.
        k: partners per node and target domain.
    """
    users = _read_users(artifacts[NODES.name])
    twins = artifacts[WORLD.name].read()
    rows = []
    for source, target in _directions(twins):
        planted = _planted_pairs(twins, users, source, target)
        if not planted.num_rows:
            continue
        ranks = _twin_ranks(artifacts[PAIRS.name], planted, source, target)
        targets = pc.sum(pc.equal(users["domain"], target)).as_py()
        cells = []
        for most in range(1, k + 1):
            hits = sum(1 for rank in ranks if rank <= most)
            cells.append(f"{hits / planted.num_rows:.1%} (chance {most / targets:.2%})")
        rows.append((f"{source} → {target}", f"{planted.num_rows:,}", f"{targets:,}", *cells))
    header = ("direction", "twins", "candidates", *(f"first {rank}" for rank in range(1, k + 1)))
    return Table("Planted twins found by the aligned pairs", header, tuple(rows))


def _read_users(nodes: Artifact) -> pa.Table:
    table = nodes.read(["domain", "kind", "node", "id"])
    return table.filter(pc.equal(table["kind"], USER)).drop_columns(["kind"])


def _directions(twins: pa.Table) -> list[tuple[str, str]]:
    domains = twins.group_by(["source_domain", "target_domain"]).aggregate([]).to_pylist()
    pairs = [(row["source_domain"], row["target_domain"]) for row in domains]
    return sorted(pairs + [(target, source) for source, target in pairs])


def _planted_pairs(twins: pa.Table, users: pa.Table, source: str, target: str) -> pa.Table:
    """Nodes of the twins of two domains, if both have interactions: int32 source_node, target_node."""
    for first, second in (("source", "target"), ("target", "source")):
        rows = twins.filter(
            pc.and_(pc.equal(twins[f"{first}_domain"], source), pc.equal(twins[f"{second}_domain"], target))
        )
        if rows.num_rows:
            ids = pa.table({"source_id": rows[f"{first}_user_id"], "target_id": rows[f"{second}_user_id"]})
            left, right = _users_in_domain(users, source, "source"), _users_in_domain(users, target, "target")
            joined = ids.join(left, "source_id", join_type="inner").join(right, "target_id", join_type="inner")
            return joined.select(["source_node", "target_node"])
    return pa.table({"source_node": pa.array([], pa.int32()), "target_node": pa.array([], pa.int32())})


def _users_in_domain(users: pa.Table, domain: str, side: str) -> pa.Table:
    rows = users.filter(pc.equal(users["domain"], domain))
    return pa.table({f"{side}_id": rows["id"], f"{side}_node": rows["node"]})


def _twin_ranks(pairs: Artifact, planted: pa.Table, source: str, target: str) -> list[int]:
    """Ranks of the twins that the pairs have; identity pairs do not count."""
    table = pairs.read(["source_node", "target_node", "rank"], source_domain=source, target_domain=target)
    table = table.filter(pc.greater(table["rank"], 0))
    twins = planted.join(table, ["source_node", "target_node"], join_type="inner")
    ranks: list[int] = twins["rank"].to_pylist()
    return ranks
