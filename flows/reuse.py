"""What an update took from the run before it, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from data_contracts.artifact import Artifact
from data_contracts.contracts import BEFORE, CHECKPOINT, INTERACTIONS, KINDS, NODES, PAIRS, REACH
from flows.summary import Table


def reuse_table(artifacts: Mapping[str, Artifact]) -> Table | None:
    """Domains, users and items that were known, what was copied or started from, of all there are.

    Args:
        artifacts: of a run, by role.

    Returns:
        None where the run is from scratch.
    """
    made_from = artifacts[INTERACTIONS.name].manifest.parents if INTERACTIONS.name in artifacts else {}
    before = made_from.get(f"{NODES.name}-{BEFORE}")
    if before is None:
        return None
    rows = tuple(row for role, artifact in artifacts.items() for row in _reused(role, artifact))
    return Table(f"Taken from before (nodes {before})", ("artifact", "what", "taken", "of", "new"), rows)


def _reused(role: str, artifact: Artifact) -> Iterator[tuple[str, ...]]:
    found = artifact.statistics
    domains = found.get("domains", {}).items()
    if artifact.contract is NODES:
        yield from _known(role, {domain: of for domain, of in domains if "known" in of})
    elif artifact.contract is REACH:
        yield from (
            _row(role, f"vectors of {domain}", of["copied"], of["nodes"]) for domain, of in domains if "copied" in of
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


def _known(role: str, domains: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    if domains:
        yield _row(role, "domains", sum(any(of["known"].values()) for of in domains.values()), len(domains))
    for domain, of in domains.items():
        yield from (_row(role, f"{kind}s of {domain}", of["known"][f"{kind}s"], of[f"{kind}s"]) for kind in KINDS)


def _row(role: str, what: str, taken: int, of: int) -> tuple[str, ...]:
    return role, what, f"{taken:,}", f"{of:,}", f"{of - taken:,}"
