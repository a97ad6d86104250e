"""A report's section on evidence from walks: accuracy of vectors and evidence by the share of evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_contracts.contracts import BLEND, METRICS
from data_contracts.store.artifact import Artifact
from flows.output.plots import COLOURS, STANDS_OUT, Series, line_plot
from flows.output.tables import Table, shares_table
from flows.report.blocks import Block, Collapsed, Note, Plots, Section, number
from flows.runner.lookup import RunView

_OPEN = 4
"""Number of domains, the largest ones, whose curve is not collapsed."""

_PLOTTED_DOMAINS = 30

_CURVES = (
    "The share of evidence is how far evidence from walks spreads over a domain's items, in the sum of that and the "
    "spread of the vectors' scores, for the median user; the dot is the blend that is served. A domain with few "
    "validation users leans on the others' curves, so its dot may lie beside its own top."
)
_SHARES = (
    "inter: the table that all domains share; intra: the domain's own; evidence: walks from the user's items in all "
    "domains. A part with a small share hardly moves an item up or down."
)
_NO_EVIDENCE = "This run ranks by vectors alone: blend.evidence is false."


def evidence_section(view: RunView) -> Section:
    """The curve that each domain's blend was chosen from, and where scores come from, vectors and evidence."""
    blends = {role.partition("-")[2]: blend for role, blend in view.artifacts.items() if blend.contract is BLEND}
    blocks = _blend_blocks(view, blends) if blends else []
    if not (blends or view.config.get("blend", {}).get("evidence", False)):
        blocks = [Note(_NO_EVIDENCE)]
    shares = shares_table(view.artifacts) if METRICS.name in view.artifacts else None
    return Section("Evidence from walks", [*blocks, shares, Note(_SHARES)] if shares else blocks, _summarise(blends))


def _summarise(blends: Mapping[str, Artifact]) -> str:
    """One sentence: how much evidence weighs."""
    shares = [curve.shares[curve.chosen] for blend in blends.values() for curve in _read_curves(blend).values()]
    if not shares:
        return ""
    return (
        "Items are ranked by what the model learned, the vectors, and by short walks from what the user has, the "
        f"evidence; how much evidence weighs was fitted to the validation split: {min(shares):.0%} to "
        f"{max(shares):.0%}, by domain."
    )


def _blend_blocks(view: RunView, blends: Mapping[str, Artifact]) -> list[Block]:
    """Tables and plots of the blends.

    Args:
        view: the run.
        blends: by seed.
    """
    curves = [_read_curves(blend) for blend in blends.values()]
    domains = [domain for domain in view.sizes if all(domain in by_domain for by_domain in curves)]
    by_domain = {domain: [curves_of_seed[domain] for curves_of_seed in curves] for domain in domains}
    seeds = {f"seed {seed}": number % COLOURS for number, seed in enumerate(blends)} if len(blends) > 1 else {}
    plots = [_plot(domain, by_domain[domain]) for domain in domains[:_PLOTTED_DOMAINS]]
    blocks: list[Block] = [_table(by_domain), Note(_CURVES), Plots(plots[:_OPEN], seeds)]
    return [*blocks, Collapsed("Smaller domains", [Plots(plots[_OPEN:], seeds)])] if plots[_OPEN:] else blocks


@dataclass(frozen=True)
class _Curve:
    """The blends that were tried in one domain for one seed, by ascending share of evidence.

    Attributes:
        shares: float64 (blends), from 0, vectors alone, to 1, evidence alone, if these were tried.
        ndcg: float64 (blends), NDCG@20 of each.
        chosen: position of the blend that is served.
        users: number of validation users that it was chosen by.
    """

    shares: NDArray[np.float64]
    ndcg: NDArray[np.float64]
    chosen: int
    users: int

    def at(self, share: float) -> float:
        """NDCG@20 of a share, NaN if it was not tried."""
        tried = self.ndcg[self.shares == share]
        return float(tried[0]) if tried.size else float("nan")


def _read_curves(blend: Artifact) -> dict[str, _Curve]:
    """Read the curves of all domains."""
    table = blend.read(["domain", "share", "full_ndcg@20", "users", "chosen"])
    curves = {}
    for domain in pc.unique(table["domain"]).to_pylist():
        rows = table.filter(pc.equal(table["domain"], domain))
        shares, ndcg = rows["share"].to_numpy(), rows["full_ndcg@20"].to_numpy()
        curves[domain] = _Curve(shares, ndcg, rows["chosen"].to_pylist().index(True), rows["users"][0].as_py())
    return curves


def _table(curves_by_domain: dict[str, list[_Curve]]) -> Table:
    """Accuracy of vectors and evidence, alone and blended, as means over seeds."""
    rows = []
    for domain, curves in curves_by_domain.items():
        vectors_alone, evidence_alone = (float(np.mean([curve.at(share) for curve in curves])) for share in (0.0, 1.0))
        blended = float(np.mean([curve.ndcg[curve.chosen] for curve in curves]))
        share = float(np.mean([curve.shares[curve.chosen] for curve in curves]))
        measures = [number(None if np.isnan(ndcg) else ndcg, 4) for ndcg in (vectors_alone, evidence_alone, blended)]
        rows.append((domain, number(curves[0].users), number(share, 2), *measures))
    header = ("domain", "users", "share of evidence", "vectors alone", "evidence alone", "blend")
    return Table("Full NDCG@20 on the validation split, largest domains first", header, tuple(rows))


def _plot(domain: str, curves: Sequence[_Curve]) -> str:
    lines = [Series((curve.shares, curve.ndcg), colour) for colour, curve in enumerate(curves)]
    dots = [Series((curve.shares[[curve.chosen]], curve.ndcg[[curve.chosen]]), STANDS_OUT) for curve in curves]
    axes = "share of evidence (0: vectors alone, 1: evidence alone)", "full NDCG@20"
    return line_plot(domain, axes, [*lines, *dots])
