"""Partners: the aligned pairs of two domains, from their sides in files to a table in each direction."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import ITEM, KINDS, PAIRS, USER
from data_contracts.seeding import name_seed
from data_contracts.settings import PairsSettings
from data_contracts.store.files import flush_all, write_atomically, write_checked
from pipeline.compute.scratch import Folder, Memory, spill_arrays, spilled_arrays
from pipeline.graph import DomainNodes, IntArray
from pipeline.pairs.domain_vectors import (
    Groups,
    Side,
    members,
    shared_anchors,
    side_at_hand,
    spilled_side,
)
from pipeline.pairs.join import Best, Join, JoinChunk, join_chunk
from pipeline.pairs.join_kernels import spread_best

_SAME = 1e-5
"""More than the float32 products of the check are off."""


@dataclass(frozen=True)
class DomainPair:
    """Two domains to be aligned.

    Attributes:
        domains: their names.
        sides: folders of their sides.
        nodes: of both.
        folder: of the work.
        settings: of the stage.
        checked_share: share of the nodes whose best partner is checked.
    """

    domains: tuple[str, str]
    sides: tuple[Folder, Folder]
    nodes: int
    folder: Folder
    settings: PairsSettings
    checked_share: float

    def side(self, number: int) -> Side:
        """One of the two sides."""
        return spilled_side(self.domains[number], self.sides[number])

    @property
    def parts(self) -> tuple[str, ...]:
        """What the nodes are that seek partners among each other: user and item, or `mixed` for all of a domain."""
        return KINDS if self.settings.kinds == "apart" else (self.settings.kinds,)


@dataclass(frozen=True)
class FiledPair(DomainPair):
    """Two domains to be aligned in files, which every process sees."""

    folder: Path

    def table_path(self, source: int) -> Path:
        """Where the table with pairs from the given side goes."""
        return self.folder / f"from-{source}.parquet"

    @property
    def join_folders(self) -> list[Path]:
        """Where the joins' files are while they are needed."""
        return [self.folder / part for part in self.parts]

    @property
    def report_path(self) -> Path:
        """Where the coverage goes, last."""
        return self.folder / "coverage.json"


def prepare_joins(pair: DomainPair) -> dict[str, Join]:
    """The joins of a pair of domains by part, their vectors over shared anchors in files."""
    sides = pair.side(0), pair.side(1)
    anchors = shared_anchors(sides[0].nodes, sides[1].nodes)
    unit = [side.unit_rows(shared) for side, shared in zip(sides, anchors, strict=True)]
    joins = {}
    for part in pair.parts:
        groups = [
            Groups.of(rows, side.row_of[_nodes_of(part, side.nodes)]) for rows, side in zip(unit, sides, strict=True)
        ]
        joins[part] = Join.of(pair.folder / part, groups[0].rows, groups[1].rows, pair.settings)
        spill_arrays(pair.folder / part / "groups", **{str(i): group.group_of for i, group in enumerate(groups)})
    return joins


@dataclass(frozen=True)
class Direction:
    """Partners of one part of one side's nodes among the same part of the other's.

    Attributes:
        pair: the domains.
        part: user, item or mixed.
        source: 0 or 1, the side that looks for partners.
        join: of both sides' groups of equal vectors.
        best: the best groups of each group.
    """

    pair: DomainPair
    part: str
    source: int
    join: Join
    best: Best

    def table(self, nodes: tuple[DomainNodes, DomainNodes]) -> tuple[pa.Table, dict[str, Any]]:
        """The pairs, sorted by source node and rank, and what to report of them."""
        settings, ends = self.pair.settings, (nodes[self.source], nodes[1 - self.source])
        groups = spilled_arrays(self.pair.folder / self.part / "groups")
        group_of, group_of_target = groups[str(self.source)], groups[str(1 - self.source)]
        same = _same_entity(*(_entities(self.part, end) for end in ends))
        skip = same if settings.identity else np.full_like(same, -1)
        partners = Best.none(same.size, settings.k)
        in_groups = members(group_of_target, self.join.rows[1 - self.source])
        spread_best(group_of, tuple(self.best), in_groups, skip, tuple(partners))
        starts = tuple(_nodes_of(self.part, end).start for end in ends)
        return _table(ends[0].users, starts, partners, skip), {
            "kind": self.part,
            "shared_anchors": self.join.columns,
            "nodes": int(same.size),
            "nodes_with_shared_reach": int(np.count_nonzero(group_of >= 0)),
            "nodes_paired": int(np.count_nonzero(partners.similarities[:, 0])),
            "identity_pairs": int(np.count_nonzero(skip >= 0)),
            "mean_best_similarity": _mean_best(partners),
            "method": "candidates" if self.join.candidates else "exact",
            **self._checked(group_of),
        }

    def _checked(self, group_of: IntArray) -> dict[str, float | int]:
        """On a sample of nodes, how often the best vector was found, and the similarity lost where it was not."""
        name = (*self.pair.domains, str(self.source), self.part)
        draw = np.random.Generator(np.random.Philox(name_seed(self.pair.settings.seed, *name)))
        grouped = group_of[group_of >= 0]
        size = min(grouped.size, round(self.pair.checked_share * group_of.size))
        sample = grouped[np.sort(draw.choice(grouped.size, size, replace=False))]
        lost = np.maximum(self.join.largest_products(self.source, sample) - self.best.similarities[sample, 0], 0.0)
        return {
            "checked_nodes": int(size),
            "checked_best": int(np.count_nonzero(lost <= _SAME)),
            "checked_loss": round(float(lost.sum()), 6),
        }


Tables = list[tuple[pa.Table, list[dict[str, Any]]]]
"""The pairs of two domains from each side, with their coverage by part."""


def pair_tables(pair: DomainPair, joins: dict[str, Join]) -> Tables:
    """The pairs of two domains, once all chunks are joined."""
    nodes = pair.side(0).nodes, pair.side(1).nodes
    best = {part: join.best() for part, join in joins.items()}
    tables = []
    for source in (0, 1):
        found = [Direction(pair, part, source, join, best[part][source]).table(nodes) for part, join in joins.items()]
        tables.append((pa.concat_tables([table for table, _ in found]), [report for _, report in found]))
    return tables


def align_in_one_go(
    pair: DomainPair, run: Callable[[Callable[[JoinChunk], None], Sequence[JoinChunk]], Iterable[None]] = map
) -> Tables:
    """The pairs of two domains, from their sides on; `run` calls a function on each chunk."""
    joins = prepare_joins(pair)
    for _ in run(join_chunk, [chunk for join in joins.values() for chunk in join.chunks()]):
        pass
    return pair_tables(pair, joins)


def finish_pair(work: tuple[FiledPair, dict[str, Join]]) -> None:
    """Write the pairs of two domains in both directions, and then their coverage, once all chunks are joined."""
    pair, joins = work
    _write([(pair, pair_tables(pair, joins))])


def finish_small_pairs(pairs: Sequence[FiledPair]) -> None:
    """Likewise of several pairs of domains that nothing was done for yet; all but the result is in memory."""
    sides = {folder: side_at_hand(folder) for folder in dict.fromkeys(side for pair in pairs for side in pair.sides)}
    in_memory = (
        DomainPair(
            of.domains, (sides[of.sides[0]], sides[of.sides[1]]), of.nodes, Memory(), of.settings, of.checked_share
        )
        for of in pairs
    )
    _write(zip(pairs, map(align_in_one_go, in_memory), strict=True))


def _write(found: Iterable[tuple[FiledPair, Tables]]) -> None:
    reports, written = {}, []
    for pair, tables in found:
        coverage = []
        pair.folder.mkdir(parents=True, exist_ok=True)
        for source, (table, rows) in enumerate(tables):
            ends = {"source_domain": pair.domains[source], "target_domain": pair.domains[1 - source]}
            write_checked(PAIRS, table, pair.table_path(source), f"pairs of {' and '.join(ends.values())}")
            coverage += [{**ends, **row} for row in rows]
            written.append(pair.table_path(source))
        reports[pair.report_path] = json.dumps(coverage).encode()
    flush_all(written)
    write_atomically(reports)


def _nodes_of(part: str, nodes: DomainNodes) -> slice:
    return nodes.of_kind(part) if part in KINDS else slice(0, nodes.entity.size)


def _entities(part: str, nodes: DomainNodes) -> npt.NDArray[np.int64]:
    """Numbers of the part's users and items that are equal in every domain and for nothing else."""
    of_part = _nodes_of(part, nodes)
    entities = nodes.entity[of_part].astype(np.int64)
    entities[max(nodes.users - of_part.start, 0) :] += 1 << 32
    return entities


def _same_entity(source: npt.NDArray[np.int64], target: npt.NDArray[np.int64]) -> IntArray:
    """For each source entity its position among the target's, -1 where it does not live there."""
    same = np.full(source.size, -1, np.int32)
    _, places, positions = np.intersect1d(source, target, assume_unique=True, return_indices=True)
    same[places] = positions
    return same


def _table(users: int, starts: tuple[int, ...], partners: Best, identity: IntArray) -> pa.Table:
    """Rows of one part: identity pairs as rank 0, then partners by rank, within ascending source nodes.

    Args:
        users: source nodes below it are users.
        starts: the part's first node in the source and in the target domain.
        partners: of each node of the part, counted from its first.
        identity: for each node the same user or item, counted likewise; -1 for none.
    """
    twins = np.flatnonzero(identity >= 0)
    owner, place = np.nonzero(partners.similarities)
    source = np.concatenate([twins, owner]) + starts[0]
    rank = np.concatenate([np.zeros(twins.size, np.int64), place + 1])
    target = np.concatenate([identity[twins], partners.ids[owner, place]]) + starts[1]
    similarity = np.concatenate([np.ones(twins.size, np.float32), partners.similarities[owner, place]])
    order = np.lexsort((rank, source))
    return pa.table(
        {
            "source_node": pa.array(source[order].astype(np.int32)),
            "target_node": pa.array(target[order].astype(np.int32)),
            "kind": pc.if_else(pa.array(source[order] < users), USER, ITEM),
            "similarity": pa.array(similarity[order]),
            "rank": pa.array(rank[order].astype(np.int32)),
            "identity": pa.array(rank[order] == 0),
        }
    )


def _mean_best(partners: Best) -> float | None:
    best = partners.similarities[:, 0]
    return round(float(best[best > 0].mean(dtype=np.float64)), 4) if best.any() else None


def _larger_first(nodes: DomainNodes) -> tuple[int, str]:
    """A join adds up as many sums at a time as the second side has rows."""
    return -nodes.entity.size, nodes.domain
