"""A report's section on reach and pairs: methods, coverage, similarities, twins, and examples with their anchors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import COVERAGE_FILE, KINDS, NODES, PAIRS, REACH, WORLD
from data_contracts.statistics import (
    CoverageColumns,
    PairCoverage,
    PairsCheck,
    PairsStatistics,
    ReachStatistics,
    rows_of_coverage,
)
from data_contracts.store.artifact import Artifact
from flows.output.plots import Series, line_plot
from flows.output.tables import Table
from flows.output.twins import twins_table
from flows.report.blocks import Block, Heatmap, Note, Plots, Section, build_heatmap, number
from flows.runner.lookup import RunView

_PAIRS_OF_DOMAINS = 200
"""Number of ordered pairs of domains, the largest ones, whose similarities are read."""

_PAIRED = (
    "Random walks from every user and item end at anchors, and two of different domains are paired if their walks tend "
    "to end at the same ones: they are likely to mean the same there."
)
_NOT_ALIGNED = (
    "This run has neither, because it does not align its domains (train.alignment is 0); `edda align` with its file "
    "makes them to look at."
)
_BINS = 40
_EXAMPLES = 10
_CANDIDATES = 200
"""Pairs, at most, of which those with enough shared anchors are shown."""
_FEWEST_ANCHORS = 3
"""Two nodes may be similar by a single anchor; such a pair says little."""
_ANCHORS_SHOWN = 3
_TWIN_RANKS = 5


def pairs_section(view: RunView) -> Section:
    """Reach vectors by domain, and the aligned pairs of every two domains."""
    blocks: list[Block] = []
    artifacts = view.artifacts
    if REACH.name in artifacts:
        blocks.append(_reach_table(view))
    if PAIRS.name in artifacts and len(view.sizes) > 1:
        pairs = artifacts[PAIRS.name]
        statistics = pairs.statistics_as(PairsStatistics)
        blocks += [*_check_notes(pairs.manifest.rows, statistics["checked"])]
        coverage = rows_of_coverage(pairs.read_json(COVERAGE_FILE, CoverageColumns))
        blocks += [*_build_heatmaps(view, coverage)]
        largest = _largest_pairs(coverage)
        blocks.append(Plots(_similarity_plots(pairs, largest), {"most similar partner": 0, "further partners": 1}))
        if WORLD.name in artifacts:
            blocks.append(twins_table(artifacts, min(view.config["pairs"]["k"], _TWIN_RANKS)))
        if REACH.name in artifacts:
            blocks.append(_examples_table(view, largest))
    if not blocks and view.config.get("train", {}).get("alignment") == 0:
        blocks.append(Note(_NOT_ALIGNED))
    return Section("Reach and pairs", blocks, _PAIRED)


def _reach_table(view: RunView) -> Table:
    domains = view.artifacts[REACH.name].statistics_as(ReachStatistics)["domains"]
    rows = []
    for domain, reach in ((domain, domains[domain]) for domain in view.sizes if domain in domains):
        nodes, reaching = reach["nodes"], reach["nodes_with_reach"]
        cells = [
            reach["method"],
            number(nodes),
            f"{reaching / nodes if nodes else 0.0:.1%}",
            number(reach["entries"] / reaching if reaching else None, 1),
            number(reach["against_exact"].get("mean_cosine"), 4),
            number(reach["against_exact"].get("mean_cosine_of_walks"), 4),
        ]
        rows.append((domain, *cells))
    header = ("domain", "method", "nodes", "reach an anchor", "anchors each", "cosine, stored", "cosine, walks")
    return Table("Reach by domain; cosines are with exact vectors, of a sample of nodes", header, tuple(rows))


def _check_notes(pairs: int, check: PairsCheck) -> Iterator[Note]:
    """How many best partners were found, if any nodes were checked."""
    if "recall_at_1" in check and "mean_regret" in check:
        yield Note(
            f"{number(pairs)} pairs. Compared with all vectors, the best partner of {check['recall_at_1']:.2%} of "
            f"{number(check['nodes'])} sampled nodes was found; the mean similarity lost is {check['mean_regret']:.2g}."
        )


def _build_heatmaps(view: RunView, coverage: Sequence[PairCoverage]) -> Iterator[Heatmap]:
    """Coverage and mean best similarity from the row's domain to the column's, for each kind that was paired."""
    numbers = {domain: number for number, domain in enumerate(view.sizes)}
    for kind in dict.fromkeys(row["kind"] for row in coverage):
        name = f"{kind}s" if kind in KINDS else "nodes"
        shares, similarities = np.full((2, len(numbers), len(numbers)), np.nan)
        for row in (row for row in coverage if row["kind"] == kind):
            cell = numbers[row["source_domain"]], numbers[row["target_domain"]]
            shares[cell] = row["nodes_paired"] / row["nodes"] if row["nodes"] else np.nan
            similarities[cell] = row["mean_best_similarity"]  # None becomes NaN
        yield build_heatmap(view, f"Coverage: % of the row's {name} with a partner in the column", shares)
        yield build_heatmap(view, f"Mean similarity of the row's {name} to their best partner, %", similarities)


def _largest_pairs(coverage: Sequence[PairCoverage]) -> list[dict[str, str]]:
    """Ordered pairs of domains with the most nodes that have partners."""
    nodes: Counter[tuple[str, str]] = Counter()
    for row in coverage:
        nodes[row["source_domain"], row["target_domain"]] += row["nodes_paired"]
    ranked = sorted((ends for ends in nodes if nodes[ends]), key=lambda ends: (-nodes[ends], ends))
    return [{"source_domain": source, "target_domain": target} for source, target in ranked[:_PAIRS_OF_DOMAINS]]


def _similarity_plots(pairs: Artifact, partitions: Sequence[dict[str, str]]) -> list[str]:
    """For each kind a histogram of similarities, of first partners and of the others; identity pairs are left out."""
    edges = np.linspace(0.0, 1.0, _BINS + 1)
    histograms = {kind: np.zeros((2, _BINS)) for kind in KINDS}
    for partition in partitions:
        table = pairs.read(["kind", "similarity", "rank"], **partition)
        for kind, histogram in histograms.items():
            rows = table.filter(pc.and_(pc.equal(table["kind"], kind), pc.greater(table["rank"], 0)))
            values, first = rows["similarity"].to_numpy(), rows["rank"].to_numpy() == 1
            histogram += [np.histogram(values[chosen], edges)[0] for chosen in (first, ~first)]
    middle = (edges[1:] + edges[:-1]) / 2
    axes = ("cosine of reach vectors", f"% in bins of {1 / _BINS}")
    plots = []
    for kind, histogram in histograms.items():
        lines = [
            Series((middle, 100 * counts / counts.sum()), colour)
            for colour, counts in enumerate(histogram)
            if counts.sum()
        ]
        plots.append(line_plot(f"Similarity of paired {kind}s", axes, lines))
    return plots


@dataclass(frozen=True)
class _Pair:
    """A pair of nodes of two domains."""

    domains: tuple[str, str]
    nodes: tuple[int, int]
    similarity: float


class _Name(NamedTuple):
    """What identifies a node in all domains: its kind, its number over all domains, and its id in the logs."""

    kind: str
    entity: int
    id: str


def _examples_table(view: RunView, partitions: Sequence[dict[str, str]]) -> Block:
    """Pairs of first partners, evenly spaced from the most to the least similar, with their shared anchors."""
    candidates = _choose_candidates(view.artifacts[PAIRS.name], partitions[:_EXAMPLES])
    wanted: dict[str, set[int]] = {}
    for pair in candidates:
        for domain, node in zip(pair.domains, pair.nodes, strict=True):
            wanted.setdefault(domain, set()).add(node)
    reaches = {domain: _load_reach(view.artifacts[REACH.name], domain, nodes) for domain, nodes in wanted.items()}
    for domain, reach in reaches.items():
        wanted[domain].update(*reach.values())
    names = {domain: _load_names(view.artifacts[NODES.name], domain, nodes) for domain, nodes in wanted.items()}
    shared = [_shared_anchors(pair, reaches, names) for pair in candidates]
    enough = [
        (pair, *anchors) for pair, anchors in zip(candidates, shared, strict=True) if anchors[1] >= _FEWEST_ANCHORS
    ]
    rows = []
    for pair, anchors, count in (enough[position] for position in _evenly_spaced_positions(len(enough))):
        ends = [names[domain][node] for domain, node in zip(pair.domains, pair.nodes, strict=True)]
        ids = [f"{domain}: {end.id}" for domain, end in zip(pair.domains, ends, strict=True)]
        rows.append((ends[0].kind, *ids, f"{pair.similarity:.3f}", number(count), ", ".join(anchors)))
    if not rows:
        return Note(f"No pair that was looked at has {_FEWEST_ANCHORS} shared anchors, so none is shown.")
    header = ("kind", "of", "with", "similarity", "shared anchors", "those that weigh most")
    title = f"Pairs with at least {_FEWEST_ANCHORS} shared anchors, from the most to the least similar"
    return Table(title, header, tuple(rows), left=True)


def _choose_candidates(pairs: Artifact, partitions: Sequence[dict[str, str]]) -> list[_Pair]:
    """First partners, evenly spaced in the order of falling similarity; more than are shown."""
    columns = ["source_domain", "target_domain", "source_node", "target_node", "similarity", "rank", "identity"]
    tables = []
    for partition in partitions:
        table = pairs.read(columns, **partition)
        first = pc.and_(pc.equal(table["rank"], 1), pc.invert(table["identity"]))
        tables.append(_evenly_spaced(table.filter(first)))
    chosen = _evenly_spaced(pa.concat_tables(tables)) if tables else pa.table({})
    examples = []
    for row in chosen.to_pylist():
        domains, nodes = (row["source_domain"], row["target_domain"]), (row["source_node"], row["target_node"])
        examples.append(_Pair(domains, nodes, row["similarity"]))
    return examples


def _evenly_spaced(table: pa.Table) -> pa.Table:
    """At most so many rows as are candidates, evenly spaced in the order of falling similarity."""
    order = pc.sort_indices(table, [("similarity", "descending"), ("source_node", "ascending")])
    return table.take(order.take(pa.array(_evenly_spaced_positions(table.num_rows, _CANDIDATES))))


def _evenly_spaced_positions(size: int, most: int = _EXAMPLES) -> list[int]:
    positions: list[int] = np.unique(np.linspace(0, size - 1, min(most, size)).astype(np.int64)).tolist()
    return positions


def _load_reach(reach: Artifact, domain: str, nodes: set[int]) -> dict[int, dict[int, float]]:
    """Node → anchor → weight, of the given nodes."""
    table = _read_rows(reach, domain, nodes, ["node", "anchors", "weights"])
    return {row["node"]: dict(zip(row["anchors"], row["weights"], strict=True)) for row in table.to_pylist()}


def _load_names(artifact: Artifact, domain: str, nodes: set[int]) -> dict[int, _Name]:
    """Node → what it is called outside of its domain."""
    table = _read_rows(artifact, domain, nodes, ["node", "kind", "entity", "id"])
    return {row["node"]: _Name(row["kind"], row["entity"], row["id"]) for row in table.to_pylist()}


def _read_rows(artifact: Artifact, domain: str, nodes: set[int], columns: list[str]) -> pa.Table:
    """The rows of the given nodes, read one file at a time."""
    wanted = pa.array(sorted(nodes), pa.int32())
    tables = artifact.batches(columns, domain=domain)
    return pa.concat_tables([table.filter(pc.is_in(table["node"], wanted)) for table in tables])


def _shared_anchors(
    pair: _Pair,
    reaches: Mapping[str, Mapping[int, Mapping[int, float]]],
    names: Mapping[str, Mapping[int, _Name]],
) -> tuple[list[str], int]:
    """Anchors that both nodes reach, as text, the largest products of weights first; and how many there are."""
    source, target = (
        {names[domain][anchor]: weight for anchor, weight in reaches[domain].get(node, {}).items()}
        for domain, node in zip(pair.domains, pair.nodes, strict=True)
    )
    shared = sorted(source.keys() & target.keys(), key=lambda name: (-source[name] * target[name], name))
    return [f"{name.kind} {name.id}" for name in shared[:_ANCHORS_SHOWN]], len(shared)
