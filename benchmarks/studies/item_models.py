"""EASE and SLIM: CPU seconds beside NumPy's inverse and scikit-learn's elastic net, equal results; the cost of a cut.

    python benchmarks/studies/item_models.py                                 # a small generated world
    python benchmarks/studies/item_models.py --run edda-store/runs/amazon
    python benchmarks/studies/item_models.py --cut --run edda-store/runs/amazon

Every domain by itself, one thread. EASE: float32 in half a matrix against `numpy.linalg.inv` in float64, and the
largest difference of a weight above 0. SLIM: all items against scikit-learn on a sample of them, extrapolated to all,
and the largest difference of a weight of the sample.

`--cut`: full Recall@20 / NDCG@20 on test of EASE alone, by all weights and by those that a `neighbours` artifact keeps,
which are above 0 and at most `top` an item.
"""

# mypy: ignore-errors
from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from runs import load_artifacts
from sklearn.linear_model import ElasticNet
from threadpoolctl import threadpool_limits

from data_contracts.contracts import TEST
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import NeighboursSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from model.data.candidates import known_items
from model.data.dataset import DomainData, Interactions, load_dataset, load_interactions
from model.evaluation.metrics import user_values
from pipeline.neighbours.stage import item_neighbours
from pipeline.neighbours.train_graph import read_all_nodes, read_train_graphs

COMPUTE = ComputeSettings(threads=1, memory_mib=1 << 20)
EVERY = 1_000_000
"""More neighbours than any item has."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run's folder in a store")
    parser.add_argument("--sample", type=int, default=20, help="items for which scikit-learn fits weights")
    parser.add_argument("--cut", action="store_true", help="accuracy by all weights and by those that are kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edda-item-models-") as scratch, threadpool_limits(1):
        artifacts = load_artifacts(options.run, Store(scratch))
        if options.cut:
            measure_cuts(artifacts)
            return
        item_neighbours(sp.csr_array(np.ones((3, 3))), NeighboursSettings(weights="slim"), COMPUTE)  # compiled
        for name, matrix in domain_matrices(artifacts):
            measure_ease(name, matrix)
            measure_slim(name, matrix, options.sample)


def domain_matrices(artifacts: dict[str, Artifact]) -> Iterator[tuple[str, sp.csr_array]]:
    """Each domain's name and distinct train pairs, [users, items]."""
    for train in read_train_graphs(artifacts["graph"], read_all_nodes(artifacts["nodes"]), "domain"):
        graph = train.graph
        last = graph.indptr[graph.users]
        parts = np.ones(last), graph.indices[:last] - graph.users, graph.indptr[: graph.users + 1].astype(np.int32)
        yield graph.domain, sp.csr_array(parts, shape=(graph.users, graph.nodes - graph.users))


def timed(work: Callable[[], np.ndarray | sp.csr_array]) -> tuple[float, np.ndarray | sp.csr_array]:
    """CPU seconds and the result."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def full_ease(matrix: sp.csr_array, l2: float) -> np.ndarray:
    """float64 [items, items]: all weights, negative ones too."""
    inverse = np.linalg.inv((matrix.T @ matrix).toarray() + l2 * np.eye(matrix.shape[1]))
    weights = -inverse / inverse.diagonal()
    np.fill_diagonal(weights, 0.0)
    return weights


def measure_ease(name: str, matrix: sp.csr_array) -> None:
    """One line about one domain."""
    settings = NeighboursSettings(weights="ease", top=EVERY)
    seconds, weights = timed(lambda: item_neighbours(matrix, settings, COMPUTE))
    peer, exact = timed(lambda: full_ease(matrix, settings.ease.l2))
    error = np.abs(weights.toarray() - np.maximum(exact, 0.0)).max()
    print(f"{name}, EASE of {matrix.shape[1]:,} items: {seconds:.2f} s, NumPy {peer:.2f} s; largest error {error:.1e}")


def measure_slim(name: str, matrix: sp.csr_array, sample: int) -> None:
    """One line about one domain."""
    settings = NeighboursSettings(weights="slim", top=EVERY)
    seconds, weights = timed(lambda: item_neighbours(matrix, settings, COMPUTE))
    items = np.random.default_rng(1).choice(matrix.shape[1], min(sample, matrix.shape[1]), replace=False)
    peer, exact = timed(lambda: elastic_nets(matrix, items, settings.slim.l1, settings.slim.l2))
    error = np.abs(weights[:, items].toarray() - exact).max()
    print(
        f"{name}, SLIM of {matrix.shape[1]:,} items: {seconds:.2f} s, "
        f"scikit-learn {peer / items.size * matrix.shape[1]:.0f} s; largest difference {error:.1e}"
    )


def elastic_nets(matrix: sp.csr_array, items: np.ndarray, l1: float, l2: float) -> np.ndarray:
    """[items, sample]: scikit-learn's weights of all items for each of the sample, at its own tolerance."""
    columns, users = matrix.tocsc(), matrix.shape[0]
    model = ElasticNet((l1 + l2) / users, l1_ratio=l1 / (l1 + l2), positive=True, fit_intercept=False, copy_X=False)
    fitted = []
    with warnings.catch_warnings(action="ignore"):
        for item in items:
            others = sp.csc_matrix(columns, copy=True)  # scikit-learn writes to it
            others.data[others.indptr[item] : others.indptr[item + 1]] = 0.0
            fitted.append(model.fit(others, columns[:, [item]].toarray().ravel()).coef_.copy())
    return np.array(fitted).T


def measure_cuts(artifacts: dict[str, Artifact]) -> None:
    """One line for each domain and each choice of weights, and their means over domains."""
    dataset, sums = load_dataset(artifacts["nodes"], artifacts["graph"]), {}
    for domain, (name, matrix) in zip(dataset.domains, domain_matrices(artifacts), strict=True):
        interactions = load_interactions(artifacts["interactions"], domain, dataset)
        weights = full_ease(matrix, NeighboursSettings().ease.l2).astype(np.float32)
        for how in ("all weights", "above 0", "500 above 0", "100 above 0"):
            values = accuracy(matrix, kept(weights, how), interactions, domain)
            sums.setdefault(how, []).append(values)
            print(f"{name}, {how}: {values[0]:.4f} / {values[1]:.4f}")
    for how, values in sums.items():
        recall, ndcg = np.mean(values, axis=0)
        print(f"mean, {how}: {recall:.4f} / {ndcg:.4f}")


def kept(weights: np.ndarray, how: str) -> np.ndarray:
    """A copy of the weights, those that are not kept being 0."""
    if how == "all weights":
        return weights
    positive = np.maximum(weights, 0.0)
    most = int(how.split(maxsplit=1)[0]) if how[0].isdigit() else len(weights)
    if most < len(weights):
        np.put_along_axis(positive, np.argpartition(-positive, most, axis=1)[:, most:], 0.0, axis=1)
    return positive


def accuracy(
    matrix: sp.csr_array, weights: np.ndarray, interactions: Interactions, domain: DomainData
) -> tuple[float, float]:
    """Full Recall@20 and NDCG@20 of the sums of weights, means over test users."""
    held = interactions.for_split(TEST)
    indptr, known = known_items(interactions, domain.users, (0, 1))
    masked = sp.csr_array((np.ones(known.size, np.int8), known, indptr), shape=matrix.shape)
    ranks, owners = [], []
    for user in np.unique(held.users):
        scores = matrix[[user]].astype(np.float32) @ weights
        scores = scores.ravel()
        scores[masked[[user]].indices] = -np.inf
        for item in held.items[held.users == user]:
            if scores[item] > -np.inf:
                ranks.append(int((scores >= scores[item]).sum()))
                owners.append(user)
    values = user_values(np.array(owners, np.int32), np.array(ranks, np.int64), (20,))
    return float(values["full_recall@20"].mean()), float(values["full_ndcg@20"].mean())


if __name__ == "__main__":
    main()
