"""Damage to the bytes of a file, at a place that is drawn."""

from __future__ import annotations

import random


def flip(content: bytes, draw: random.Random) -> bytes:
    """One bit."""
    changed = bytearray(content)
    changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def zero_tail(content: bytes, draw: random.Random) -> bytes:
    """As after the crash of a machine that had not written it yet."""
    size = draw.randrange(1, len(content) + 1)
    return content[:-size] + bytes(size)


def change_digit(content: bytes, draw: random.Random) -> bytes:
    """A decimal digit."""
    places = [place for place, byte in enumerate(content) if 48 <= byte <= 57]
    place = draw.choice(places or [0])
    return content[:place] + bytes([48 + draw.randrange(10)]) + content[place + 1 :]


def cut(content: bytes, draw: random.Random) -> bytes:
    """The end is missing."""
    return content[: draw.randrange(len(content))]
