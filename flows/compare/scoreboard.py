"""The scoreboard: a page with a section for each data set, in which models are compared with the default."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow.compute as pc

from data_contracts.contracts import ALL, BLEND, GRAPH, MACRO, METRICS, NEIGHBOURS, NODES, PAIRS, REACH, TEST
from flows.compare.runs import cautions, cost, difference
from flows.compare.significance import Significance
from flows.compare.tables import SIGNIFICANT, format_cells, small_first
from flows.output.plots import Spread, interval_bars
from flows.output.tables import NOTHING_MEASURED, Table
from flows.runner.lookup import RunView

MEASURE = "full_ndcg@20"
"""What the rows are ordered by, the picture shows and the summary is about."""

_MEASURES = (MEASURE, "full_recall@20", "auc", "recall@1")

_LARGE = 1_000
"""A domain with more test rows counts in the summary."""

_PREPARED = (NODES, GRAPH, NEIGHBOURS, REACH, PAIRS)

_INTRODUCTION = f"""\
# Scoreboard

Models on the test split of each data set, all by the same interactions, candidates and rules. Every model was tuned on
validation by the number of trials that its row says, then trained with several seeds, with evidence from walks and
without. `edda scoreboard` makes this page ([usage](usage.md#scoreboard)).

± is half of a 95 % bootstrap interval over test rows (users, for full rankings), mean over seeds. Differences are to
the default, which is the run's file as it is; † and \\* mark those with p < {SIGNIFICANT} over users and by seed, after
[Holm's correction](method.md#many-comparisons). Seconds are those of preparation (nodes to neighbours and pairs) and of
training one seed; MiB is the most that the process took.
"""


@dataclass(frozen=True)
class Entry:
    """A row of the scoreboard.

    Attributes:
        label: name of the model.
        run: evaluated.
        trials: its settings were chosen from.
        tuning_seconds: duration of these trials.
        is_opponent: a baseline, with evidence or without; not the run itself with other settings.
    """

    label: str
    run: RunView
    trials: int = 0
    tuning_seconds: float = 0.0
    is_opponent: bool = True

    @cached_property
    def margins(self) -> dict[tuple[str, str], float]:
        """Half of the 95 % interval of every (domain, metric): the bootstrap over test rows or users, mean over seeds.

        Those over seeds would be 0 for models without randomness, and so compare nothing.
        """
        table = self.run.artifacts[METRICS.name].read()
        chosen = pc.and_(pc.equal(table["split"], TEST), pc.equal(table["stratum"], ALL))
        by_measure: dict[tuple[str, str], list[float]] = {}
        for row in table.filter(pc.and_(chosen, pc.is_valid(table["seed"]))).to_pylist():
            by_measure.setdefault((row["domain"], row["metric"]), []).append((row["high"] - row["low"]) / 2)
        return {measure: _mean(margins) for measure, margins in by_measure.items()}


@dataclass(frozen=True)
class Board:
    """A data set and its models.

    Attributes:
        name: of the data set.
        entries: the default first.
        left_out: lines about models that could not be made.
    """

    name: str
    entries: Sequence[Entry]
    left_out: Sequence[str] = ()

    @property
    def default(self) -> RunView:
        """The run that the others are compared with."""
        return self.entries[0].run

    @cached_property
    def significance(self) -> Significance:
        """Of all differences from the default."""
        return Significance.build([entry.run for entry in self.entries])

    @cached_property
    def ordered(self) -> list[Entry]:
        """The entries, the best mean over domains first."""
        return sorted(self.entries, key=lambda entry: -entry.run.values.get((MACRO, MEASURE), {"value": -1.0})["value"])

    def standing(self, run: RunView, domain: str = MACRO) -> int:
        """1 for a run that is significantly above the default over users, -1 below it, 0 for neither."""
        delta = difference(run, self.default, (domain, MEASURE))
        p = self.significance.over_users.get((run.name, ALL, domain, MEASURE))
        if delta is None or p is None or p.corrected >= SIGNIFICANT:
            return 0
        return 1 if delta.value > 0 else -1


def section(board: Board, picture: str) -> str:
    """The Markdown of a data set: picture, summary, table of means, tables by domain.

    Args:
        board: the data set.
        picture: address of its picture.
    """
    warnings = [*cautions([entry.run for entry in board.entries]), *board.left_out]
    domains = [domain for domain in small_first(board.default) if domain != MACRO]
    return "\n\n".join(
        [
            f"## {board.name}",
            _describe(board, domains),
            f"![{MEASURE} of the models on {board.name}]({picture})",
            *summary(board),
            *(f"CAUTION: {warning}." for warning in warnings),
            means_table(board).markdown(bold=board.entries[0].label),
            '<details markdown="1">\n<summary>By domain, small ones first</summary>',
            *(_domain_table(board, domain).markdown(bold=board.entries[0].label) for domain in domains),
            "</details>",
        ]
    )


def _describe(board: Board, domains: Sequence[str]) -> str:
    run = board.default
    rows = sum(int(run.values[domain, MEASURE]["rows"]) for domain in domains if (domain, MEASURE) in run.values)
    seeds = ", ".join(str(seed) for seed in run.config["train"]["seeds"])
    return (
        f"{sum(run.sizes.values()):,} interactions in {len(domains)} domains, {rows:,} test rows in full rankings; "
        f"seeds {seeds}; {len(board.entries)} models."
    )


_NO_LARGE = f"No domain has more than {_LARGE:,} test rows."
_STANDINGS = {1: "significantly above", 0: "not significantly different from", -1: "significantly below"}


def summary(board: Board) -> list[str]:
    """Is a baseline above the default in a large domain; the best baseline of each, and of the mean over domains."""
    if (MACRO, MEASURE) not in board.default.values:
        return [NOTHING_MEASURED]
    opponents = [entry for entry in board.ordered if entry.is_opponent]
    if not opponents:
        return []
    tested = {domain: estimate["rows"] for (domain, name), estimate in board.default.values.items() if name == MEASURE}
    large = [domain for domain in small_first(board.default) if domain != MACRO and tested.get(domain, 0) > _LARGE]
    above = [
        f"{entry.label} in {domain}" for entry in opponents for domain in large if board.standing(entry.run, domain) > 0
    ]
    found = f"these baselines are: {', '.join(above)}" if above else "no baseline is"
    first = f"Significantly above the default by {MEASURE} in a domain with more than {_LARGE:,} test rows: {found}."
    best = "; ".join(f"{domain}: {_describe_best(board, opponents, domain)}" for domain in large)
    return [
        *([first, f"The best baseline of each of these domains: {best}."] if large else [_NO_LARGE]),
        f"The best baseline by the mean over domains: {_describe_best(board, opponents, MACRO)}.",
    ]


def _describe_best(board: Board, opponents: Sequence[Entry], domain: str) -> str:
    """The best baseline in a domain, and how it stands beside the default."""
    measured = [entry for entry in opponents if (domain, MEASURE) in entry.run.values]
    best = max(measured, key=lambda entry: entry.run.values[domain, MEASURE]["value"], default=None)
    if best is None:
        return "none is measured"
    delta, standing = difference(best.run, board.default, (domain, MEASURE)), board.standing(best.run, domain)
    return f"{best.label}, {_STANDINGS[standing]} the default" + (f" ({delta})" if delta else "")


def means_table(board: Board) -> Table:
    """Means over domains, and what each model cost; the best first."""
    measures = [name for name in _MEASURES if (MACRO, name) in board.default.values]
    costs = ("prepare s", "train s", "MiB", "trials", "tune s")
    rows = tuple((*_accuracy(board, entry, MACRO, measures), *_cost_cells(entry)) for entry in board.ordered)
    return Table(f"{MACRO}, the mean over domains", ("model", *_header(measures), *costs), rows)


def _domain_table(board: Board, domain: str) -> Table:
    measures = [name for name in _MEASURES if (domain, name) in board.default.values]
    tested = max((int(board.default.values[domain, name]["rows"]) for name in measures), default=0)
    title = f"{domain}: {board.default.sizes.get(domain, 0):,} interactions, {tested:,} test rows"
    rows = tuple(_accuracy(board, entry, domain, measures) for entry in board.ordered)
    return Table(title, ("model", *_header(measures)), rows)


def _header(measures: Sequence[str]) -> list[str]:
    return [text for name in measures for text in (name, "Δ")]


def _accuracy(board: Board, entry: Entry, domain: str, measures: Sequence[str]) -> tuple[str, ...]:
    """Label, then value with interval and difference for each measure."""
    cells = [entry.label]
    for measure in measures:
        estimate = entry.run.values.get((domain, measure))
        margin = entry.margins.get((domain, measure), 0.0)
        _, delta = format_cells(entry.run, board.default, (ALL, domain, measure), board.significance)
        cells += [f"{estimate['value']:.4f} ±{margin:.4f}" if estimate else "–", delta.strip()]
    return tuple(cells)


def _cost_cells(entry: Entry) -> tuple[str, ...]:
    prepare, train, memory = run_cost(entry.run)
    tuning = (str(entry.trials), f"{entry.tuning_seconds:,.0f}") if entry.trials else ("–", "–")
    return f"{prepare:,.1f}", f"{train:,.1f}", "–" if memory is None else f"{memory:,}", *tuning


def run_cost(run: RunView) -> tuple[float, float, int | None]:
    """Seconds of preparation; seconds of training and of fitting the blend, mean over seeds; most MiB in a stage.

    Of a training that was resumed, the seconds are estimated from its last epochs.
    """
    seconds = {role: float(artifact.manifest.made["seconds"]) for role, artifact in run.artifacts.items()}
    prepare = sum(seconds[role] for role, artifact in run.artifacts.items() if artifact.contract in _PREPARED)
    trained = [seconds[role] for role, artifact in run.artifacts.items() if artifact in run.checkpoints]
    blends = [seconds[role] for role, artifact in run.artifacts.items() if artifact.contract is BLEND]
    training = cost(run)
    train = max(_mean(trained), training["seconds"] or 0.0) + _mean(blends)
    memory = [stage.memory_mib for stage in run.costs.values()]
    memory += [int(training["memory_mib"])] if training["memory_mib"] else []
    return prepare, train, max(memory, default=None)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def picture(board: Board) -> bytes:
    """A PNG: the macro value of each model, with its 95 % interval, the best at the top."""
    shown = [entry for entry in board.ordered if (MACRO, MEASURE) in entry.run.values]
    values = [entry.run.values[MACRO, MEASURE]["value"] for entry in shown]
    margins = [entry.margins.get((MACRO, MEASURE), 0.0) for entry in shown]
    low, high = ([value + sign * margin for value, margin in zip(values, margins, strict=True)] for sign in (-1, 1))
    marked = next((number for number, entry in enumerate(shown) if entry.run is board.default), None)
    title = f"{board.name}: {MACRO} {MEASURE}, 95 % interval"
    return interval_bars(title, [entry.label for entry in shown], Spread(values, low, high), marked)


_SECTION = re.compile(r"<!-- data set: (?P<name>.+?) -->\n(?P<text>.*?)\n<!-- end -->", re.DOTALL)


def is_page(text: str) -> bool:
    """Whether a file's text is a page of a scoreboard, or nothing."""
    return not text.strip() or _SECTION.search(text) is not None


def update_page(page: str, sections: Mapping[str, str]) -> str:
    """The page with some sections replaced or added; those of other data sets stay."""
    kept = {match["name"]: match["text"] for match in _SECTION.finditer(page)}
    texts = {**kept, **sections}
    blocks = [f"<!-- data set: {name} -->\n{text}\n<!-- end -->" for name, text in texts.items()]
    return "\n\n".join([_INTRODUCTION.strip(), *blocks]) + "\n"
