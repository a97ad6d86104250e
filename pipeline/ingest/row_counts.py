"""What became of the raw rows of each source, file and domain, and the limits on what may be lost."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from data_contracts.settings.ingest import IngestSettings
from pipeline.ingest.partition import LogPartition, Rejected
from pipeline.ingest.rejects import DroppedRows
from pipeline.logs.discovery import LogError

log = logging.getLogger(__name__)

NOT_MALFORMED = ("header", "rating", "leaked", "cold")
"""Reasons of rejects that are records as they should be."""

_FEW = 10
"""Malformed rows up to which a source or domain is not compared with the limit: of few rows, one is a large share."""

_NAMED = 5
"""Further sources, files or domains that an error names."""

_HINTS = {
    "syntax": ", is no record of the format: open quotes, not one JSON object a line, or a list or object in a field",
    "arity": ", has more or fewer fields than the header, or than most lines",
    "missing": ", lacks the user, the item, or another field that its source names",
    "undecodable": ", is not in the source's encoding: UTF-8, or what `encoding` names, e.g. latin-1 or cp1252",
    "number": ", is neither a number nor a time such as 2026-11-15T10:31:59+01:00; `timestamp_format` reads others",
    "leaked": "; leaked rows are held out while an earlier split has their user and item",
    "cold": "; cold rows are held out while their user or item has no training row in the domain",
}


@dataclass
class RowCounts:
    """What became of the raw rows of a source, a file or a domain, or of all.

    Attributes:
        kind: what it is.
        name: of the file or domain, or path of the source.
        rows: raw rows, good or bad.
        reasons: reason → rows that did not become an interaction.
        first: reason → the file, line and text of such a row, as a message shows them.
    """

    kind: Literal["all", "source", "file", "domain"]
    name: str = ""
    rows: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, file: str, rejected: Rejected) -> None:
        """Count rejected rows of a file; files come in their order."""
        self.reasons[rejected.reason] += rejected.rows
        has_comma = rejected.reason == "number" and re.fullmatch(r"[+-]?[0-9]+,[0-9]+", rejected.text)
        hint = ", has a decimal comma, must have a point" if has_comma else _HINTS.get(rejected.reason, "")
        text = f"line {rejected.line} of {file} ({rejected.reason}: {rejected.text!r}{hint})"
        self.first.setdefault(rejected.reason, text)

    def add_dropped(self, dropped: Mapping[str, int]) -> None:
        """Count rows that were dropped as leaked and as cold."""
        self.reasons.update(dropped)

    @property
    def malformed(self) -> dict[str, int]:
        """Reason → rows that are no records as they should be, by reason."""
        return {reason: n for reason, n in sorted(self.reasons.items()) if n and reason not in NOT_MALFORMED}

    @property
    def interactions(self) -> int:
        """Rows that became interactions, merged ones included."""
        return self.rows - self.reasons.total()

    def keeps(self, share: float, split: str) -> bool:
        """Whether at least a share of its rows became interactions, and at least one if the share is not 0.

        Rows that are rated too low, and repeated headers, do not count, and a file may have no others. Leaked and cold
        rows do not count against the share in a file, because they depend on other files, and where the method of the
        split holds out a part of every user: in a small domain much of that is cold.
        """
        wanted = self.rows - self.reasons["rating"] - self.reasons["header"]
        if share == 0 or not self.rows or (self.kind == "file" and not wanted):
            return True
        is_no_sign = self.kind == "file" or split in ("random", "leave-last-out")
        lost_elsewhere = self.reasons["leaked"] + self.reasons["cold"] if is_no_sign else 0
        return self.interactions > 0 and self.interactions + lost_elsewhere >= share * wanted

    def has_few_malformed(self, share: float) -> bool:
        """Whether at most a share of its rows is malformed, or there are few such rows in a part of the logs."""
        malformed = sum(self.malformed.values())
        return malformed <= share * self.rows or (self.kind != "all" and malformed < _FEW)


@dataclass(frozen=True)
class RowLedger:
    """Counts of the raw rows of all logs.

    Attributes:
        partitions: by the name of the file, in order.
        sources: the path of each file's source.
        domains: names of the domains that have good rows, sorted.
        dropped: the rows that buckets dropped.
    """

    partitions: Mapping[str, LogPartition]
    sources: Sequence[str]
    domains: Sequence[str]
    dropped: DroppedRows

    @cached_property
    def all(self) -> RowCounts:
        """All rows."""
        counts = RowCounts("all")
        for file in self.files:
            _merge(counts, file)
        return counts

    @cached_property
    def files(self) -> list[RowCounts]:
        """Every file, in order."""
        files = []
        leaked_and_cold = self.dropped.reasons("file", len(self.partitions))
        for number, (name, partition) in enumerate(self.partitions.items()):
            counts = RowCounts("file", name, partition.raw_rows)
            for rejected in partition.rejected:
                counts.add(name, rejected)
            counts.add_dropped(leaked_and_cold[number])
            files.append(counts)
        return files

    @cached_property
    def by_source(self) -> list[RowCounts]:
        """Every source, by path."""
        sources = {path: RowCounts("source", path) for path in sorted(set(self.sources))}
        for path, file in zip(self.sources, self.files, strict=True):
            _merge(sources[path], file)
        return list(sources.values())

    @cached_property
    def by_domain(self) -> list[RowCounts]:
        """Every domain, by name: those without any good row, too. Rows whose domain is not known are in none."""
        domains = {name: RowCounts("domain", name) for name in self.domains}
        for name, partition in self.partitions.items():
            for domain, rows in partition.rows.items():
                domains[domain].rows += rows
            for rejected in partition.rejected:
                if rejected.domain is not None:
                    counts = domains.setdefault(rejected.domain, RowCounts("domain", rejected.domain))
                    counts.rows += rejected.rows
                    counts.add(name, rejected)
        for domain, dropped in zip(self.domains, self.dropped.reasons("domain", len(self.domains)), strict=True):
            domains[domain].add_dropped(dropped)
        return sorted(domains.values(), key=lambda counts: counts.name)

    @cached_property
    def of_no_domain(self) -> RowCounts:
        """Rows whose domain is not known, as they cannot be read."""
        counts = RowCounts("domain")
        for name, partition in self.partitions.items():
            for rejected in partition.rejected:
                if rejected.domain is None:
                    counts.rows += rejected.rows
                    counts.add(name, rejected)
        return counts

    def say_unknown_domains(self, rejects: Path) -> None:
        """Warn of malformed rows whose domain is not known: a domain that has no others is lost."""
        malformed = self.of_no_domain.malformed
        if malformed:
            log.warning(
                "%s malformed rows are of no known domain (%s); a domain that has no others is lost; the first is %s; "
                "see %s",
                f"{sum(malformed.values()):,}",
                ", ".join(f"{reason} {rows:,}" for reason, rows in malformed.items()),
                *(next(text for reason, text in self.of_no_domain.first.items() if reason in malformed), rejects),
            )

    def require_limits(self, settings: IngestSettings, rejects: Path) -> None:
        """Check that few rows are malformed, and that most of each source, file and domain are kept.

        Args:
            settings: both limits.
            rejects: where all rejected rows are.

        Raises:
            LogError: they are not; names the source, file or domain, the reasons, and a row.
        """
        for counts in (self.all, *self.by_source, *self.by_domain):
            if not counts.has_few_malformed(settings.rejected_share_at_most):
                raise LogError(_too_many_malformed(counts, settings.rejected_share_at_most, rejects))
        if settings.kept_share_at_least > 0:
            self._require_rows()
        for kind in (self.files, self.by_source, self.by_domain):
            lost = [counts for counts in kind if not counts.keeps(settings.kept_share_at_least, settings.split.method)]
            if lost:
                raise LogError(_too_few_kept(lost, settings.kept_share_at_least, rejects))

    def _require_rows(self) -> None:
        """Refuse empty logs: a text may have been cut short. Parquet without rows is whole; Spark writes such parts."""
        has_rows = {source.name for source in self.by_source if source.rows}
        empty = [
            file.name
            for file, source in zip(self.files, self.sources, strict=True)
            if not file.rows and not (source in has_rows and file.name.lower().endswith((".parquet", ".pq")))
        ]
        if empty:
            more = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
            raise LogError(
                f"interactions: file {empty[0]!r}{more} has no rows, must have some; remove it, correct its source's "
                "path, or set ingest.kept_share_at_least = 0"
            )


def _merge(total: RowCounts, counts: RowCounts) -> None:
    total.rows += counts.rows
    total.reasons.update(counts.reasons)
    for reason, text in counts.first.items():
        total.first.setdefault(reason, text)


def _too_many_malformed(counts: RowCounts, share_at_most: float, rejects: Path) -> str:
    malformed = counts.malformed
    reasons = ", ".join(f"{reason} {rows:,}" for reason, rows in malformed.items())
    first = next(text for reason, text in counts.first.items() if reason in malformed)
    title = "" if counts.kind == "all" else f" of {counts.kind} {counts.name!r}"
    return (
        f"interactions: {sum(malformed.values()) / counts.rows:.2%} of {counts.rows:,} raw rows{title} are malformed "
        f"({reasons}), must be at most {share_at_most:.2%}; the first is {first}; see {rejects}, then correct the logs "
        "or their source's settings, or raise ingest.rejected_share_at_most"
    )


def _too_few_kept(lost: Sequence[RowCounts], share: float, rejects: Path) -> str:
    """Names the first in full, with the commonest reason's first row, and then a few others."""
    counts = lost[0]
    reasons = ", ".join(f"{reason} {rows:,}" for reason, rows in sorted(counts.reasons.items()) if rows)
    commonest = max(counts.reasons, key=lambda reason: counts.reasons[reason])
    example = f"; for example {counts.first[commonest]}" if commonest in counts.first else _HINTS.get(commonest, "")
    others = ", ".join(repr(other.name) for other in lost[1 : 1 + _NAMED])
    more = f"; so it is with {len(lost) - 1} more: {others}" if others else ""
    return (
        f"interactions: of the {counts.rows:,} rows of {counts.kind} {counts.name!r} "
        f"{counts.interactions or 'none'} became interactions ({reasons}), must be at least {share:.0%}"
        f"{example}{more}; see {rejects}, then correct the logs or their source's settings, or lower "
        "ingest.kept_share_at_least (0 lets even all of them go)"
    )
