"""Peers of the pairs' join: the 3 best targets of each query, by other libraries."""

# mypy: ignore-errors
from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from pipeline.compute.fan_out import ranges

K = 3
QUERIES_AT_ONCE, TARGETS_AT_ONCE = 256, 4096


@dataclass(frozen=True)
class Case:
    """One kind's rows from one domain to another.

    Attributes:
        queries: float32 [n, anchors], a sample of the unit rows of the source that are not zero.
        targets: float32 [m, anchors], the target's unit rows that are not zero.
        rows: number of rows that the queries are sampled from.
        ours: float32 [n], the best cosines that edda found.
    """

    queries: sp.csr_array
    targets: sp.csr_array
    rows: int
    ours: np.ndarray


class Answer(NamedTuple):
    """A peer's time and result.

    Attributes:
        fixed: CPU seconds that do not depend on the number of queries.
        growing: CPU seconds for the queries.
        best: float32 [n], the best cosines of the queries taken.
    """

    fixed: float
    growing: float
    best: np.ndarray

    def seconds(self, rows: int) -> float:
        """CPU seconds estimated for `rows` queries."""
        return self.fixed + self.growing * rows / self.best.size


def warming_case() -> Case:
    """A few rows, to load the libraries before they are timed."""
    rows = sp.csr_array(sp.eye_array(8, dtype=np.float32))
    return Case(rows, rows, 8, np.ones(8, np.float32))


def sparse_dot_topn(case: Case) -> Answer:
    """Sparse products that keep the best of each row, for every fourth query: the time is proportional to rows."""
    from sparse_dot_topn import sp_matmul_topn

    started = time.process_time()
    columns = sp.csr_matrix(case.targets.T)
    fixed, queries = time.process_time(), sp.csr_matrix(case.queries[::4])
    best = sp_matmul_topn(queries, columns, top_n=K, sort=True)
    done = time.process_time()
    return Answer(fixed - started, done - fixed, best.max(axis=1).toarray().ravel())


def torch(case: Case) -> Answer:
    """Dense products in blocks, the best of each row of a block, then the best of these."""
    import torch as peer

    peer.set_num_threads(1)
    best = peer.zeros((case.queries.shape[0], K))
    columns = peer.zeros((case.queries.shape[0], K), dtype=peer.int64)
    fixed = growing = 0.0
    for targets in ranges(case.targets.shape[0], TARGETS_AT_ONCE):
        started = time.process_time()
        block = peer.from_numpy(case.targets[targets.start : targets.stop].toarray())
        dense = time.process_time()
        for rows in ranges(case.queries.shape[0], QUERIES_AT_ONCE):
            queries = slice(rows.start, rows.stop)
            products = peer.from_numpy(case.queries[queries].toarray()) @ block.T
            top = products.topk(min(K, len(targets)))
            both = (
                peer.cat([best[queries], top.values], 1),
                peer.cat([columns[queries], top.indices + targets.start], 1),
            )
            best[queries], chosen = both[0].topk(K)
            columns[queries] = both[1].gather(1, chosen)
        fixed, growing = fixed + dense - started, growing + time.process_time() - dense
    return Answer(fixed, growing, best[:, 0].numpy())


PEERS: dict[str, Callable[[Case], Answer]] = {"sparse_dot_topn": sparse_dot_topn, "torch": torch}
