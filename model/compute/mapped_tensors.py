"""Tensors of safetensors files, memory-mapped, read without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DTYPES = {"F32": "<f4", "I32": "<i4", "I64": "<i8"}


def open_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a file by name, float32, int32 or int64, mapped for reading.

    Raises:
        ValueError: a tensor is of another type.
    """
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header: dict[str, Any] = json.loads(stream.read(size))
    header.pop("__metadata__", None)
    for name, tensor in header.items():
        if tensor["dtype"] not in _DTYPES:
            raise ValueError(
                f"{path}: tensor {name!r} is {tensor['dtype']}, must be one of {', '.join(_DTYPES)}; make it again"
            )
    return {name: _map_tensor(path, 8 + size, tensor) for name, tensor in header.items()}


def _map_tensor(path: Path, start: int, tensor: dict[str, Any]) -> NDArray[Any]:
    shape, dtype = tuple(tensor["shape"]), _DTYPES[tensor["dtype"]]
    if 0 in shape:  # an empty file region cannot be mapped
        return np.zeros(shape, dtype)
    return np.asarray(np.memmap(path, dtype, "r", start + tensor["data_offsets"][0], shape))
