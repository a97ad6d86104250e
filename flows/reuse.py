"""What an update took from the run before it, as a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from data_contracts.artifact import Artifact
from data_contracts.contracts import CHECKPOINT, NODES, PAIRS, REACH
from flows.summary import Table

if TYPE_CHECKING:
    from flows.running import Outcome


def reuse_table(outcome: Outcome) -> Table | None:
    """Rows, pairs of domains and tables that were copied or started from, of all there are; None from scratch."""
    if not outcome.plan.before:
        return None
    rows = tuple(row for role, artifact in outcome.artifacts.items() for row in _reused(role, artifact))
    return Table(
        f"Taken from before (nodes {outcome.plan.before[NODES.name]})", ("artifact", "what", "taken", "of", "new"), rows
    )


def _reused(role: str, artifact: Artifact) -> Iterator[tuple[str, ...]]:
    found = artifact.statistics
    if artifact.contract is REACH:
        of_domains = found["domains"].items()
        yield from (
            _row(role, f"vectors of {domain}", of["copied"], of["nodes"]) for domain, of in of_domains if "copied" in of
        )
    elif artifact.contract is PAIRS and "copied" in found:
        yield _row(role, "pairs of domains", found["copied"], found["pairs_of_domains"])
    elif artifact.contract is CHECKPOINT and "warm_start" in found:
        for name, rows in found["warm_start"]["tables"].items():
            note = f"{rows['from_neighbours']:,} from neighbours, {rows['as_usual']:,} as usual"
            yield (*_row(role, f"rows of {name}", rows["kept"], sum(rows.values()))[:-1], note)
        seen = found["warm_start"]["held_out_rows_seen"]
        if seen:
            yield role, "held-out rows that were trained on before", f"{seen:,}", "", ""


def _row(role: str, what: str, taken: int, of: int) -> tuple[str, ...]:
    return role, what, f"{taken:,}", f"{of:,}", f"{of - taken:,}"
