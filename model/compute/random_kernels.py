"""Compiled random numbers that are a pure function of a key and a counter."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def mix(key, counter):
    """64 random bits number `counter` of the stream `key` (splitmix64); uint64 in, uint64 out."""
    bits = key + np.uint64(0x9E3779B97F4A7C15) * (np.uint64(counter) + np.uint64(1))
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@njit(nogil=True, cache=True)
def below(bits, bound):
    """A number in [0, bound) from the upper 32 of 64 bits; for bound < 2^32 its bias is below bound / 2^32."""
    return np.int64(((bits >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32))
