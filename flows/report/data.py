"""A report's section on data: sizes of domains, rejected rows, overlap of domains, long tails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow.compute as pc
import scipy.sparse as sp
from numpy.typing import NDArray

from data_contracts.contracts import INTERACTIONS, ITEM, KINDS, NODES, REJECTS, SPLITS, USER
from data_contracts.statistics import InteractionsStatistics, NodesStatistics, RejectsStatistics
from flows.output.plots import Series, line_plot
from flows.output.tables import Table
from flows.report.blocks import Block, Plots, Section, build_heatmap, domain_colours, legend, number
from flows.runner.lookup import RunView

_EARLIEST, _LATEST = 10**8, 10**10
"""Seconds since 1970 of times that are dates: from 1973 to 2286; larger numbers have a finer unit."""

Numbers = NDArray[np.int32]
Span = tuple[int, int]
"""First and last time, in the logs' unit."""

_TAIL_POINTS = 60
"""Most points of a line."""


def data_section(view: RunView) -> Section:
    """Sizes, overlap, long tails and rejected rows, as far as they are known."""
    blocks: list[Block] = []
    spans: dict[str, Span] = {}
    overlap = ""
    if INTERACTIONS.name in view.artifacts:
        spans = {domain: span for domain in view.sizes if (span := _time_span(view, domain))}
        blocks += [_sizes_table(view, spans), *_rejected_tables(view)]
    if NODES.name in view.artifacts:
        entities, degrees = _read_nodes(view)
        overlap = _describe_overlap(entities)
        if len(view.sizes) > 1:
            title = "Overlap of {}s: % of the row's that also live in the column"
            blocks += [build_heatmap(view, title.format(kind), _overlap(entities[kind])) for kind in KINDS]
        blocks.append(Plots([_long_tail_plot(view, kind, degrees[kind]) for kind in KINDS], legend(view)))
    return Section("Data", blocks, _summarise(view, list(spans.values()), overlap))


def _summarise(view: RunView, spans: Sequence[Span], overlap: str) -> str:
    """One sentence: how much there is, and what ties the domains together."""
    if INTERACTIONS.name not in view.artifacts:
        return ""
    statistics, rows = view.artifacts[INTERACTIONS.name].statistics_as(InteractionsStatistics), sum(view.sizes.values())
    domains = "One domain has" if len(view.sizes) == 1 else f"{number(len(view.sizes))} domains have"
    when = ""
    if spans:
        first, last = min(start for start, _ in spans), max(end for _, end in spans)
        when = f" from {describe_time(first)} to {describe_time(last)}"
    people = f"{number(statistics['users'])} users with {number(statistics['items'])} items"
    return f"{domains} {number(rows)} interactions of {people}{when}{overlap}."


def _describe_overlap(entities: dict[str, list[Numbers]]) -> str:
    shares = []
    for kind in KINDS:
        counts = np.unique_counts(np.concatenate([*entities[kind], np.zeros(0, np.int32)])).counts
        shares.append(f"{np.mean(counts > 1) if counts.size else 0:.0%} of the {kind}s")
    return "; " + " and ".join(shares) + " live in more than one domain" if len(entities[USER]) > 1 else ""


def _time_span(view: RunView, domain: str) -> Span | None:
    """The first and the last time of a domain's interactions, in the logs' unit; None without times."""
    times = view.artifacts[INTERACTIONS.name].read(["timestamp"], domain=domain)["timestamp"]
    ends = pc.min_max(times).as_py()
    return None if ends["min"] is None else (ends["min"], ends["max"])


def describe_time(ticks: int) -> str:
    """A time of the logs as a date, if it counts from 1970 in a usual unit; otherwise as it is."""
    for ticks_per_second in (1, 10**3, 10**6, 10**9):
        seconds = ticks / ticks_per_second
        if _EARLIEST <= seconds < _LATEST:
            return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
    return number(ticks)


def _sizes_table(view: RunView, spans: Mapping[str, Span]) -> Table:
    # Every domain with interactions is in the statistics, but an unfinished run may have no nodes yet.
    interactions = view.artifacts[INTERACTIONS.name].statistics_as(InteractionsStatistics).get("domains", {})
    nodes = view.artifacts[NODES.name].statistics_as(NodesStatistics)["domains"] if NODES.name in view.artifacts else {}
    rows = []
    for domain, size in view.sizes.items():
        ingested = interactions[domain]
        counts = (
            nodes[domain]["anchors"] if nodes else None,
            ingested["users"],
            ingested["items"],
            ingested["train"],
            ingested["valid"],
            ingested["test"],
            ingested["duplicates"],
            ingested["leaked"],
            ingested["cold"],
        )
        per_user = size / ingested["users"] if ingested["users"] else None
        times = tuple(map(describe_time, spans[domain])) if domain in spans else ("–", "–")
        rows.append((domain, number(size), number(per_user, 1), *map(number, counts), *times))
    counted = ("anchors", "users", "items", *SPLITS, "duplicates", "leaked", "cold")
    header = ("domain", "interactions", "per user", *counted, "first", "last")
    return Table("Domains, the largest first", header, tuple(rows))


def _rejected_tables(view: RunView) -> list[Table]:
    if REJECTS.name not in view.artifacts:
        return []
    rejects = view.artifacts[REJECTS.name].statistics_as(RejectsStatistics)
    rows = tuple((reason, number(count)) for reason, count in sorted(rejects["reasons"].items()))
    title = f"Rejected, of {number(rejects['raw_rows'])} raw rows"
    return [Table(title if rows else f"{title}: none", ("reason", "rows"), rows)]


def _read_nodes(view: RunView) -> tuple[dict[str, list[Numbers]], dict[str, list[Numbers]]]:
    """Kind → for each domain the numbers of its users or items over all domains; and kind → their train degrees."""
    nodes = view.artifacts[NODES.name]
    entities: dict[str, list[Numbers]] = {USER: [], ITEM: []}
    degrees: dict[str, list[Numbers]] = {USER: [], ITEM: []}
    for domain in view.sizes:
        table = nodes.read(["kind", "entity", "train_degree"], domain=domain)
        for kind in KINDS:
            rows = table.filter(pc.equal(table["kind"], kind))
            entities[kind].append(rows["entity"].to_numpy())
            degrees[kind].append(rows["train_degree"].to_numpy())
    return entities, degrees


def _overlap(entities: list[Numbers]) -> NDArray[np.float64]:
    """float64 [domains, domains]: share of the row domain's entities that the column domain has, too; NaN on itself."""
    indptr = np.cumsum([0, *(numbers.size for numbers in entities)])
    indices = np.concatenate(entities)
    memberships = sp.csr_array((np.ones(indices.size, np.int64), indices, indptr))
    common = (memberships @ memberships.T).toarray().astype(np.float64)
    size = np.diff(indptr).astype(np.float64)
    shares: NDArray[np.float64] = common / np.maximum(size, 1.0)[:, None]
    np.fill_diagonal(shares, np.nan)
    return shares


def _long_tail_plot(view: RunView, kind: str, degrees: list[Numbers]) -> str:
    lines = []
    for domain, domain_degrees in zip(view.sizes, degrees, strict=True):
        falling = np.sort(domain_degrees[domain_degrees > 0])[::-1]
        if falling.size:
            ranks = np.unique(np.geomspace(1, falling.size, _TAIL_POINTS).astype(np.int64))
            lines.append(Series((ranks, falling[ranks - 1]), domain_colours(view).get(domain)))
    axes = (f"{kind}s, the busiest first (log scale)", "train interactions (log scale)")
    return line_plot(f"Long tail of {kind}s", axes, lines, scale="log")
