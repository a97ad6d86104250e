"""Partners' histories as evidence: sums by dense matrices, and a world in which only they know what users like."""

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from loaded_domain import random_neighbours
from tiny_world import Tiny, build, seeded

from data_contracts.contracts import RANKS
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import NeighboursSettings
from data_contracts.settings.ranking import BlendSettings, EvaluateSettings
from data_contracts.settings.train import TrainSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from flows.experiments.bridge_filter import bridge_filter, bridge_weights
from flows.experiments.partner_evidence import (
    PartnerEvidence,
    UsePartners,
    partner_histories,
    partner_matrix,
    rank_with_partners,
)
from model.data.dataset import MultiDomainData, load_dataset
from model.evaluation.blend_stage import fit_blend
from model.evaluation.metrics import user_values
from model.evaluation.stage import evaluate
from model.evidence.domain_evidence import Histories, build_evidence
from model.training.stage import train
from pipeline.neighbours.stage import build_neighbours

ONE = ComputeSettings(threads=1)


def evaluated(world: Tiny, epochs: int = 1) -> dict[str, Artifact]:
    """A run's artifacts, from its neighbours to its ranks."""
    artifacts = world.without_pairs()
    artifacts["neighbours"] = build_neighbours(world.store, NeighboursSettings(), artifacts, ONE)
    settings = TrainSettings(width=4, epochs=epochs, batch_size=64, edge_dropout=0.3)
    artifacts["checkpoint-1"] = train(world.store, seeded(settings, 1, EvaluateSettings()), artifacts, ONE)
    artifacts["blend-1"] = fit_blend(world.store, BlendSettings(), artifacts, ONE)
    return artifacts | evaluate(world.store, EvaluateSettings(), artifacts, ONE)


def histories_and_partners(world: MultiDomainData) -> tuple[Histories, np.ndarray, sp.csr_array]:
    """The histories of all users, the same as a dense matrix, and random partners."""
    histories = Histories.build(world, world.domains)
    rows = np.zeros((world.users, world.items))
    for user, items in enumerate(np.split(histories.items, histories.indptr[1:-1])):
        rows[user, items] = 1.0
    partners = sp.random_array((world.users,) * 2, density=0.05, rng=np.random.default_rng(3), dtype=np.float32).tocsr()
    return histories, rows, partners


def test_evidence_of_partners_is_that_of_dense_matrices(tiny_world: Tiny) -> None:
    world = load_dataset(tiny_world.parents["nodes"], tiny_world.parents["graph"])
    neighbours, weights = random_neighbours(world.items)
    histories, rows, partners = histories_and_partners(world)
    expected = (rows + partners.toarray() @ rows) @ weights
    for domain in world.domains:
        evidence = PartnerEvidence.beside(build_evidence(world, domain, neighbours, histories), partners)
        users = np.arange(domain.users)[::-1]
        picked = evidence.user_histories(users)
        assert (picked.lengths == rows.sum(axis=1)[evidence.union_users[users]]).all()
        wanted = expected[np.ix_(evidence.union_users[users], evidence.union_items)]
        np.testing.assert_allclose(evidence.sum(picked), wanted, rtol=1e-4, atol=1e-5)


def dense_filter(rows: np.ndarray, partners: np.ndarray) -> np.ndarray:
    """The filter in full: its formula, on dense matrices."""
    by_user, by_item = rows.sum(axis=1, keepdims=True), rows.sum(axis=0, keepdims=True)
    scaled = rows / np.sqrt(np.maximum(by_user, 1.0)) / np.sqrt(np.maximum(by_item, 1.0))
    shares = partners / np.maximum(partners.sum(axis=1, keepdims=True), 1e-30)
    reached = scaled.T @ shares @ scaled
    weights = reached @ reached.T
    np.fill_diagonal(weights, 0.0)
    return weights


def test_the_filter_is_that_of_dense_matrices_at_any_weight(tiny_world: Tiny) -> None:
    world = load_dataset(tiny_world.parents["nodes"], tiny_world.parents["graph"])
    assert world.items <= 100  # so that no row is cut
    neighbours, own = random_neighbours(world.items)
    histories, rows, partners = histories_and_partners(world)
    expected = dense_filter(rows, partners.toarray())
    np.testing.assert_allclose(
        bridge_weights(partners, histories, world.items).toarray(), expected, rtol=1e-4, atol=1e-6
    )
    evidence = [build_evidence(world, domain, neighbours, histories) for domain in world.domains]
    weighed = bridge_filter(evidence, partners, histories)
    assert weighed(0.0) is evidence
    for each, before in zip(weighed(0.5), evidence, strict=True):
        picked = each.user_histories(np.arange(each.union_users.size))
        both = own + 0.5 * own.sum() / expected.sum() * expected
        wanted = (rows @ both)[np.ix_(before.union_users, before.union_items)]
        np.testing.assert_allclose(each.sum(picked), wanted, rtol=1e-4, atol=1e-5)


def test_a_row_of_the_filter_keeps_its_largest_weights() -> None:
    items = 130
    numbers = [np.arange(items), np.arange(2)]  # the first user has all items, the second, its partner, two
    histories = Histories(np.array([0, items, items + 2]), np.concatenate(numbers).astype(np.int32))
    partners = sp.csr_array(np.array([[0.0, 1.0], [1.0, 0.0]], np.float32))
    weights = bridge_weights(partners, histories, items).toarray()
    assert ((weights > 0).sum(axis=1) == 100).all()
    assert (weights[2:, :2] > 0).all()  # the items of both users are the most alike
    assert (np.flatnonzero(weights[2]) == [0, 1, *range(3, 101)]).all()  # of equal ones the smaller


def test_partners_are_numbered_over_all_domains_and_the_most_similar_pair_counts(tiny_world: Tiny) -> None:
    nodes = tiny_world.parents["nodes"]
    names = nodes.read(["domain", "kind", "id", "entity"]).to_pylist()
    numbers = {row["id"]: row["entity"] for row in names if row["kind"] == "user"}
    first, second, third = sorted(numbers)[:3]
    pairs = pa.table(
        {"source_id": [first, first, third], "target_id": [second, second, first], "similarity": [0.25, 0.5, 1.0]}
    )
    matrix = partner_matrix(pairs, nodes, len(numbers)).toarray()
    expected = np.zeros_like(matrix)
    expected[numbers[first], numbers[second]], expected[numbers[third], numbers[first]] = 0.5, 1.0
    assert (matrix == expected).all()


@pytest.mark.parametrize("use", [partner_histories, bridge_filter])
def test_without_partners_users_rank_as_the_run_says(use: UsePartners, tiny_world: Tiny) -> None:
    artifacts = evaluated(tiny_world)
    none = pa.table({"source_id": pa.array([], pa.string()), "target_id": pa.array([], pa.string()),
                     "similarity": pa.array([], pa.float32())})  # fmt: skip
    ((seed, weight, values),) = rank_with_partners(artifacts, [1], none, use, BlendSettings())
    assert seed == 1
    assert weight == 0.0
    ranks = artifacts[RANKS.name].read(["domain", "user", "full_rank"]).to_pandas().dropna()
    for domain, rows in ranks.sort_values("user", kind="stable").groupby("domain"):
        wanted = user_values(rows["user"].to_numpy(), rows["full_rank"].to_numpy(np.int64), (20,))["full_ndcg@20"]
        assert sorted(v for (of, _), v in values.items() if of == domain) == pytest.approx(sorted(wanted))


def test_partners_who_know_what_users_like_are_believed(store: Store) -> None:
    """In `a` half of the people have one item that says nothing; what they like shows in `b`, under another name."""
    log: dict[str, list[tuple[str, str, str]]] = {"a": [], "b": []}
    for person in range(60):
        is_known = person < 30
        taste = [2 * ((n + person) % 20) + person % 2 for n in range(14)]
        first = 2 if is_known else len(taste)  # from which on items of `a` are trained on
        splits = ["valid", *["test"] * (first - 1), *["train"] * (len(taste) - first)]
        log["a"].append((f"p{person}", "neutral", "train"))
        log["a"] += [(f"p{person}", f"a{n}", split) for n, split in zip(taste, splits, strict=True)]
        log["b"] += [(f"p{person}" if is_known else f"q{person}", f"b{n}", "train") for n in taste]
    artifacts = evaluated(build(store, log))
    ends = [(f"p{n}", f"q{n}") for n in range(30, 60)]
    pairs = pa.table({"source_id": [a for a, _ in ends], "target_id": [b for _, b in ends],
                      "similarity": pa.array([1.0] * 30, pa.float32())})  # fmt: skip
    ((_, weight, values),) = rank_with_partners(artifacts, [1], pairs, partner_histories, BlendSettings())
    ((_, _, alone),) = rank_with_partners(artifacts, [1], pairs.slice(0, 0), partner_histories, BlendSettings())
    gains = [values["a", f"p{n}"] - alone["a", f"p{n}"] for n in range(30, 60)]
    assert weight > 0.0
    assert np.mean(gains) > 0.1
