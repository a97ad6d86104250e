"""A 64-bit hash of strings, the same on every machine."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Words = npt.NDArray[np.uint64]
_FNV_PRIME = np.uint64(0x100000001B3)
_FEW = 24
"""Strings of which NumPy hashes a byte each in the time that Python takes."""


def hash_strings(ids: pa.StringArray, key: int) -> Words:
    """A 64-bit hash of each string's UTF-8 bytes (FNV-1a from `key`, mixed).

    One pass over all strings per byte, as long as that many are so long; the few longest are then hashed one by one.
    """
    offsets = np.zeros(1, np.int32)
    if len(ids):
        offsets = np.frombuffer(ids.buffers()[1], np.int32)[ids.offset : ids.offset + len(ids) + 1]
    data = np.frombuffer(ids.buffers()[2] or b"", np.uint8)
    starts, lengths = offsets[:-1], np.diff(offsets)
    words = np.full(len(ids), key, np.uint64) ^ lengths.astype(np.uint64)
    rows = np.flatnonzero(lengths > 0)
    position = 0
    while len(rows) > _FEW:
        words[rows] = (words[rows] ^ data[starts[rows] + position]) * _FNV_PRIME
        position += 1
        rows = rows[lengths[rows] > position]
    for row in rows.tolist():
        word = int(words[row])
        for byte in data[starts[row] + position : starts[row] + lengths[row]].tobytes():
            word = (word ^ byte) * int(_FNV_PRIME) & 0xFFFF_FFFF_FFFF_FFFF
        words[row] = word
    return mix_words(words)


def mix_words(words: Words) -> Words:
    """The finaliser of splitmix64, a bijection of 64-bit integers."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Words = words ^ (words >> np.uint64(31))
    return mixed
