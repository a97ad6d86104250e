"""A run's results as tables: metrics by domain, where the artifacts are, what they weigh."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import (
    CHECKPOINT,
    INTERACTIONS,
    KINDS,
    MACRO,
    METRICS,
    NODES,
    PAIRS,
    REACH,
    SHARE,
    TEST,
    Role,
)
from data_contracts.store.artifact import Artifact
from data_contracts.store.files import partition_of


@dataclass(frozen=True)
class Table:
    """A small table of text: a title, a header, rows; first column left, the others right, unless all are `left`."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: bool = False

    def plain(self) -> str:
        """Aligned columns for a terminal or a log."""
        lines = [self.header, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.header))]
        text = ["  ".join(_aligned(cell, width, i and not self.left)
                          for i, (cell, width) in enumerate(zip(line, widths, strict=True)))
                for line in lines]  # fmt: skip
        return "\n".join([self.title, *(line.rstrip() for line in text)])

    def markdown(self) -> str:
        """A Markdown table under its title."""
        rule = ("---", *("---" if self.left else "---:" for _ in self.header[1:]))
        lines = ("| " + " | ".join(line) + " |" for line in (self.header, rule, *self.rows))
        return "\n".join([f"**{self.title}**", "", *lines])


Values = Mapping[tuple[str, str], Mapping[str, float]]
"""(domain, metric) → value, low, high, rows."""


def metric_values(metrics: Artifact, split: str = TEST) -> dict[tuple[str, str], dict[str, float]]:
    """The estimates of one split, the mean over seeds where there are several."""
    table = metrics.read()
    table = table.filter(pc.equal(table["split"], split))
    overall = table.filter(pc.is_null(table["seed"]))
    chosen: pa.Table = overall if overall.num_rows else table
    return {(row["domain"], row["metric"]): {name: row[name] for name in ("value", "low", "high", "rows")}
            for row in chosen.to_pylist()}  # fmt: skip


WHERE_FROM = "Where scores come from: shares of their spread over a domain's items, mean over test users"

NOTHING_MEASURED = "No test row is left, so nothing was measured; see ingest.split and the rejects."


def metrics_table(artifacts: Mapping[str, Artifact], title: str = "Test metrics by domain (95 % interval)") -> Table:
    """Domains down, metrics across; domains by size, the mean last."""
    values = metric_values(artifacts[METRICS.name])
    names = metric_names(values)
    sizes = domain_sizes(artifacts)
    rows = []
    for domain in ordered_domains(values, sizes):
        cells = [_interval(values.get((domain, name))) for name in names]
        rows.append((domain, _count(sizes.get(domain)), *cells))
    return Table(title, ("domain", "interactions", *names), tuple(rows))


def shares_table(artifacts: Mapping[str, Artifact]) -> Table | None:
    """Where the scores of each domain come from, in percent; None where it was not measured."""
    values = metric_values(artifacts[METRICS.name])
    names = share_names(values)
    rows = tuple(
        ("mean" if domain == MACRO else domain, *shares_of(values, domain, names))
        for domain in ordered_domains(values, domain_sizes(artifacts))
    )
    return Table(WHERE_FROM, ("domain", *(name.removeprefix(SHARE) for name in names)), rows) if names else None


def shares_of(values: Values, domain: str, names: Iterable[str]) -> tuple[str, ...]:
    """A domain's shares as text, a dash where there is none."""
    found = (values.get((domain, name)) for name in names)
    return tuple("–" if share is None else f"{share['value']:.0%}" for share in found)


def metric_names(values: Values) -> list[str]:
    """Measures of accuracy in the order in which they were written."""
    return [metric for metric in _written(values) if not metric.startswith(SHARE)]


def share_names(values: Values) -> list[str]:
    """Measures of where scores come from, in the order in which they were written; they add up to 1."""
    return [metric for metric in _written(values) if metric.startswith(SHARE)]


def _written(values: Values) -> list[str]:
    return list(dict.fromkeys(metric for _, metric in values))


def ordered_domains(values: Values, sizes: Mapping[str, int]) -> list[str]:
    """Domains from largest to smallest, then `macro`."""
    domains = dict.fromkeys(domain for domain, _ in values)
    return sorted(domains, key=lambda domain: (domain == MACRO, -sizes.get(domain, 0), domain))


def domain_sizes(artifacts: Mapping[str, Artifact]) -> dict[str, int]:
    """Interactions by domain, from the manifest."""
    sizes: dict[str, int] = {}
    if INTERACTIONS.name in artifacts:
        for entry in artifacts[INTERACTIONS.name].manifest.files:
            domain = partition_of(entry.path).get("domain", "")
            sizes[domain] = sizes.get(domain, 0) + (entry.rows or 0)
    return sizes


def artifacts_table(name: str, artifacts: Mapping[str, Artifact], made: Iterable[str] = ()) -> Table:
    """What each artifact of a run holds, weighs and cost, whether it is new, and where it is."""
    new = set(made)
    rows = []
    for role, artifact in artifacts.items():
        manifest = artifact.manifest
        size = sum(entry.size for entry in manifest.files)
        state = "made" if role in new else "kept"
        rows.append((role, f"{manifest.rows:,}", f"{size / 2**20:.2f}", f"{manifest.made['seconds']:.1f}", state))
    store = next((artifact.address.rsplit("/", 2)[0] for artifact in artifacts.values()), "")
    return Table(f"Artifacts in {store}/runs/{name}/", ("artifact", "rows", "MiB", "seconds", ""), tuple(rows))


def _interval(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "–"
    return f"{found['value']:.3f} ({found['low']:.3f}–{found['high']:.3f})"


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _aligned(cell: str, width: int, right: bool | int) -> str:
    return cell.rjust(width) if right else cell.ljust(width)


def reuse_table(artifacts: Mapping[str, Artifact]) -> Table | None:
    """Domains, users and items that were known, what was copied or started from, of all there are.

    Args:
        artifacts: of a run, by role.

    Returns:
        None where the run is from scratch.
    """
    made_from = artifacts[INTERACTIONS.name].manifest.parents if INTERACTIONS.name in artifacts else {}
    before = made_from.get(str(Role(NODES).previous))
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
