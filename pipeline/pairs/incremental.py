"""Unchanged: what an update copies of earlier artifacts, because making it again would give the same bits.

Earlier artifacts are a cache here: what is copied equals what would be made without them, so no key depends on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data_contracts.contracts import NODES, PAIRS
from data_contracts.settings import PairsSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.files import partition_of


@dataclass(frozen=True)
class UnchangedDomains:
    """Domains whose nodes and reach vectors are what they were, to the bit.

    Attributes:
        names: theirs.
        pairs: aligned then, by the same settings; None without any.
    """

    names: frozenset[str] = frozenset()
    pairs: Artifact | None = None

    @classmethod
    def of(
        cls, before: Mapping[str, Artifact], parents: Mapping[str, Artifact], settings: PairsSettings
    ) -> UnchangedDomains:
        """Compare the parents of earlier pairs with those of new ones.

        Args:
            before: `nodes`, `reach` and `pairs`, or nothing.
            parents: `nodes` and `reach`.
            settings: of the new pairs.
        """
        if PAIRS.name not in before or before[PAIRS.name].manifest.settings != settings.keyed():
            return cls()
        domains = (partition["domain"] for partition in parents[NODES.name].partitions())
        same = frozenset(
            domain
            for domain in domains
            if all(_digests(before[role], domain) == _digests(parents[role], domain) for role in parents)
        )
        return cls(same, before[PAIRS.name])

    def has(self, domains: tuple[str, ...]) -> bool:
        """Both of two domains are unchanged, so their pairs are as well."""
        return self.names.issuperset(domains)

    def files(self, source: str, target: str) -> list[Path]:
        """Earlier files with the pairs from one unchanged domain to another."""
        assert self.pairs is not None
        return self.pairs.files(source_domain=source, target_domain=target)

    def coverage(self, domains: tuple[str, ...]) -> list[dict[str, Any]]:
        """What was reported of two unchanged domains; the check's sample was drawn then."""
        return self._coverage[frozenset(domains)]

    @cached_property
    def _coverage(self) -> dict[frozenset[str], list[dict[str, Any]]]:
        """What was reported of every two domains."""
        assert self.pairs is not None
        of_both: dict[frozenset[str], list[dict[str, Any]]] = {}
        for row in self.pairs.statistics["coverage"]:
            of_both.setdefault(frozenset((row["source_domain"], row["target_domain"])), []).append(row)
        return of_both


def _digests(artifact: Artifact, domain: str) -> list[str]:
    """Of a domain's files. Equal rows in files of other lengths pass for changed ones, which costs time alone."""
    return [file.sha256 for file in artifact.manifest.files if partition_of(file.path) == {"domain": domain}]
