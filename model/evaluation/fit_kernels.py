"""Compiled loop that ranks held-out items under many blends at once.

Arrays in, preallocated output filled; nothing is checked here.
"""

from __future__ import annotations

from numba import njit


@njit(nogil=True, cache=True)
def capped_ranks(scores, evidence, factors, held, most, ranks):
    """Pessimistic rank of each held-out item under each blend, counted up to `most` + 1.

    Most held-out items rank far beyond that, so stopping there saves most of the work.

    Args:
        scores, evidence: float32 (users, items), very low where an item is masked.
        factors: float32 (blends, 2, users), of scores and of evidence.
        held: (rows, items) of each held-out item: int64 row of `scores`, int32 column.
        most: the last rank that is counted exactly.
        ranks: int32 (blends, held-out items), filled.
    """
    rows, items = held
    for n in range(rows.size):
        row, item = rows[n], items[n]
        for blend in range(factors.shape[0]):
            score_factor, evidence_factor = factors[blend, 0, row], factors[blend, 1, row]
            least = score_factor * scores[row, item] + evidence_factor * evidence[row, item]
            rank = 0
            for column in range(scores.shape[1]):
                rank += score_factor * scores[row, column] + evidence_factor * evidence[row, column] >= least
                if rank > most:
                    break
            ranks[blend, n] = rank
