"""Node numbers of an earlier run, looked up by the ids in the logs."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.store.artifact import Artifact


def previous_node_numbers(previous: Artifact, nodes: pa.Table, domain: str) -> npt.NDArray[np.int32]:
    """Look up the number that each node of a domain had in an earlier `nodes` artifact.

    Args:
        previous: the earlier `nodes`.
        nodes: kind and id of the domain's nodes.
        domain: its name.

    Returns:
        int32 [nodes], -1 for new nodes.
    """
    known = _kind_and_id(previous.read(["kind", "id"], domain=domain))
    numbers: npt.NDArray[np.int32] = pc.index_in(_kind_and_id(nodes), known).fill_null(-1).to_numpy()
    return numbers


def _kind_and_id(nodes: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(nodes["kind"], nodes["id"], " ")
