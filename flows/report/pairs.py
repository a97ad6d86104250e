"""A report's section on reach and pairs: methods, coverage, similarities, twins, examples with their anchors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import KINDS, NODES, PAIRS, REACH, WORLD
from data_contracts.store.artifact import Artifact
from data_contracts.store.files import partition_of
from flows.output.plots import Series, line_plot
from flows.output.tables import Table
from flows.report.blocks import Block, Heat, Note, Plots, Section, heat, number
from flows.report.twins import twins_table
from flows.runner.lookup import RunView

_PARTITIONS = 200
"""Ordered pairs of domains, the largest, whose similarities are read."""

_BINS = 40
_EXAMPLES = 10
_ANCHORS_SHOWN = 3
_TWIN_RANKS = 5


def pairs_section(view: RunView) -> Section:
    """How nodes reach anchors, and which nodes of two domains were aligned by them."""
    blocks: list[Block] = []
    artifacts = view.artifacts
    if REACH.name in artifacts:
        blocks.append(_reach_table(view))
    if PAIRS.name in artifacts and len(view.sizes) > 1:
        pairs = artifacts[PAIRS.name]
        coverage = pairs.statistics.get("coverage", [])
        blocks += [*_checked(pairs), *_heats(view, coverage)]
        largest = _largest(pairs)
        blocks.append(Plots(_similarities(pairs, largest), {"most similar partner": 0, "further partners": 1}))
        if WORLD.name in artifacts:
            blocks.append(twins_table(artifacts, min(view.config["pairs"]["k"], _TWIN_RANKS)))
        if REACH.name in artifacts:
            blocks.append(_examples_table(view, largest))
    return Section("Reach and pairs", blocks)


def _reach_table(view: RunView) -> Table:
    found = view.artifacts[REACH.name].statistics.get("domains", {})
    rows = []
    for domain in [domain for domain in view.sizes if domain in found]:
        own = found[domain]
        compared = own.get("against_exact", {})
        cosines = [number(compared.get(name), 4) for name in ("mean_cosine", "mean_cosine_of_walks")]
        share = own["nodes_with_reach"] / own["nodes"] if own["nodes"] else 0.0
        each = own["entries"] / own["nodes_with_reach"] if own["nodes_with_reach"] else None
        rows.append((domain, own["method"], number(own["nodes"]), f"{share:.1%}", number(each, 1), *cosines))
    header = ("domain", "method", "nodes", "reach an anchor", "anchors each", "cosine, stored", "cosine, walks")
    return Table("Reach by domain; cosines are with exact vectors, of a sample of nodes", header, tuple(rows))


def _checked(pairs: Artifact) -> list[Block]:
    found = pairs.statistics.get("checked", {})
    if "recall_at_1" not in found:
        return []
    return [Note(
        f"{number(pairs.manifest.rows)} pairs. Compared with all vectors, the best partner of "
        f"{found['recall_at_1']:.2%} of {number(found['nodes'])} sampled nodes was found; the mean similarity lost is "
        f"{found['mean_regret']:.2g}."
    )]  # fmt: skip


def _heats(view: RunView, coverage: Sequence[Mapping[str, Any]]) -> Iterator[Heat]:
    """Coverage and mean best similarity from the row's domain to the column's, for each kind that was paired."""
    place = {domain: number for number, domain in enumerate(view.sizes)}
    for kind in dict.fromkeys(row["kind"] for row in coverage):
        name = f"{kind}s" if kind in KINDS else "nodes"
        shares = np.full((2, len(place), len(place)), np.nan)
        for row in coverage:
            if row["kind"] == kind:
                share = row["nodes_paired"] / row["nodes"] if row["nodes"] else np.nan
                shares[:, place[row["source_domain"]], place[row["target_domain"]]] = share, row["mean_best_similarity"]
        yield heat(view, f"Coverage: % of the row's {name} with a partner in the column", shares[0])
        yield heat(view, f"Mean similarity of the row's {name} to their best partner, %", shares[1])


def _largest(pairs: Artifact) -> list[dict[str, str]]:
    """Ordered pairs of domains with the most rows."""
    rows: Counter[tuple[str, ...]] = Counter()
    for entry in pairs.manifest.files:
        rows[tuple(partition_of(entry.path).values())] += entry.rows or 0
    ranked = sorted(rows, key=lambda ends: (-rows[ends], ends))
    return [dict(zip(PAIRS.partitioned_by, ends, strict=True)) for ends in ranked[:_PARTITIONS]]


def _similarities(pairs: Artifact, partitions: Sequence[dict[str, str]]) -> list[str]:
    """For each kind the shares of similarities, of first partners and of the others; identity pairs are left out."""
    edges = np.linspace(0.0, 1.0, _BINS + 1)
    counts = {kind: np.zeros((2, _BINS)) for kind in KINDS}
    for partition in partitions:
        table = pairs.read(["kind", "similarity", "rank"], **partition)
        for kind, of_kind in counts.items():
            own = table.filter(pc.and_(pc.equal(table["kind"], kind), pc.greater(table["rank"], 0)))
            values, first = own["similarity"].to_numpy(), own["rank"].to_numpy() == 1
            of_kind += [np.histogram(values[chosen], edges)[0] for chosen in (first, ~first)]
    middle = (edges[1:] + edges[:-1]) / 2
    axes = ("cosine of reach vectors", f"% in bins of {1 / _BINS}")
    plots = []
    for kind, of_kind in counts.items():
        lines = [Series((middle, 100 * own / own.sum()), place) for place, own in enumerate(of_kind) if own.sum()]
        plots.append(line_plot(f"Similarity of paired {kind}s", axes, lines))
    return plots


@dataclass(frozen=True)
class _Example:
    """A pair of nodes of two domains."""

    domains: tuple[str, str]
    nodes: tuple[int, int]
    similarity: float


def _examples_table(view: RunView, partitions: Sequence[dict[str, str]]) -> Table:
    """First partners, evenly spaced from the most to the least similar, and the anchors that make them alike."""
    examples = _examples(view.artifacts[PAIRS.name], partitions[:_EXAMPLES])
    wanted: dict[str, set[int]] = {}
    for example in examples:
        for domain, node in zip(example.domains, example.nodes, strict=True):
            wanted.setdefault(domain, set()).add(node)
    reaches = {domain: _reach_of(view.artifacts[REACH.name], domain, nodes) for domain, nodes in wanted.items()}
    for domain, reach in reaches.items():
        wanted[domain].update(*reach.values())
    named = {domain: _names(view.artifacts[NODES.name], domain, nodes) for domain, nodes in wanted.items()}
    rows = []
    for example in examples:
        kinds_ids = [named[domain][node] for domain, node in zip(example.domains, example.nodes, strict=True)]
        shared, count = _shared_anchors(example, reaches, named)
        ends = [f"{domain}: {end[2]}" for domain, end in zip(example.domains, kinds_ids, strict=True)]
        rows.append((kinds_ids[0][0], *ends, f"{example.similarity:.3f}", number(count), ", ".join(shared)))
    header = ("kind", "of", "with", "similarity", "shared anchors", "those that weigh most")
    return Table("Ten pairs, from the most to the least similar", header, tuple(rows), left=True)


def _examples(pairs: Artifact, partitions: Sequence[dict[str, str]]) -> list[_Example]:
    tables = []
    for partition in partitions:
        table = pairs.read(["source_domain", "target_domain", "source_node", "target_node", "similarity", "rank",
                            "identity"], **partition)  # fmt: skip
        first = pc.and_(pc.equal(table["rank"], 1), pc.invert(table["identity"]))
        tables.append(_spaced(table.filter(first)))
    chosen = _spaced(pa.concat_tables(tables)) if tables else pa.table({})
    return [
        _Example((row["source_domain"], row["target_domain"]), (row["source_node"], row["target_node"]),
                 row["similarity"])
        for row in chosen.to_pylist()
    ]  # fmt: skip


def _spaced(table: pa.Table) -> pa.Table:
    """At most ten rows, at evenly spaced places in the order of falling similarity."""
    order = pc.sort_indices(table, [("similarity", "descending"), ("source_node", "ascending")])
    places = np.unique(np.linspace(0, table.num_rows - 1, min(_EXAMPLES, table.num_rows)).astype(np.int64))
    return table.take(order.take(pa.array(places)))


def _reach_of(reach: Artifact, domain: str, nodes: set[int]) -> dict[int, dict[int, float]]:
    """Node → anchor → weight; only the wanted rows are kept in memory."""
    table = _rows_of(reach, domain, nodes, ["node", "anchors", "weights"])
    return {row["node"]: dict(zip(row["anchors"], row["weights"], strict=True)) for row in table.to_pylist()}


def _names(of: Artifact, domain: str, nodes: set[int]) -> dict[int, tuple[str, int, str]]:
    """Node → kind, number over all domains, id."""
    table = _rows_of(of, domain, nodes, ["node", "kind", "entity", "id"])
    return {row["node"]: (row["kind"], row["entity"], row["id"]) for row in table.to_pylist()}


def _rows_of(artifact: Artifact, domain: str, nodes: set[int], columns: list[str]) -> pa.Table:
    wanted = pa.array(sorted(nodes), pa.int32())
    tables = artifact.batches(columns, domain=domain)
    return pa.concat_tables([table.filter(pc.is_in(table["node"], wanted)) for table in tables])


def _shared_anchors(
    example: _Example, reaches: Mapping[str, Any], named: Mapping[str, Mapping[int, tuple[str, int, str]]]
) -> tuple[list[str], int]:
    """Anchors that both ends reach, the largest products of weights first, as text; and how many there are."""
    weights: list[dict[tuple[str, int], float]] = []
    ids: dict[tuple[str, int], str] = {}
    for domain, node in zip(example.domains, example.nodes, strict=True):
        own = {named[domain][anchor]: weight for anchor, weight in reaches[domain].get(node, {}).items()}
        weights.append({(kind, entity): weight for (kind, entity, _), weight in own.items()})
        ids |= {(kind, entity): f"{kind} {name}" for kind, entity, name in own}
    shared = sorted(weights[0].keys() & weights[1].keys(), key=lambda key: (-weights[0][key] * weights[1][key], key))
    return [ids[key] for key in shared[:_ANCHORS_SHOWN]], len(shared)
