"""Accidental damage to files, and manifests that are made to fit it."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from data_contracts.store.artifact import Artifact
from data_contracts.store.digests import file_digest
from data_contracts.store.manifest import MANIFEST


def flip_bit(content: bytes) -> bytes:
    """One bit in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :]


def zero_tail(content: bytes) -> bytes:
    """The last sixteenth, as after the crash of a machine that had not written it yet."""
    size = max(len(content) // 16, 8)
    return content[:-size] + bytes(size)


def change_digit(content: bytes) -> bytes:
    """The last decimal digit."""
    last = max(content.rfind(digit) for digit in b"123456789")
    return content[:last] + (b"1" if content[last : last + 1] == b"2" else b"2") + content[last + 1 :]


def cut(content: bytes) -> bytes:
    """The last byte is missing."""
    return content[:-1]


DAMAGES: tuple[Callable[[bytes], bytes], ...] = (flip_bit, zero_tail, change_digit, cut)


def damage_file(path: Path, damage: Callable[[bytes], bytes]) -> None:
    content = path.read_bytes()
    assert damage(content) != content
    path.write_bytes(damage(content))


def rehash(artifact: Artifact) -> Artifact:
    """The artifact after its manifest was made to fit its files, as somebody does who writes wrong ones."""
    files = json.loads((artifact.folder / MANIFEST).read_bytes())["files"]
    for entry in files:
        file = artifact.folder / entry["path"]
        entry |= {"sha256": file_digest(file), "size": file.stat().st_size}
    return edit_manifest(artifact, files=files)


def edit_manifest(artifact: Artifact, **changes: Any) -> Artifact:
    """The artifact after entries of its manifest were changed, and its manifest's own digest with them."""
    path = artifact.folder / MANIFEST
    path.write_bytes(resigned(path.read_bytes(), **changes))
    return Artifact(artifact.contract, artifact.folder)


def resigned(content: bytes, **changes: Any) -> bytes:
    """A manifest with other entries and the digest that fits them."""
    manifest = json.loads(content) | changes
    manifest["made"].pop("sha256", None)
    text = json.dumps(manifest, sort_keys=True, ensure_ascii=True)
    manifest["made"]["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps(manifest).encode()


ODD_VALUES: tuple[Any, ...] = (None, 3, -1, 10**30, float("inf"), "x", "\x1b[31m\u202e\n../..", [1], {"a": 1}, True)


def change_one(value: Any, draw: random.Random) -> Any:
    """A JSON value with one of its parts dropped, doubled or of another kind."""
    spots: list[list[Any]] = [[]]
    for spot in spots:
        inner = reduce(getitem, spot, value)
        steps = inner if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ()
        spots += [[*spot, step] for step in steps]
    *tables, last = draw.choice(spots[1:])
    changed = json.loads(json.dumps(value))
    table = reduce(getitem, tables, changed)
    change = draw.choice(["drop", "double", *ODD_VALUES])
    if change == "drop":
        del table[last]
    else:
        table[last] = [table[last]] * 2 if change == "double" else change
    return changed


def signed(value: Any, holder: Any, *, sign: bool) -> bytes:
    """A manifest or a record as somebody else would write it: with the digest that fits, or none as those of 0.1."""
    if isinstance(holder, dict):
        holder.pop("sha256", None)
        if sign:
            text = json.dumps(value, sort_keys=True, ensure_ascii=True)
            holder["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps(value).encode()
