"""Incremental pairs: pairs of domains that an update copies, because making them again would give the same bits.

Earlier artifacts are only a cache: what is copied equals what would be made without them, so no key depends on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow.parquet as pq

from data_contracts.contracts import COVERAGE_FILE, NODES, PAIRS
from data_contracts.settings.preparation import PairsSettings
from data_contracts.statistics import CoverageColumns, PairCoverage, rows_of_coverage
from data_contracts.store.artifact import Artifact
from data_contracts.store.files import parse_partition


@dataclass(frozen=True)
class ReusedPairs:
    """Domains whose nodes and reach vectors are the same bits as before, and their earlier pairs.

    Attributes:
        domains: names.
        previous: earlier pairs, by the same settings; None without any.
    """

    domains: frozenset[str] = frozenset()
    previous: Artifact | None = None

    @classmethod
    def find(
        cls, before: Mapping[str, Artifact], parents: Mapping[str, Artifact], settings: PairsSettings
    ) -> ReusedPairs:
        """Compare the parents of earlier pairs with those of new ones.

        Args:
            before: earlier `nodes`, `reach` and `pairs`, or nothing.
            parents: `nodes` and `reach`.
            settings: of the new pairs.
        """
        if PAIRS.name not in before or before[PAIRS.name].manifest.settings != settings.keyed():
            return cls()
        domains = (partition["domain"] for partition in parents[NODES.name].partitions())
        unchanged = frozenset(
            domain
            for domain in domains
            if all(_digests(before[role], domain) == _digests(parents[role], domain) for role in parents)
        )
        return cls(unchanged, before[PAIRS.name])

    def includes(self, domains: tuple[str, ...]) -> bool:
        """Whether both of two domains are unchanged, and so their pairs."""
        return self.domains.issuperset(domains)

    def file(self, source: str, target: str) -> Path | None:
        """The earlier file of the pairs from one unchanged domain to another, too large to share a file; or None.

        Raises:
            OSError: a file is missing or damaged.
        """
        assert self.previous is not None
        files = (self.previous.checked(file) for file in self.previous.files(source_domain=source))
        return next((file for file in files if _is_of_target(file, target)), None)

    def coverage(self, domains: tuple[str, ...]) -> list[PairCoverage]:
        """The earlier coverage of two unchanged domains; the checked sample was drawn then."""
        return self._coverage.get(frozenset(domains), [])

    @cached_property
    def _coverage(self) -> dict[frozenset[str], list[PairCoverage]]:
        """The earlier coverage by the two domains."""
        assert self.previous is not None
        by_domains: dict[frozenset[str], list[PairCoverage]] = {}
        for row in rows_of_coverage(self.previous.read_json(COVERAGE_FILE, CoverageColumns)):
            by_domains.setdefault(frozenset((row["source_domain"], row["target_domain"])), []).append(row)
        return by_domains


def _is_of_target(file: Path, target: str) -> bool:
    """Whether all rows of a file have this target domain; its footer knows."""
    metadata = pq.read_metadata(file)
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    column = metadata.schema.names.index("target_domain")
    ranges = [group.column(column).statistics for group in groups]
    return all(found is not None and found.min == found.max == target for found in ranges)


def _digests(artifact: Artifact, domain: str) -> list[str]:
    """Digests of a domain's files. Equal rows divided into other files count as changed, which only costs time."""
    return [file.sha256 for file in artifact.manifest.files if parse_partition(file.path) == {"domain": domain}]
