"""The statistics that each artifact keeps in its manifest, in the order in which a run makes artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, cast  # pydantic reads typing's TypedDict from Python 3.12 on

from typing_extensions import TypedDict

# Pipeline: world, rejects, interactions, nodes, graph, neighbours, reach, pairs.


class WorldDomainStatistics(TypedDict):
    """Sizes of a generated domain."""

    users: int
    items: int
    interactions: int


class WorldStatistics(TypedDict):
    """Of a `world`: sizes by domain, and twins by the smaller domain."""

    domains: dict[str, WorldDomainStatistics]
    twins: dict[str, int]


class RejectsStatistics(TypedDict):
    """Of `rejects`: all records of the raw logs, and rejected rows by reason."""

    raw_rows: int
    reasons: dict[str, int]


class IngestedDomainStatistics(TypedDict):
    """Of one domain of `interactions`: users and items, rows by split, raw rows merged, and raw rows dropped."""

    users: int
    items: int
    train: int
    valid: int
    test: int
    duplicates: int
    leaked: int
    cold: int


class InteractionsStatistics(TypedDict):
    """Of `interactions`.

    `malformed` counts raw rows by reason, without those of reason `header`, `rating`, `leaked` and `cold`;
    `pairs_in_several_domains` counts pairs by split. `tied_users` counts in each domain the users of whose last
    three pairs two have the same time; 0 unless the split is leave-last-out. Without any usable row there are no
    `domains`.
    """

    domains: NotRequired[dict[str, IngestedDomainStatistics]]
    raw_rows: int
    malformed: dict[str, int]
    rating: int
    leaked: int
    cold: int
    duplicates: int
    pairs_in_several_domains: dict[str, int]
    tied_users: int
    users: int
    items: int


class KindCounts(TypedDict):
    """Nodes of each kind."""

    users: int
    items: int


class DomainNodesStatistics(KindCounts):
    """Nodes of a domain, its anchors, and in an update how many nodes were known before."""

    anchors: int
    known: NotRequired[KindCounts]


class NodesStatistics(TypedDict):
    """Of `nodes`, by domain."""

    domains: dict[str, DomainNodesStatistics]


class GraphStatistics(TypedDict):
    """Of a `graph`: undirected edges by domain."""

    edges: dict[str, int]


class NeighboursComparison(TypedDict):
    """Estimated rows compared with exact ones on a sample of items; means, absent where no row is estimated."""

    estimated_items: int
    items: int
    overlap_at_20: NotRequired[float]
    overlap_at_100: NotRequired[float]
    relative_error: NotRequired[float]


class ItemGraphStatistics(TypedDict):
    """The neighbours of one graph's items: method and reason, items, items with neighbours, and weights."""

    method: str
    reason: str
    items: int
    items_with_neighbours: int
    entries: int
    against_exact: NeighboursComparison


class NeighboursStatistics(TypedDict):
    """Of `neighbours`, by domain, or under `union` for all domains together."""

    graphs: dict[str, ItemGraphStatistics]


class ReachComparison(TypedDict):
    """Vectors compared with exact ones on a sample of nodes that reach an anchor: mean cosines, absent for no nodes."""

    nodes: int
    walks: int
    mean_cosine: NotRequired[float]
    mean_cosine_of_walks: NotRequired[float]


class DomainReachStatistics(TypedDict):
    """The reach vectors of a domain: method and reason, nodes, nodes with a vector, weights, and vectors copied."""

    method: str
    reason: str
    nodes: int
    nodes_with_reach: int
    entries: int
    copied: int
    against_exact: ReachComparison


class ReachStatistics(TypedDict):
    """Of `reach`, by domain."""

    domains: dict[str, DomainReachStatistics]


class PairCoverage(TypedDict):
    """The pairs from one domain to another, of one kind of nodes or, with mixed kinds, of all: a row of a file.

    The file is JSON, a list by column; domains that share no user and no item are not in it.

    `checked_nodes` were compared with all nodes of the other domain: of `checked_best` the best partner had been found,
    and `checked_loss` is the similarity lost in all.
    """

    source_domain: str
    target_domain: str
    kind: str
    shared_anchors: int
    nodes: int
    nodes_with_shared_reach: int
    nodes_paired: int
    identity_pairs: int
    mean_best_similarity: float | None
    method: str
    checked_nodes: int
    checked_best: int
    checked_loss: float


class CoverageColumns(TypedDict):
    """What the file of the coverage holds: `PairCoverage` by column."""

    source_domain: list[str]
    target_domain: list[str]
    kind: list[str]
    shared_anchors: list[int]
    nodes: list[int]
    nodes_with_shared_reach: list[int]
    nodes_paired: list[int]
    identity_pairs: list[int]
    mean_best_similarity: list[float | None]
    method: list[str]
    checked_nodes: list[int]
    checked_best: list[int]
    checked_loss: list[float]


def columns_of_coverage(rows: Sequence[PairCoverage]) -> CoverageColumns:
    """Rows by column."""
    values: Sequence[dict[str, object]] = [dict(row) for row in rows]
    return cast(CoverageColumns, {name: [row[name] for row in values] for name in CoverageColumns.__annotations__})


def rows_of_coverage(columns: CoverageColumns) -> list[PairCoverage]:
    """Inverse of `columns_of_coverage`.

    Raises:
        ValueError: columns of unequal lengths.
    """
    rows = zip(*columns.values(), strict=True)
    return [cast(PairCoverage, dict(zip(columns, row, strict=True))) for row in rows]


class PairsCheck(TypedDict):
    """All checked nodes, the share whose best partner was found, and the mean similarity lost; absent for no nodes."""

    nodes: int
    recall_at_1: NotRequired[float]
    mean_regret: NotRequired[float]


class PairsStatistics(TypedDict):
    """Of `pairs`: `copied` counts the pairs of domains that an update has copied from the earlier artifact."""

    checked: PairsCheck
    pairs_of_domains: int
    copied: int


# Model: checkpoint; blend, metrics, embeddings, recommendations and index have no statistics.


class InitialRowCounts(TypedDict):
    """Rows of a table by how a warm start began them: copied, averaged from neighbours, or drawn."""

    kept: int
    from_neighbours: int
    as_usual: int


WarmStartStatistics = TypedDict(
    "WarmStartStatistics", {"from": str, "tables": dict[str, InitialRowCounts], "held_out_rows_seen": int}
)
"""Of a checkpoint's warm start: key of the earlier checkpoint, rows by table, held-out rows it had trained on."""


class StepTraffic(TypedDict):
    """Steps of one kind, and the bytes that the first process sent to their all-reduces."""

    steps: int
    bytes: int


class CheckpointStatistics(TypedDict):
    """Statistics of a `checkpoint`.

    Attributes:
        epoch: the epoch that validated best; 0 is a warm start's.
        epochs: epochs that were trained.
        score: validation score of the best epoch; None if nothing can be validated.
        epoch_seconds: seconds of each epoch since the last start of the training.
        state_bytes, state_seconds: of the states that were saved since then, to resume from.
        peak_memory_mib: the largest peak memory of a process, since that process started.
        memory_mib: peak memory of the first process while it trained.
        without_intra: domains without an intra table, and the share of their interactions that they share.
        warm_start: of the earlier checkpoint that tables came from.
        memory_mib_by_process, bytes_by_step: only of a training by several processes.
    """

    epoch: int
    epochs: int
    score: float | None
    epoch_seconds: list[float]
    state_bytes: NotRequired[int]
    state_seconds: NotRequired[float]
    peak_memory_mib: int
    memory_mib: NotRequired[int]
    without_intra: NotRequired[dict[str, float]]
    warm_start: NotRequired[WarmStartStatistics]
    memory_mib_by_process: NotRequired[list[int]]
    bytes_by_step: NotRequired[dict[str, StepTraffic]]


class ExperimentStatistics(TypedDict):
    """Of an `experiment`: what it asks.

    Attributes:
        question: in one sentence.
        compared: factors whose levels are compared, each with its level of reference.
        along: the factor that plots have as x.
        measures: that effects are computed of.
        by_domain: measures that are shown domain by domain.
        predictor: a measure of the reference that may predict the effects on the first, over domains.
    """

    question: str
    compared: list[tuple[str, str]]
    along: str
    measures: list[str]
    by_domain: list[str]
    predictor: NotRequired[str]
