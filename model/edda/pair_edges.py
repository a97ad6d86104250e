"""Edges between aligned nodes, beside the interactions of the union graph: layers then carry vectors across them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import scipy.sparse as sp
from safetensors.numpy import save_file

from data_contracts.store.artifact import Artifact
from model.compute.mapped_tensors import open_tensors
from model.data.dataset import MultiDomainData
from model.sparse.rows import Floats32, Ints, Longs

PAIR_EDGES_FILE = "pair_edges.safetensors"
"""A checkpoint's file of them, if the model was trained with any: its vectors are propagated along them."""


@dataclass(frozen=True)
class PairEdges:
    """Undirected edges between nodes of the union of all domains.

    Attributes:
        ends: int32 (2, edges), the smaller node number first; distinct, ascending.
        weights: float32 (edges), where an interaction has weight 1.
    """

    ends: Ints
    weights: Floats32

    @classmethod
    def from_pairs(cls, pairs: Artifact, dataset: MultiDomainData, weight: float) -> PairEdges:
        """An edge for every aligned pair of two users or items that are not the same one under one id.

        Args:
            pairs: a `pairs` artifact.
            dataset: the domains.
            weight: of a pair whose similarity is 1; others weigh in proportion, and of several pairs of two nodes the
                most similar one counts.
        """
        union_nodes = {domain.name: domain.union_nodes.astype(np.int64) for domain in dataset.domains}
        keys, similarities = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        for partition in pairs.partitions():
            columns = ["target_domain", "source_node", "target_node", "similarity", "rank"]
            for table in pairs.batches(columns, **partition):
                is_similar = pc.greater(table["rank"], 0)
                for target in pc.unique(table["target_domain"]).to_pylist():
                    rows = table.filter(pc.and_(is_similar, pc.equal(table["target_domain"], target)))
                    sources = union_nodes[partition["source_domain"]][rows["source_node"].to_numpy()]
                    targets = union_nodes[target][rows["target_node"].to_numpy()]
                    apart = sources != targets
                    ends = np.sort([sources[apart], targets[apart]], axis=0)
                    keys.append(ends[0] * dataset.nodes + ends[1])
                    similarities.append(rows["similarity"].to_numpy()[apart])
        distinct, edge = np.unique(np.concatenate(keys), return_inverse=True)
        most_similar = np.zeros(distinct.size, np.float32)
        np.maximum.at(most_similar, edge, np.concatenate(similarities))
        ends = np.stack(np.divmod(distinct, max(dataset.nodes, 1))).astype(np.int32)
        return cls(ends, np.float32(weight) * most_similar)

    @classmethod
    def open(cls, checkpoint: Artifact) -> PairEdges:
        """Those that a checkpoint was trained with.

        Raises:
            DamagedFileError: the file is missing or damaged.
        """
        return cls(**open_tensors(checkpoint, PAIR_EDGES_FILE, {"ends": (2, None), "weights": (None,)}))

    def save(self, folder: Path) -> None:
        """Write the edges into the folder of a checkpoint."""
        save_file({"ends": self.ends, "weights": self.weights}, folder / PAIR_EDGES_FILE)

    def beside(self, graph: tuple[Longs, Ints]) -> sp.csr_array:
        """A graph (indptr, indices) over the same nodes with these edges: float64 [nodes, nodes], symmetric."""
        indptr, indices = graph
        shape = (indptr.size - 1,) * 2
        upper = sp.csr_array((self.weights.astype(np.float64), tuple(self.ends)), shape=shape)
        return (sp.csr_array((np.ones(indices.size), indices, indptr), shape=shape) + upper + upper.T).tocsr()
