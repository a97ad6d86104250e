"""Random numbers that depend only on a seed and on the name of their purpose."""

from __future__ import annotations

import hashlib
import json

import numpy as np


def draw_key(seed: int, *name: str | int) -> np.uint64:
    """Key of a family of counter-hashed draws.

    Args:
        seed: the run's seed.
        name: purpose, domain, epoch, batch, layer: whatever the draws are for.

    Returns:
        64 well mixed bits. Two different lists of arguments have the same key with a probability of 2^-64.
    """
    return np.uint64(int.from_bytes(_digest(seed, name, 8), "little"))


def generator(seed: int, *name: str | int) -> np.random.Generator:
    """A separate Philox stream for the named purpose."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(_digest(seed, name, 16), "little")))


def _digest(seed: int, name: tuple[str | int, ...], size: int) -> bytes:
    return hashlib.blake2b(json.dumps([seed, *name]).encode(), digest_size=size).digest()


def name_seed(seed: int, *names: str) -> int:
    """A 64-bit number that depends only on a seed and on names."""
    text = "\x1f".join([str(seed), *names]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
