"""A report's section on data: sizes of domains, what was rejected, who lives in two domains, long tails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.compute as pc
import scipy.sparse as sp
from numpy.typing import NDArray

from data_contracts.contracts import INTERACTIONS, ITEM, KINDS, NODES, REJECTS, SPLITS, USER
from data_contracts.store.artifact import Artifact
from flows.output.plots import Series, line_plot
from flows.output.tables import Table
from flows.report.blocks import Block, Plots, Section, heat, legend, number
from flows.runner.lookup import Told

_TAIL_POINTS = 60
"""Of a long tail's line."""


def data_section(told: Told) -> Section:
    """Sizes, overlap, long tails and rejected rows, as far as they are known."""
    blocks: list[Block] = []
    if INTERACTIONS.name in told.artifacts:
        blocks += [_sizes_table(told), *_rejected_tables(told)]
    if NODES.name in told.artifacts:
        entities, degrees = _nodes_by_domain(told)
        if len(told.sizes) > 1:
            title = "Overlap of {}s: % of the row's that also live in the column"
            blocks += [heat(told, title.format(kind), _overlap(entities[kind])) for kind in KINDS]
        blocks.append(Plots([_tails(told, kind, degrees[kind]) for kind in KINDS], legend(told)))
    return Section("Data", blocks)


def _sizes_table(told: Told) -> Table:
    domains = _statistics(told, INTERACTIONS.name)
    anchors = _statistics(told, NODES.name)
    names = ("users", "items", *SPLITS, "duplicates", "leaked", "cold")
    rows = []
    for domain, size in told.sizes.items():
        found = domains.get(domain, {})
        each = size / found["users"] if found.get("users") else None
        known = [number(anchors.get(domain, {}).get("anchors")), *(number(found.get(name)) for name in names)]
        rows.append((domain, number(size), number(each, 1), *known))
    return Table("Domains, the largest first", ("domain", "interactions", "per user", "anchors", *names), tuple(rows))


def _rejected_tables(told: Told) -> list[Table]:
    if REJECTS.name not in told.artifacts:
        return []
    found = told.artifacts[REJECTS.name].statistics
    rows = tuple((reason, number(count)) for reason, count in sorted(found.get("reasons", {}).items()))
    title = f"Rejected, of {number(found.get('raw_rows'))} raw rows"
    return [Table(title if rows else f"{title}: none", ("reason", "rows"), rows)]


def _statistics(told: Told, role: str) -> dict[str, Any]:
    artifact = told.artifacts.get(role)
    return dict(artifact.statistics.get("domains", {})) if artifact else {}


Numbers = NDArray[np.int32]


def _nodes_by_domain(told: Told) -> tuple[dict[str, list[Numbers]], dict[str, list[Numbers]]]:
    """By kind, for each domain: its users' or items' numbers over all domains, and their train degrees."""
    nodes: Artifact = told.artifacts[NODES.name]
    entities: dict[str, list[Numbers]] = {USER: [], ITEM: []}
    degrees: dict[str, list[Numbers]] = {USER: [], ITEM: []}
    for domain in told.sizes:
        table = nodes.read(["kind", "entity", "train_degree"], domain=domain)
        for kind in KINDS:
            own = table.filter(pc.equal(table["kind"], kind))
            entities[kind].append(own["entity"].to_numpy())
            degrees[kind].append(own["train_degree"].to_numpy())
    return entities, degrees


def _overlap(entities: list[Numbers]) -> NDArray[np.float64]:
    """float64 [domains, domains]: share of the row domain's entities that the column domain has too, NaN on itself."""
    indptr = np.cumsum([0, *(own.size for own in entities)])
    indices = np.concatenate(entities)
    lives = sp.csr_array((np.ones(indices.size, np.int64), indices, indptr))
    common = (lives @ lives.T).toarray().astype(np.float64)
    size = np.diff(indptr).astype(np.float64)
    shares: NDArray[np.float64] = common / np.maximum(size, 1.0)[:, None]
    np.fill_diagonal(shares, np.nan)
    return shares


def _tails(told: Told, kind: str, degrees: list[Numbers]) -> str:
    lines = []
    for domain, own in zip(told.sizes, degrees, strict=True):
        falling = np.sort(own[own > 0])[::-1]
        if falling.size:
            places = np.unique(np.geomspace(1, falling.size, _TAIL_POINTS).astype(np.int64))
            lines.append(Series((places, falling[places - 1]), told.colours.get(domain)))
    axes = (f"{kind}s, the busiest first", "train interactions")
    return line_plot(f"Long tail of {kind}s", axes, lines, scale="log")
