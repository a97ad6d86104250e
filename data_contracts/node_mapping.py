"""Places: which nodes of a domain are which of an earlier numbering."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.store.artifact import Artifact


def earlier_places(before: Artifact, nodes: pa.Table, domain: str) -> npt.NDArray[np.int32]:
    """By the logs' own ids, what number each node of a domain had before.

    Args:
        before: an earlier `nodes` artifact.
        nodes: kind and id of the domain's nodes.
        domain: its name.

    Returns:
        int32 [nodes], -1 for new ones.
    """
    known = _names(before.read(["kind", "id"], domain=domain))
    places: npt.NDArray[np.int32] = pc.index_in(_names(nodes), known).fill_null(-1).to_numpy()
    return places


def _names(nodes: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(nodes["kind"], nodes["id"], " ")
