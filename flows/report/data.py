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
from flows.report.blocks import Block, Plots, Section, colours_of, heat, legend, number
from flows.runner.lookup import RunView

_TAIL_POINTS = 60
"""Of a long tail's line."""


def data_section(view: RunView) -> Section:
    """Sizes, overlap, long tails and rejected rows, as far as they are known."""
    blocks: list[Block] = []
    if INTERACTIONS.name in view.artifacts:
        blocks += [_sizes_table(view), *_rejected_tables(view)]
    if NODES.name in view.artifacts:
        entities, degrees = _nodes_by_domain(view)
        if len(view.sizes) > 1:
            title = "Overlap of {}s: % of the row's that also live in the column"
            blocks += [heat(view, title.format(kind), _overlap(entities[kind])) for kind in KINDS]
        blocks.append(Plots([_tails(view, kind, degrees[kind]) for kind in KINDS], legend(view)))
    return Section("Data", blocks)


def _sizes_table(view: RunView) -> Table:
    domains = _statistics(view, INTERACTIONS.name)
    anchors = _statistics(view, NODES.name)
    names = ("users", "items", *SPLITS, "duplicates", "leaked", "cold")
    rows = []
    for domain, size in view.sizes.items():
        found = domains.get(domain, {})
        each = size / found["users"] if found.get("users") else None
        known = [number(anchors.get(domain, {}).get("anchors")), *(number(found.get(name)) for name in names)]
        rows.append((domain, number(size), number(each, 1), *known))
    return Table("Domains, the largest first", ("domain", "interactions", "per user", "anchors", *names), tuple(rows))


def _rejected_tables(view: RunView) -> list[Table]:
    if REJECTS.name not in view.artifacts:
        return []
    found = view.artifacts[REJECTS.name].statistics
    rows = tuple((reason, number(count)) for reason, count in sorted(found.get("reasons", {}).items()))
    title = f"Rejected, of {number(found.get('raw_rows'))} raw rows"
    return [Table(title if rows else f"{title}: none", ("reason", "rows"), rows)]


def _statistics(view: RunView, role: str) -> dict[str, Any]:
    artifact = view.artifacts.get(role)
    return dict(artifact.statistics.get("domains", {})) if artifact else {}


Numbers = NDArray[np.int32]


def _nodes_by_domain(view: RunView) -> tuple[dict[str, list[Numbers]], dict[str, list[Numbers]]]:
    """By kind, for each domain: its users' or items' numbers over all domains, and their train degrees."""
    nodes: Artifact = view.artifacts[NODES.name]
    entities: dict[str, list[Numbers]] = {USER: [], ITEM: []}
    degrees: dict[str, list[Numbers]] = {USER: [], ITEM: []}
    for domain in view.sizes:
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


def _tails(view: RunView, kind: str, degrees: list[Numbers]) -> str:
    lines = []
    for domain, own in zip(view.sizes, degrees, strict=True):
        falling = np.sort(own[own > 0])[::-1]
        if falling.size:
            places = np.unique(np.geomspace(1, falling.size, _TAIL_POINTS).astype(np.int64))
            lines.append(Series((places, falling[places - 1]), colours_of(view).get(domain)))
    axes = (f"{kind}s, the busiest first", "train interactions")
    return line_plot(f"Long tail of {kind}s", axes, lines, scale="log")
