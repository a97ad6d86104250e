from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_pipeline import brute_pairs, dense_reach, random_domain
from raw_logs import numbered

import pipeline.pairs.join
import pipeline.pairs.stage
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import GraphSettings, PairsSettings, ReachSettings
from data_contracts.store.store import Store
from pipeline.compute.array_folder import DiskArrays
from pipeline.compute.rows import CsrRows
from pipeline.graph import DomainNodes, build_graph
from pipeline.pairs.domain_pair import DomainPair, align_domain_pair
from pipeline.pairs.domain_vectors import DistinctRows, DomainVectors, rows_by_group, shared_anchors
from pipeline.pairs.join import Join, TopK, join_chunk
from pipeline.pairs.join_kernels import expand_groups
from pipeline.pairs.stage import pair_domains
from pipeline.reach.stage import compute_reach

ONE, TWO = ComputeSettings(threads=1), ComputeSettings(threads=2)


def side(seed: int, users: int, items: int, edges: int) -> DomainVectors:
    graph, nodes = random_domain(seed, users, items, edges)
    rows = sp.csr_array(dense_reach(graph, nodes.is_anchor, (3, 4)).astype(np.float32))
    return DomainVectors(nodes, CsrRows.from_scipy(rows), np.arange(nodes.entity.size, dtype=np.int32))


def vectors(of: DomainVectors) -> np.ndarray:
    return of.rows.to_scipy(of.nodes.entity.size)[of.row_of].toarray()


def align(source: DomainVectors, target: DomainVectors, **options) -> tuple[pa.Table, list[dict]]:
    """Pairs and coverage from the source to the target; the other direction is made and left unread."""
    with TemporaryDirectory() as name:
        folders = []
        for number, of in enumerate((source, target)):
            folders.append(DiskArrays(Path(name, str(number))))
            (folders[-1] / "rows").write_rows([of.rows])
            (folders[-1] / "nodes").write_arrays(
                users=np.array([of.nodes.users]),
                entity=of.nodes.entity,
                is_anchor=of.nodes.is_anchor,
                row_of=of.row_of,
            )
        pair = DomainPair(("a", "b"), tuple(folders), 0, DiskArrays(Path(name, "pair")), PairsSettings(**options), 1.0)
        return align_domain_pair(pair)[0]


def joined(left: np.ndarray, right: np.ndarray, **options) -> tuple[TopK, TopK]:
    """The join of two dense matrices of unit rows, both ways; `k` partners each."""
    asked = PairsSettings(**{"k": 3, **options})
    with TemporaryDirectory() as folder:
        join = Join.build(DiskArrays(Path(folder)), sp.csr_array(left), sp.csr_array(right), asked)
        for chunk in join.chunks():
            join_chunk(chunk)
        return join.best()


def partners(best: TopK) -> list[list[int]]:
    return [[i for i, s in zip(*row, strict=True) if s > 0] for row in zip(best.ids, best.similarities, strict=True)]


def rows_of(table) -> list[tuple]:
    columns = ("source_node", "target_node", "kind", "similarity", "rank")
    return [tuple(row[name] for name in columns) for row in table.to_pylist()]


@settings(max_examples=25, deadline=None)
@given(
    *(st.integers(0, 5000), st.integers(1, 8), st.integers(1, 8), st.integers(0, 24), st.integers(1, 4)),
    st.sampled_from(["apart", "mixed"]),
)
def test_pairs_equal_the_comparison_of_every_two_nodes(seed, users, items, edges, k, kinds):
    source, target = side(seed, users, items, edges), side(seed + 1, items, users, edges)
    table, _ = align(source, target, k=k, kinds=kinds)
    expected = brute_pairs((source.nodes, vectors(source)), (target.nodes, vectors(target)), k, kinds)
    found = rows_of(table)
    assert [(s, r) for s, _, _, _, r in found] == [(s, r) for s, _, _, _, r in expected]
    np.testing.assert_allclose([row[3] for row in found], [row[3] for row in expected], atol=2e-6)
    clear = _without_near_ties(expected)
    assert [row[:3] for i, row in enumerate(found) if clear[i]] == [
        row[:3] for i, row in enumerate(expected) if clear[i]
    ]


def _without_near_ties(rows: list[tuple]) -> list[bool]:
    """Whether float rounding cannot have swapped or cut the row: nothing of the same source is as similar."""
    similar = np.array([row[3] for row in rows])
    last = {row[0]: i for i, row in enumerate(rows)}
    near = [
        any(j != i and rows[j][0] == rows[i][0] and abs(similar[i] - similar[j]) < 1e-5 for j in range(len(rows)))
        for i in range(len(rows))
    ]
    return [not tie and i != last[rows[i][0]] for i, tie in enumerate(near)]


def test_equal_similarity_is_decided_by_the_smaller_row_in_both_directions():
    left = np.array([[1, 0], [1, 0]], np.float32)
    right = np.array([[0, 1], [1, 0], [0.6, 0.8], [1, 0], [1, 0]], np.float32)
    of_left, of_right = joined(left, right, k=2)
    assert partners(of_left) == [[1, 3, 4], [1, 3, 4]]
    assert partners(of_right) == [[], [0, 1], [0, 1], [0, 1], [0, 1]]


def test_rows_without_a_common_column_are_never_partners():
    left, right = np.array([[1, 0], [0, 0]], np.float32), np.array([[0, 1], [0, 0]], np.float32)
    assert [partners(best) for best in joined(left, right)] == [[[], []], [[], []]]


def spread(group_of, best, members_of, skip, k) -> list[list[int]]:
    out = TopK.build_empty(len(group_of), k)
    expand_groups(np.array(group_of, np.int32), tuple(best), members_of, np.array(skip, np.int32), tuple(out))
    return partners(out)


def test_ties_between_different_groups_interleave_by_node():
    best = TopK(np.array([[0, 1, 0]], np.int32), np.array([[0.5, 0.5, 0]], np.float32))
    groups = rows_by_group(np.array([0, 1, 0, 1], np.int32), 2)
    assert spread([0], best, groups, [-1], 3) == [[0, 1, 2]]


def test_the_skipped_node_is_left_out_and_the_next_takes_its_place():
    best = TopK(np.array([[0, 1], [0, 1]], np.int32), np.array([[1, 0.8], [0.8, 1]], np.float32)[:, :2])
    best = TopK(np.array([[0, 1], [1, 0]], np.int32), np.array([[1, 0.8], [1, 0.8]], np.float32))
    groups = rows_by_group(np.array([0, 1], np.int32), 2)
    assert spread([0, 1, -1], best, groups, [0, 1, -1], 1) == [[1], [0], []]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 5000), st.integers(1, 30), st.integers(1, 150), st.integers(1, 12), st.floats(0.05, 1.0))
def test_dense_sparse_and_complete_candidate_joins_agree_to_the_bit(seed, n, m, columns, fill):
    draw = np.random.default_rng(seed)
    left, right = (_unit(draw, size, columns, fill) for size in (n, m))
    expected = brute_best(left, right, 4), brute_best(right, left, 4)
    costs = {"sparse": (0.0, 1.0), "dense": (1.0, 0.0)}
    found = []
    for scatter, multiply in costs.values():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline.pairs.join, "_SCATTER_COST", scatter)
            patch.setattr(pipeline.pairs.join, "_MULTIPLY_COST", multiply)
            patch.setattr(pipeline.pairs.join, "_TARGETS_AT_ONCE", 40)
            found.append(joined(left, right))
    found.append(joined(left, right, most_products=0, products_per_row=1_000_000, candidates=200))
    for way in found:
        for best, oracle in zip(way, expected, strict=True):
            assert partners(best) == partners(oracle)
            np.testing.assert_array_equal(best.similarities, oracle.similarities)


def brute_best(left: np.ndarray, right: np.ndarray, k: int) -> TopK:
    best = TopK.build_empty(len(left), k)
    for i, row in enumerate(left):
        # Summed column by column in float64, as the contract of bit-equality says.
        sums = np.array([sum(float(a) * float(b) for a, b in zip(row, other, strict=True)) for other in right])
        similar = np.minimum(sums, 1.0).astype(np.float32)
        order = np.argsort(-similar, kind="stable")[:k]
        best.ids[i, : order.size], best.similarities[i, : order.size] = order, similar[order]
    return best


def _unit(draw: np.random.Generator, rows: int, columns: int, fill: float) -> np.ndarray:
    # Few distinct weights, so that equal rows and equal similarities occur.
    values = draw.integers(1, 3, (rows, columns)) * (draw.random((rows, columns)) < fill)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, norms, out=np.zeros(values.shape), where=norms > 0).astype(np.float32)


def test_few_candidates_find_most_of_the_best_partners():
    draw = np.random.default_rng(1)
    weights = draw.random((400, 60)) ** 8 * (draw.random((400, 60)) < 0.5) + 1e-9
    rows = (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)
    (exact, _), (cheap, _) = (joined(rows[:200], rows[200:], **options) for options in (
        {}, {"most_products": 0, "products_per_row": 600, "candidates": 6},
    ))  # fmt: skip
    same = exact.ids[:, 0] == cheap.ids[:, 0]
    assert 0.85 < same.mean() < 1.0
    assert (cheap.similarities[:, 0] <= exact.similarities[:, 0]).all()


@pytest.mark.parametrize("most_products", [0, 10**12])
def test_pairs_do_not_depend_on_threads_chunks_files_or_batches(most_products, tmp_path, monkeypatch, tiny_world):
    settings = PairsSettings(most_products=most_products)
    parents = {name: tiny_world.parents[name] for name in ("nodes", "graph")}
    parents["reach"] = compute_reach(tiny_world.store, ReachSettings(), parents, ONE)
    del parents["graph"]
    monkeypatch.setattr("pipeline.compute.array_folder._SMALL", 0)
    whole = pair_domains(Store(tmp_path / "whole"), settings, parents, ONE)
    monkeypatch.setattr("pipeline.pairs.join._ROWS_PER_CHUNK", 3)
    monkeypatch.setattr("pipeline.pairs.join._ROWS_PER_BLOCK", 2)
    monkeypatch.setattr("pipeline.pairs.join._TARGETS_AT_ONCE", 4)
    monkeypatch.setattr("pipeline.pairs.stage._BYTES_PER_ENTRY", 1 << 31)
    parts = pair_domains(Store(tmp_path / "parts"), settings, parents, TWO)
    assert whole.manifest.rows > 50
    assert parts.read().equals(whole.read())
    assert parts.statistics == whole.statistics


def test_a_stage_that_is_killed_continues_with_the_chunks_it_finished(tmp_path, monkeypatch, tiny_world):
    parents = {name: tiny_world.parents[name] for name in ("nodes", "graph")}
    parents["reach"] = compute_reach(tiny_world.store, ReachSettings(), parents, ONE)
    del parents["graph"]
    monkeypatch.setattr("pipeline.pairs.join._ROWS_PER_CHUNK", 5)
    monkeypatch.setattr("pipeline.compute.array_folder._SMALL", 0)
    monkeypatch.setattr("pipeline.pairs.stage._BYTES_PER_ENTRY", 1 << 31)
    whole = pair_domains(Store(tmp_path / "whole"), PairsSettings(), parents, ONE)
    join, told = pipeline.pairs.join._join_exactly, []

    def dies_at_the_ninth(chunk):
        told.append(chunk.folder)
        if len(told) == 9:
            raise KeyboardInterrupt
        return join(chunk)

    monkeypatch.setattr("pipeline.pairs.join._join_exactly", dies_at_the_ninth)
    store = Store(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        pair_domains(store, PairsSettings(), parents, ONE)
    again = pair_domains(store, PairsSettings(), parents, ONE)
    assert again.read().equals(whole.read())
    assert len(told) == len(set(told)) + 1


def test_equal_vectors_share_a_group_and_zero_vectors_have_none():
    rows = sp.csr_array(np.array([[0, 1], [0, 0], [1, 0], [0, 1]], np.float32))
    groups = DistinctRows.build(rows, np.array([0, 1, 2, 3, 0]))
    assert groups.group_of.tolist() == [0, -1, 1, 0, 0]
    assert [part.tolist() for part in rows_by_group(groups.group_of, 2)] == [[0, 3, 4], [0, 3, 4, 2]]
    np.testing.assert_array_equal(groups.rows.toarray(), [[0, 1], [1, 0]])


def test_shared_anchors_are_anchors_of_one_kind_and_entity_in_both_domains():
    left = DomainNodes("a", 2, np.array([3, 5, 3, 7], np.int32), np.array([True, True, True, True]))
    right = DomainNodes("b", 1, np.array([5, 3, 7], np.int32), np.array([True, False, True]))
    assert [nodes.tolist() for nodes in shared_anchors(left, right)] == [[1, 3], [0, 2]]


def test_unit_rows_have_length_one_over_the_chosen_anchors_only():
    reach = CsrRows(np.array([0, 3, 4, 4]), np.array([0, 1, 2, 2], np.int32), np.array([3, 4, 9, 2], np.float32))
    nodes = DomainNodes("a", 3, np.arange(3, dtype=np.int32), np.ones(3, bool))
    unit = DomainVectors(nodes, reach, np.arange(3, dtype=np.int32)).unit_rows(np.array([0, 1], np.int32))
    np.testing.assert_allclose(unit.toarray(), [[0.6, 0.8], [0, 0], [0, 0]])


def similarities(source: DomainVectors, target: DomainVectors) -> np.ndarray:
    """Cosines of every two nodes over shared anchors."""
    anchors = shared_anchors(source.nodes, target.nodes)
    unit = [of.unit_rows(shared)[of.row_of].toarray() for of, shared in zip((source, target), anchors, strict=True)]
    return unit[0].astype(np.float64) @ unit[1].T


def test_mixed_partners_are_the_most_similar_of_both_kinds():
    source, target = side(1, 12, 10, 30), side(2, 10, 12, 30)
    table, report = align(source, target, kinds="mixed", identity=False, k=1)
    found = table.to_pylist()
    is_item = [row["target_node"] >= target.nodes.users for row in found]
    assert {(row["kind"], other) for row, other in zip(found, is_item, strict=True)} == {
        (kind, other) for kind in ("user", "item") for other in (False, True)
    }
    best = similarities(source, target).max(axis=1)
    assert [row["source_node"] for row in found] == np.flatnonzero(best > 0).tolist()
    np.testing.assert_allclose([row["similarity"] for row in found], best[best > 0], atol=2e-6)
    assert [row["kind"] for row in report] == ["mixed"]


@pytest.mark.parametrize("kinds", ["apart", "mixed"])
def test_the_check_finds_what_candidates_miss(kinds):
    source, target = side(1, 12, 10, 30), side(2, 10, 12, 30)
    cheap = {"most_products": 0, "products_per_row": 1, "candidates": 2}
    table, report = align(source, target, kinds=kinds, identity=False, k=1, **cheap)
    similar = similarities(source, target)
    if kinds == "apart":
        similar[: source.nodes.users, target.nodes.users :] = 0
        similar[source.nodes.users :, : target.nodes.users] = 0
    best, found = similar.max(axis=1), np.zeros(len(similar))
    found[table["source_node"].to_numpy()] = table["similarity"].to_numpy()
    checked = {name: sum(row[f"checked_{name}"] for row in report) for name in ("nodes", "best", "loss")}
    assert checked["nodes"] == np.count_nonzero(best)
    assert checked["best"] == np.count_nonzero(best[best > 0] - found[best > 0] < 1e-5) < checked["nodes"]
    assert checked["loss"] == pytest.approx((best - found).sum(), abs=1e-4)


def test_mixed_pairs_keep_the_contract(tiny_world, monkeypatch):
    monkeypatch.setattr("pipeline.compute.array_folder._SMALL", 0)
    parents = {"reach": compute_reach(tiny_world.store, ReachSettings(), tiny_world.parents, ONE)}
    parents["nodes"] = tiny_world.parents["nodes"]
    pairs = pair_domains(tiny_world.store, PairsSettings(kinds="mixed"), parents, ONE)
    assert pairs.verify([parents["nodes"]]) == []
    assert pairs.statistics["checked"]["recall_at_1"] == 1.0


@pytest.mark.parametrize("identity", [True, False])
def test_identity_pairs_are_added_where_asked_and_counted(identity):
    source, target = side(3, 8, 9, 30), side(4, 9, 8, 30)
    table, report = align(source, target, identity=identity)
    assert (sum(row["identity_pairs"] for row in report) > 0) == identity
    assert table["identity"].to_pylist().count(True) == sum(row["identity_pairs"] for row in report)


def test_coverage_counts_nodes_that_reach_no_shared_anchor():
    source, target = side(3, 8, 9, 12), side(4, 9, 8, 12)
    _, report = align(source, target)
    anchors, _ = shared_anchors(source.nodes, target.nodes)
    for row in report:
        reach = vectors(source)[source.nodes.range_of_kind(row["kind"])][:, anchors]
        assert row["nodes_with_shared_reach"] == np.count_nonzero(reach.any(axis=1))
        assert row["nodes"] == reach.shape[0]


@pytest.mark.parametrize("kinds", ["apart", "mixed"])
@pytest.mark.parametrize("identity", [True, False])
def test_domains_without_a_shared_anchor_have_identity_pairs_alone(kinds, identity):
    """Nodes in both domains that are no anchors are identity pairs all the same."""
    source, target = (
        replace(domain, nodes=replace(domain.nodes, is_anchor=np.zeros_like(domain.nodes.is_anchor)))
        for domain in (side(3, 8, 9, 30), side(4, 9, 8, 30))
    )
    table, report = align(source, target, kinds=kinds, identity=identity)
    assert table["identity"].to_pylist() == [True] * sum(row["identity_pairs"] for row in report)
    assert (table.num_rows > 0) == identity


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ("aa", "there is nothing to align: a is the only domain"),
        ("ab", "there is nothing to align: no two of the 2 domains have a user or item in common; do the logs"),
    ],
)
def test_nothing_to_align_is_said_with_the_reason(tmp_path, caplog, domains, message):
    rows = [f"u{n},i{n},{domain},1" for n, domain in enumerate(domains)]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,domain,time", *rows]) + "\n")
    compute, store = ComputeSettings(threads=1), Store(tmp_path / "store")
    interactions, nodes = numbered(store, tmp_path, "time")
    parents = {"interactions": interactions, "nodes": nodes}
    parents["graph"] = build_graph(store, GraphSettings(), parents, compute)
    parents["reach"] = compute_reach(store, ReachSettings(), parents, compute)
    assert pair_domains(store, PairsSettings(), parents, compute).read().num_rows == 0
    assert message in caplog.text
