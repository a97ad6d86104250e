"""Tables of a run's results: metrics by domain, artifacts and their sizes, and what an update reused."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO

import pyarrow as pa
import pyarrow.compute as pc
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from data_contracts.contracts import (
    ALL,
    BEYOND_ACCURACY,
    CHECKPOINT,
    COVERAGE,
    INTERACTIONS,
    MACRO,
    METRICS,
    NODES,
    PAIRS,
    POPULARITY,
    REACH,
    SHARE,
    TAIL_SHARE,
    TEST,
)
from data_contracts.literals import literal
from data_contracts.roles import Role
from data_contracts.statistics import CheckpointStatistics, NodesStatistics, PairsStatistics, ReachStatistics
from data_contracts.store.artifact import Artifact
from data_contracts.store.files import parse_partition
from flows.output.characters import escape

_FLOOR = 30
"""Characters of a cell that stay in one line of a narrow terminal; longer ones are wrapped."""
_GAP = 2


@dataclass(frozen=True)
class Table:
    """A small table of text.

    Attributes:
        title: above it.
        header: names of the columns.
        rows: cells.
        left: all columns are aligned left; else only the first, and the others right.
        together: columns after the first that stay beside each other where the table is divided to fit a terminal.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: bool = False
    together: int = 1

    def plain(self, width: int | None = None) -> str:
        """Aligned columns for a terminal or a log.

        Args:
            width: of the terminal. Long cells are wrapped, and columns that do not fit follow in a further table, after
                the first column once more. None: as wide as need be.
        """
        cells = [tuple(map(escape, line)) for line in (self.header, *self.rows)]
        widths = [max(cell_len(line[column]) for line in cells) for column in range(len(self.header))]
        title = escape(self.title, "\n")
        if width is None:
            lines = ((" " * _GAP).join(map(self._pad, range(len(line)), line, widths)).rstrip() for line in cells)
            return "\n".join([title, *lines])
        cells = [
            tuple(
                cell if self._is_left(column) or widths[column] > _FLOOR else self._pad(column, cell, widths[column])
                for column, cell in enumerate(line)
            )
            for line in cells
        ]
        title = "\n".join(textwrap.fill(line, width, break_on_hyphens=False) for line in title.split("\n"))
        blocks = ["\n".join(_render(cells, columns, width)) for columns in self._fitting(widths, width)]
        return f"{title}\n" + "\n\n".join(blocks)

    def _is_left(self, column: int) -> bool:
        return self.left or not column

    def _pad(self, column: int, cell: str, width: int) -> str:
        """The cell as wide as its column; its own spaces stay."""
        space = " " * (width - cell_len(cell))
        return cell + space if self._is_left(column) else space + cell

    def _fitting(self, widths: Sequence[int], width: int) -> list[list[int]]:
        """Columns of each block, the first column in all of them."""
        blocks, room = [[0]], width - min(widths[0], _FLOOR)
        for start in range(1, len(widths), self.together):
            columns = range(start, min(start + self.together, len(widths)))
            needed = sum(min(widths[column], _FLOOR) + _GAP for column in columns)
            if needed > room and len(blocks[-1]) > 1:
                blocks.append([0])
                room = width - min(widths[0], _FLOOR)
            blocks[-1] += columns
            room -= needed
        return blocks

    def markdown(self, bold: str = "") -> str:
        """A Markdown table under its title; the first cell of a row is bold if it is the given one."""
        rule = ("---", *("---" if self.left else "---:" for _ in self.header[1:]))
        cells = (map(_quote, line) for line in (self.header, rule, *self.rows))
        shown = ([f"**{first}**" if first == bold else first, *rest] for first, *rest in cells)
        lines = ("| " + " | ".join(line) + " |" for line in shown)
        return "\n".join([f"**{_quote(self.title)}**", "", *lines])


def _quote(text: str) -> str:
    """Text in a Markdown table, without characters that would end a cell or begin emphasis."""
    return re.sub(r"[|*]", r"\\\g<0>", escape(text))


def _render(cells: Sequence[tuple[str, ...]], columns: Sequence[int], width: int) -> Iterator[str]:
    """Lines of some columns, cells wrapped to the width, without trailing spaces."""
    grid = Grid.grid(padding=(0, _GAP, 0, 0), pad_edge=False)
    for _ in columns:
        grid.add_column(overflow="fold")
    for line in cells:
        grid.add_row(*(Text(line[column]) for column in columns))
    console = Console(file=StringIO(), width=width, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(grid)
    return (line.rstrip() for line in capture.get().splitlines())


Values = Mapping[tuple[str, str], Mapping[str, float]]
"""(domain, metric) → value, low, high, rows, users."""


def metric_values(metrics: Artifact, split: str = TEST) -> dict[tuple[str, str], dict[str, float]]:
    """The estimates of one split by all held-out rows, as means over seeds if there are several."""
    return values_by_stratum(metrics, split).get(ALL, {})


def values_by_stratum(metrics: Artifact, split: str = TEST) -> dict[str, dict[tuple[str, str], dict[str, float]]]:
    """The estimates of one split by stratum, as means over seeds if there are several."""
    table = metrics.read()
    table = table.filter(pc.equal(table["split"], literal(split)))
    overall = table.filter(pc.is_null(table["seed"]))
    estimates: pa.Table = overall if overall.num_rows else table
    values: dict[str, dict[tuple[str, str], dict[str, float]]] = {}
    for row in estimates.to_pylist():
        of_stratum = values.setdefault(row["stratum"], {})
        of_stratum[row["domain"], row["metric"]] = {
            name: row[name] for name in ("value", "low", "high", "rows", "users")
        }
    return values


WHERE_FROM = "Where scores come from: shares of their spread over a domain's items, mean over test users"

LISTS = "What is recommended: the 20 best items of each test user"
"""Title of tables of measures beyond accuracy."""

NOTHING_MEASURED = "No test row is left, so nothing was measured; see ingest.split and the rejects."


def metrics_table(artifacts: Mapping[str, Artifact], title: str = "Test metrics by domain (95 % interval)") -> Table:
    """Domains down, metrics across; domains by size, those without a test row with dashes, the mean last."""
    values = metric_values(artifacts[METRICS.name])
    names = metric_names(values)
    sizes = domain_sizes(artifacts)
    rows = []
    for domain in ordered_domains(values, sizes, with_unmeasured=bool(values)):
        cells = [format_interval(values.get((domain, name))) for name in names]
        rows.append((domain, _count(sizes.get(domain)), *cells))
    return Table(title, ("domain", "interactions", *names), tuple(rows))


def shares_table(artifacts: Mapping[str, Artifact]) -> Table | None:
    """Where the scores of each domain come from, in percent; None if it was not measured."""
    values = metric_values(artifacts[METRICS.name])
    names = share_names(values)
    rows = tuple(
        (domain, *format_shares(values, domain, names)) for domain in ordered_domains(values, domain_sizes(artifacts))
    )
    return Table(WHERE_FROM, ("domain", *(name.removeprefix(SHARE) for name in names)), rows) if names else None


def format_shares(values: Values, domain: str, names: Iterable[str]) -> tuple[str, ...]:
    """A domain's shares as text, with a dash for one that is missing."""
    shares = (values.get((domain, name)) for name in names)
    return tuple("–" if share is None else f"{share['value']:.0%}" for share in shares)


def lists_table(artifacts: Mapping[str, Artifact]) -> Table | None:
    """What is recommended in each domain: coverage, novelty, popularity; None if it was not measured."""
    values = metric_values(artifacts[METRICS.name])
    rows = tuple(
        (domain, *format_list_measures(values, domain))
        for domain in ordered_domains(values, domain_sizes(artifacts))
        if (domain, COVERAGE) in values
    )
    return Table(f"{LISTS}, by domain", ("domain", *BEYOND_ACCURACY), rows) if rows else None


def format_list_measures(values: Values, domain: str) -> tuple[str, ...]:
    """A domain's measures beyond accuracy as text, with a dash for one that is missing."""
    formats = {COVERAGE: ".1%", TAIL_SHARE: ".1%", POPULARITY: ",.1f"}
    measures = {metric: values.get((domain, metric)) for metric in BEYOND_ACCURACY}
    return tuple(
        "–" if measure is None else format(measure["value"], formats.get(metric, ".3f"))
        for metric, measure in measures.items()
    )


def stratified_metrics(values: Values) -> list[str]:
    """The metrics that strata have: recall and NDCG of full rankings."""
    return [name for name in metric_names(values) if name.startswith(("full_recall@", "full_ndcg@"))]


def metric_names(values: Values) -> list[str]:
    """Measures of accuracy, in the order in which they were written."""
    names = dict.fromkeys(metric for _, metric in values)
    return [metric for metric in names if not metric.startswith(SHARE) and metric not in BEYOND_ACCURACY]


def share_names(values: Values) -> list[str]:
    """Measures of where scores come from, in the order in which they were written; they add up to 1."""
    return list(dict.fromkeys(metric for _, metric in values if metric.startswith(SHARE)))


def ordered_domains(values: Values, sizes: Mapping[str, int], *, with_unmeasured: bool = False) -> list[str]:
    """Domains with values, or all, from largest to smallest, then `macro`."""
    domains = dict.fromkeys([*(domain for domain, _ in values), *(sizes if with_unmeasured else ())])
    return sorted(domains, key=lambda domain: (domain == MACRO, -sizes.get(domain, 0), domain))


def domain_sizes(artifacts: Mapping[str, Artifact]) -> dict[str, int]:
    """Interactions by domain, from the manifest."""
    sizes: dict[str, int] = {}
    if INTERACTIONS.name in artifacts:
        for entry in artifacts[INTERACTIONS.name].manifest.files:
            domain = parse_partition(entry.path).get("domain", "")
            sizes[domain] = sizes.get(domain, 0) + (entry.rows or 0)
    return sizes


def artifacts_table(name: str, artifacts: Mapping[str, Artifact], made: Iterable[str] = ()) -> Table:
    """Rows, size and seconds of each artifact of a run, and whether it was made just now."""
    new = set(made)
    rows = []
    for role, artifact in artifacts.items():
        manifest = artifact.manifest
        size = sum(entry.size for entry in manifest.files)
        state = "made" if role in new else "kept"
        rows.append((role, f"{manifest.rows:,}", f"{size / 2**20:.2f}", f"{manifest.made['seconds']:.1f}", state))
    store = next((artifact.address.rsplit("/", 2)[0] for artifact in artifacts.values()), "")
    return Table(f"Artifacts in {store}/runs/{name}/", ("artifact", "rows", "MiB", "seconds", "state"), tuple(rows))


def format_interval(estimate: Mapping[str, float] | None) -> str:
    """An estimate with its interval as text, a dash if it is missing."""
    if estimate is None:
        return "–"
    return f"{estimate['value']:.3f} ({estimate['low']:.3f}–{estimate['high']:.3f})"


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def reuse_table(artifacts: Mapping[str, Artifact]) -> Table | None:
    """What an update has taken from the earlier run: known domains and nodes, copied vectors and pairs, warm tables.

    Args:
        artifacts: of a run, by role.

    Returns:
        None if the run is from scratch.
    """
    parents = artifacts[INTERACTIONS.name].manifest.parents if INTERACTIONS.name in artifacts else {}
    previous_nodes = parents.get(str(Role(NODES).previous))
    if previous_nodes is None:
        return None
    rows = tuple(row for role, artifact in artifacts.items() for row in _reuse_rows(role, artifact))
    return Table(f"Taken from before (nodes {previous_nodes})", ("artifact", "what", "taken", "of", "new"), rows)


def _reuse_rows(role: str, artifact: Artifact) -> Iterator[tuple[str, ...]]:
    if artifact.contract is NODES:
        yield from _known_rows(role, artifact.statistics_as(NodesStatistics))
    elif artifact.contract is REACH:
        for domain, reach in artifact.statistics_as(ReachStatistics)["domains"].items():
            yield _reuse_row(role, f"vectors of {domain}", reach["copied"], reach["nodes"])
    elif artifact.contract is PAIRS:
        pairs = artifact.statistics_as(PairsStatistics)
        yield _reuse_row(role, "pairs of domains", pairs["copied"], pairs["pairs_of_domains"])
    elif artifact.contract is CHECKPOINT:
        yield from _warm_start_rows(role, artifact.statistics_as(CheckpointStatistics))


def _known_rows(role: str, statistics: NodesStatistics) -> Iterator[tuple[str, ...]]:
    known = {domain: nodes["known"] for domain, nodes in statistics["domains"].items() if "known" in nodes}
    if known:
        yield _reuse_row(role, "domains", sum(any(counts.values()) for counts in known.values()), len(known))
    for domain, counts in known.items():
        nodes = statistics["domains"][domain]
        yield _reuse_row(role, f"users of {domain}", counts["users"], nodes["users"])
        yield _reuse_row(role, f"items of {domain}", counts["items"], nodes["items"])


def _warm_start_rows(role: str, statistics: CheckpointStatistics) -> Iterator[tuple[str, ...]]:
    warm_start = statistics.get("warm_start")
    if warm_start is None:
        return
    for name, rows in warm_start["tables"].items():
        total = rows["kept"] + rows["from_neighbours"] + rows["as_usual"]
        note = f"{rows['from_neighbours']:,} from neighbours, {rows['as_usual']:,} as usual"
        yield role, f"rows of {name}", f"{rows['kept']:,}", f"{total:,}", note
    if seen := warm_start["held_out_rows_seen"]:
        yield role, "held-out rows that were trained on before", f"{seen:,}", "", ""


def _reuse_row(role: str, what: str, taken: int, total: int) -> tuple[str, ...]:
    return role, what, f"{taken:,}", f"{total:,}", f"{total - taken:,}"
