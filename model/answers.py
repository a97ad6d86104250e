"""Answers: how a checkpoint ranks the held-out rows of one domain and split, and these ranks as a table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from data_contracts.contracts import RANKS
from data_contracts.settings import EvaluateSettings
from model.candidates import held_out
from model.metrics import auc_parts, candidate_ranks
from model.ranking import are_ranked, rank_held_out
from model.serving.blend import Blend
from model.world import Domain, Ints, Rows


@dataclass(frozen=True)
class Answers:
    """Scores and ranks of held-out rows.

    Attributes:
        rows: the held-out rows.
        positive: float32 (rows), scores of the held-out items.
        candidates: float32 (rows, candidates), scores of their candidates, NaN where there is none.
        users, ranks: int32 and int64, user and full rank of each row that is ranked, as `rank_held_out` gives them.
        ranked: bool (rows), which rows these are of.
    """

    rows: Rows
    positive: NDArray[np.float32]
    candidates: NDArray[np.float32]
    users: Ints
    ranks: NDArray[np.int64]
    ranked: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        vectors: Tensor,
        domain: Domain,
        part: tuple[Rows, str],
        settings: EvaluateSettings,
        blend: Blend | None = None,
    ) -> Answers:
        """Score and rank one split of a domain's interactions by the final vectors of its nodes, blended or alone."""
        rows, split = part
        candidates = held_out(rows, domain, split, settings).candidates
        scores, users, ranks = rank_held_out(vectors, domain, part, candidates, blend)
        return cls(rows.of(split), scores[:, 0], scores[:, 1:], users, ranks, are_ranked(domain, rows, split))

    def table(self, seed: int, domain: str) -> pa.Table:
        """The ranks under RANKS, in the order of the rows."""
        size = self.rows.users.size
        parts = auc_parts(self.positive, self.candidates)
        full = np.zeros(size, np.int64)
        full[self.ranked] = self.ranks
        columns = [
            pa.repeat(pa.scalar(seed, pa.int64()), size),
            pa.repeat(domain, size),
            self.rows.union_users,
            self.rows.union_items,
            pa.array(candidate_ranks(self.positive, self.candidates).astype(np.int32), mask=np.isnan(parts)),
            pa.array(parts, mask=np.isnan(parts)),
            pa.array(full, mask=~self.ranked),
        ]
        return pa.table(columns, schema=RANKS.file_schema)
