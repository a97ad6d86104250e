"""A control for experiments: pairs whose partners are dealt anew at random."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import COVERAGE_FILE, KINDS, PAIRS
from data_contracts.seeding import generator
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft


def shuffle_partners(draft: Draft, pairs: Artifact, seed: int) -> None:
    """Write pairs in which the partners of each two domains and kind are permuted; identity pairs stay.

    So every node has as many partners, and is a partner as often, as before; similarities stay with the ranks and mean
    nothing. Whatever training gains from the pairs but not from these, it gains from similar reach.

    Args:
        draft: of the shuffled pairs.
        pairs: a `pairs` artifact.
        seed: of the permutations.
    """
    columns = list(PAIRS.file_schema.names)
    for partition in pairs.partitions():
        for table in pairs.batches(columns, **partition):  # all partners in a target domain are in one file
            partners = table["target_node"].to_numpy().copy()
            dealt = pc.greater(table["rank"], 0)
            for target in pc.unique(table["target_domain"]).to_pylist():
                for kind in KINDS:
                    is_chosen = pc.and_(pc.equal(table["target_domain"], target), pc.equal(table["kind"], kind))
                    rows = np.flatnonzero(pc.and_(is_chosen, dealt).to_numpy())
                    draws = generator(seed, "shuffled", *partition.values(), target, kind)
                    partners[rows] = draws.permutation(partners[rows])
            position = table.schema.get_field_index("target_node")
            draft.write(table.set_column(position, "target_node", pa.array(partners, pa.int32())), **partition)
    shutil.copyfile(pairs.checked(COVERAGE_FILE), draft.folder / COVERAGE_FILE)
    draft.statistics |= pairs.manifest.statistics
