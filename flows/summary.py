"""A run's results as tables: metrics by domain, where the artifacts are, what they weigh."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.artifact import Artifact
from data_contracts.contracts import INTERACTIONS, MACRO, METRICS, SHARE, TEST
from data_contracts.files import partition_of

if TYPE_CHECKING:
    from flows.running import Outcome


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


def costs_table(outcome: Outcome) -> Table:
    """What each stage of a run took, the last time that it had something to do; memory is unknown of another run's."""
    stages: dict[str, list[str]] = {}
    for role in outcome.artifacts:
        stages.setdefault(outcome.plan.steps[role].stage, []).append(role)
    rows = []
    for stage, roles in stages.items():
        cost = outcome.costs.get(stage)
        taken = cost.seconds if cost else sum(outcome.artifacts[role].manifest.made["seconds"] for role in roles)
        state = "made" if set(roles) & set(outcome.made) else "kept"
        rows.append((stage, ", ".join(roles), f"{taken:.1f}", f"{cost.memory_mib:,}" if cost else "–", state))
    return Table("Time and peak memory by stage", ("stage", "artifacts", "seconds", "MiB", "state"), tuple(rows))


def markdown_summary(outcome: Outcome, curve: str | None = None) -> str:
    """The page a scheduler shows for a run: metrics and learning curve where there are any, then costs and artifacts.

    Args:
        outcome: of the run.
        curve: address of the learning curve's picture.
    """
    name, artifacts = outcome.config.name, outcome.artifacts
    parts = [f"# EDDA run `{name}`"]
    parts += [metrics_table(artifacts).markdown()] if METRICS.name in artifacts else []
    parts += [f"![Loss and validation score by epoch]({curve})"] if curve else []
    return "\n\n".join(
        [*parts, costs_table(outcome).markdown(), artifacts_table(name, artifacts, outcome.made).markdown()]
    )


def _interval(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "–"
    return f"{found['value']:.3f} ({found['low']:.3f}–{found['high']:.3f})"


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _aligned(cell: str, width: int, right: bool | int) -> str:
    return cell.rjust(width) if right else cell.ljust(width)
