"""Where artifacts come from: parents, and theirs, as a tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.tree import Tree

from data_contracts.contracts import Role
from data_contracts.open_store import store_of
from data_contracts.store.artifact import Artifact


def parents_of(artifact: Artifact) -> dict[str, Artifact | None]:
    """By role, the artifacts that one was made from; None for what is not in its store."""
    store = store_of(artifact)
    return {role: store.find(Role.parse(role).contract, key)
            for role, key in artifact.manifest.parents.items()}  # fmt: skip


def ancestors(role: str, artifact: Artifact) -> dict[str, Artifact]:
    """An artifact with all that it was made from and that its store has, by role."""
    found: dict[str, Artifact] = {}
    for name, parent in parents_of(artifact).items():
        found |= ancestors(name, parent) if parent else {}
    return found | {role: artifact}


def lineage(artifact: Artifact) -> dict[str, Any]:
    """Parents by role, each with its key, whether its store has it, its rows and its own parents."""
    found: dict[str, Any] = {}
    for role, parent in parents_of(artifact).items():
        more = {"rows": parent.manifest.rows, "parents": lineage(parent)} if parent else {}
        found[role] = {"key": artifact.manifest.parents[role], "found": parent is not None, **more}
    return found


def as_tree(title: str, parents: Mapping[str, Any]) -> str:
    """A lineage for people, under a title; what was told once is not told again."""
    tree = Tree(title)
    told: set[str] = set()
    _grow(tree, parents, told)
    console = Console(width=120, color_system=None)
    with console.capture() as text:
        console.print(tree, markup=False, highlight=False)
    return "\n".join(line.rstrip() for line in text.get().splitlines())


def without_children(every: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Of a run's described artifacts those that none of the others was made from, as `lineage` has them."""
    used = {key for found in every.values() for key in _keys(found["parents"])}
    return {role: {**found, "found": True} for role, found in every.items() if found["key"] not in used}


def _grow(branch: Tree, parents: Mapping[str, Any], told: set[str]) -> None:
    for role, parent in parents.items():
        again = parent["key"] in told
        told.add(parent["key"])
        state = "above" if again else f"{parent['rows']:,} rows" if parent["found"] else "not in this store"
        inner = branch.add(f"{role} {parent['key']} ({state})")
        if not again:
            _grow(inner, parent.get("parents", {}), told)


def _keys(parents: Mapping[str, Any]) -> Iterator[str]:
    for parent in parents.values():
        yield parent["key"]
        yield from _keys(parent.get("parents", {}))
