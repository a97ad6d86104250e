"""Arrow's scalars of Python values, without pandas.

`pa.scalar` and `pa.array` import pandas where it is installed, to see whether a value is one of its objects. That takes
0.2 seconds of every command, as long as all other imports together.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate

import pyarrow as pa

Scalar = int | float | str | bool


def literal(value: Scalar) -> pa.Scalar:
    """A value as what `pa.scalar` makes of it: int64, double, string or bool."""
    if isinstance(value, str):
        return strings([value])[0]
    if isinstance(value, bool):
        return pa.Array.from_buffers(pa.bool_(), 1, [None, pa.py_buffer(bytes([value]))])[0]
    number = array("q" if isinstance(value, int) else "d", [value])
    return pa.Array.from_buffers(
        pa.int64() if isinstance(value, int) else pa.float64(), 1, [None, pa.py_buffer(number)]
    )[0]


def strings(texts: Sequence[str]) -> pa.Array:
    """Texts as a string array."""
    encoded = [text.encode() for text in texts]
    offsets = array("i", accumulate(map(len, encoded), initial=0))
    return pa.Array.from_buffers(
        pa.string(), len(texts), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    )
