"""Where artifacts come from: their parents, grandparents and so on, as a tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.tree import Tree

from data_contracts.open_store import containing_store
from data_contracts.roles import Role
from data_contracts.store.artifact import Artifact


def find_parents(artifact: Artifact) -> dict[str, Artifact | None]:
    """The artifact's parents by role; None for a parent that is not in its store."""
    store = containing_store(artifact)
    return {role: store.find(Role.parse(role).contract, key) for role, key in artifact.manifest.parents.items()}


def ancestors(role: str, artifact: Artifact) -> dict[str, Artifact]:
    """An artifact and all of its ancestors that its store has, by role."""
    artifacts: dict[str, Artifact] = {}
    for parent_role, parent in find_parents(artifact).items():
        artifacts |= ancestors(parent_role, parent) if parent else {}
    return artifacts | {role: artifact}


def lineage(artifact: Artifact) -> dict[str, Any]:
    """Parents by role, each with its key, whether its store has it, its rows and its own parents."""
    parents: dict[str, Any] = {}
    for role, parent in find_parents(artifact).items():
        details = {"rows": parent.manifest.rows, "parents": lineage(parent)} if parent else {}
        parents[role] = {"key": artifact.manifest.parents[role], "found": parent is not None, **details}
    return parents


def as_tree(title: str, parents: Mapping[str, Any]) -> str:
    """A lineage as text, under a title; the parents of an artifact are shown only once."""
    tree = Tree(title)
    _add_branches(tree, parents, set())
    console = Console(width=120, color_system=None)
    with console.capture() as text:
        console.print(tree, markup=False, highlight=False)
    return "\n".join(line.rstrip() for line in text.get().splitlines())


def without_children(descriptions: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Those of a run's described artifacts that no other one was made from, in the form that `lineage` returns."""
    used = {key for description in descriptions.values() for key in _keys(description["parents"])}
    return {
        role: {**description, "found": True}
        for role, description in descriptions.items()
        if description["key"] not in used
    }


def _add_branches(branch: Tree, parents: Mapping[str, Any], seen: set[str]) -> None:
    for role, parent in parents.items():
        again = parent["key"] in seen
        seen.add(parent["key"])
        state = "above" if again else f"{parent['rows']:,} rows" if parent["found"] else "not in this store"
        inner = branch.add(f"{role} {parent['key']} ({state})")
        if not again:
            _add_branches(inner, parent.get("parents", {}), seen)


def _keys(parents: Mapping[str, Any]) -> Iterator[str]:
    for parent in parents.values():
        yield parent["key"]
        yield from _keys(parent.get("parents", {}))
