"""Neighbours: weights of three-step walks between items, against sums by hand and by SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from safetensors.numpy import load_file
from tiny_world import Tiny, build

from data_contracts.artifact import Artifact
from data_contracts.contracts import ITEM, TRAIN
from data_contracts.files import neighbours_file
from data_contracts.settings import ComputeSettings, NeighboursSettings
from data_contracts.store import Store
from pipeline.neighbours.stage import build_neighbours

ONE = ComputeSettings(threads=1)


def made(world: Tiny, compute: ComputeSettings = ONE, **settings: object) -> Artifact:
    parents = {role: world.parents[role] for role in ("nodes", "graph")}
    return build_neighbours(world.store, NeighboursSettings(**settings), parents, compute)


def rows_of(artifact: Artifact) -> dict[tuple[str, int], dict[int, float]]:
    return {
        (row["domain"], row["item"]): dict(zip(row["neighbours"], row["weights"], strict=True))
        for row in artifact.read().to_pylist()
    }


def union_matrix(world: Tiny) -> sp.csr_array:
    """Distinct train pairs of all domains, [users, items]."""
    rows = world.parents["interactions"].read(["user", "item", "split"]).to_pylist()
    pairs = sorted({(row["user"], row["item"]) for row in rows if row["split"] == TRAIN})
    users, items = np.array(pairs).reshape(-1, 2).T
    return sp.csr_array((np.ones(len(pairs)), (users, items)))


def products(matrix: sp.csr_array, alpha: float, beta: float) -> np.ndarray:
    degrees = [np.maximum(matrix.sum(axis=axis), 1.0) for axis in (1, 0)]
    between = (matrix.T @ sp.diags_array(degrees[0] ** -alpha) @ matrix).toarray()
    np.fill_diagonal(between, 0.0)
    return between * np.outer(degrees[1] ** -alpha, degrees[1] ** -beta)


def test_weights_are_sums_over_the_users_of_both_items(store: Store) -> None:
    log = {"books": [("u", "a", "train"), ("u", "b", "train"), ("v", "a", "train"), ("v", "c", "valid")],
           "films": [("u", "a", "train"), ("v", "b", "train"), ("v", "d", "train"), ("w", "e", "train")]}  # fmt: skip
    # degrees over both: u 2 (a once), v 3, w 1; a 2, b 2, d 1, e 1
    half = {v: degree**-0.5 for v, degree in {"u": 2, "v": 3}.items()}
    rows = rows_of(made(build(store, log), alpha=0.5, beta=1.0))
    both = 2**-0.5 * (half["u"] + half["v"]) / 2
    assert rows == {
        ("", 0): pytest.approx({1: both, 3: 2**-0.5 * half["v"]}),
        ("", 1): pytest.approx({0: both, 3: 2**-0.5 * half["v"]}),
        ("", 3): pytest.approx({0: half["v"] / 2, 1: half["v"] / 2}),
        ("", 4): {},
    }


@pytest.mark.parametrize("scope", ["union", "domain"])
def test_the_mapped_rows_are_those_of_the_table(tiny_world: Tiny, scope: str) -> None:
    artifact = made(tiny_world, scope=scope)
    table = rows_of(artifact)
    names = {"union": [""], "domain": ["books", "films", "games"]}[scope]
    assert {domain for domain, _ in table} == set(names)
    nodes = tiny_world.parents["nodes"].read(["kind", "entity"]).to_pylist()
    for domain in names:
        tensors = load_file(artifact.path / neighbours_file(domain))
        indptr = tensors["indptr"]
        assert {name: tensor.dtype.name for name, tensor in tensors.items()} == {
            "indptr": "int64", "neighbours": "int32", "weights": "float32",
        }  # fmt: skip
        assert indptr.size - 1 == 1 + max(row["entity"] for row in nodes if row["kind"] == ITEM)
        for item in range(indptr.size - 1):
            row = slice(indptr[item], indptr[item + 1])
            pairs = zip(tensors["neighbours"][row].tolist(), tensors["weights"][row].tolist(), strict=True)
            assert dict(pairs) == table.get((domain, item), {})


def test_the_union_is_scipys_product(tiny_world: Tiny) -> None:
    expected = products(union_matrix(tiny_world), 0.4, 0.3)
    found = np.zeros_like(expected)
    for (_, item), row in rows_of(made(tiny_world)).items():
        found[item, list(row)] = list(row.values())
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_every_reference_is_kept(tiny_world: Tiny) -> None:
    assert made(tiny_world).verify(list(tiny_world.parents.values())) == []
