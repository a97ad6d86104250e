"""Tensors of safetensors files, checked and memory-mapped, read without torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_contracts.store.artifact import Artifact
from data_contracts.store.files import damaged_file_error

_DTYPES = {"F32": "<f4", "I32": "<i4", "I64": "<i8"}
_LONGEST_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library."""


Shapes = Mapping[str, tuple[int | None, ...]]
"""Shapes of tensors by name; None for a length that is not known."""


def open_tensors(artifact: Artifact, name: str, shapes: Shapes = MappingProxyType({})) -> dict[str, NDArray[Any]]:
    """The tensors of a file by name, float32, int32 or int64, mapped for reading; arguments as for `check_tensors`.

    Raises:
        DamagedFileError: as `check_tensors`.
    """
    path = check_tensors(artifact, name, shapes)
    size, header = _read_header(path)
    return {name: _map_tensor(path, 8 + size, tensor) for name, tensor in header.items()}


def check_tensors(artifact: Artifact, name: str, shapes: Shapes = MappingProxyType({})) -> Path:
    """The path of a file of tensors, after its digest and its header were checked; no tensor is read.

    Args:
        artifact: that has the file.
        name: of the file in the artifact's folder.
        shapes: of the tensors that there must be; there may be others.

    Raises:
        DamagedFileError: the file is missing or damaged, lacks a tensor, or one has another shape or is not float32,
            int32 or int64.
    """
    path = artifact.checked(name)
    try:
        _check_header(path, shapes)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged_file_error(path, artifact.folder, f"safetensors: {error}") from error
    return path


def _check_header(path: Path, shapes: Shapes) -> None:
    """Check that the tensors fill the file behind the header, one after the other, each with its shape's size.

    The shapes that are expected must be among them.

    Raises:
        ValueError, KeyError, TypeError, RecursionError: they do not, or the header is no header.
    """
    length, header = _read_header(path)
    end, room = 0, path.stat().st_size - 8 - length
    for name, tensor in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if tensor["dtype"] not in _DTYPES:
            raise ValueError(f"tensor {name!r} is {tensor['dtype']}, must be one of {', '.join(_DTYPES)}")
        expected = np.dtype(_DTYPES[tensor["dtype"]]).itemsize * math.prod(map(_require_count, tensor["shape"]))
        start, stop = map(_require_count, tensor["data_offsets"])
        if (start, stop) != (end, end + expected):
            raise ValueError(f"tensor {name!r} is at bytes {start} to {stop}, must be at {end} to {end + expected}")
        end = stop
    if end != room:
        raise ValueError(f"tensors have {end:,} bytes, must fill the {room:,} behind the header")
    for name, expected_shape in shapes.items():
        shape = header[name]["shape"] if name in header else None
        lengths = (
            expected_shape
            if shape is None or len(shape) != len(expected_shape)
            else [length if wanted is None else wanted for length, wanted in zip(shape, expected_shape, strict=True)]
        )
        if shape != list(lengths):
            raise ValueError(f"tensor {name!r} has shape {shape}, must have {list(expected_shape)}")


def _read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Length of a header in bytes, and what it says of each tensor; nothing is allocated beyond the file's size."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            raise ValueError(f"header has {length:,} bytes, must fit into the file's {size:,}")
        header: dict[str, Any] = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise TypeError(f"header is {header!r}, must be an object")
    header.pop("__metadata__", None)
    return length, header


def _require_count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} must be a whole number from 0")
    return value


def _map_tensor(path: Path, start: int, tensor: dict[str, Any]) -> NDArray[Any]:
    shape, dtype = tuple(tensor["shape"]), _DTYPES[tensor["dtype"]]
    if 0 in shape:  # an empty file region cannot be mapped
        return np.zeros(shape, dtype)
    return np.asarray(np.memmap(path, dtype, "r", start + tensor["data_offsets"][0], shape))
