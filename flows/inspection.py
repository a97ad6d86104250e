"""What an artifact holds and whether it keeps its contract, as plain values that print as text or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.artifact import Artifact
from data_contracts.contracts import CONTRACTS
from data_contracts.store import Store, open_artifact
from flows.config import load_config, store_folder
from flows.plan import make_plan
from flows.unfinished import run_by_name, what_is_missing


def find_run(run: str, store: Path | None = None) -> tuple[str, dict[str, Artifact], str | None]:
    """A run's name, its artifacts and, if it is not finished, what is missing; from its TOML file or its name.

    Raises:
        FileNotFoundError: no run of that name in the store.
    """
    if run.endswith(".toml"):
        config = load_config(Path(run), [f"store={store.absolute()}"] if store else [])
        return config.name, make_plan(config).found(), what_is_missing(config.name, store_folder(config))
    root = store or store_folder()
    return run, run_by_name(run, root)[0], what_is_missing(run, root)


def find_artifact(place: str, store: Path | None = None) -> Artifact | None:
    """The artifact in a folder or, as `run/role`, in the store's runs; None where the place names no artifact."""
    root = store or store_folder()
    for folder in (Path(place), root / "runs" / place):
        if (folder / "manifest.json").exists():
            return open_artifact(folder)
    run, _, role = place.partition("/")
    if role and (root / "runs" / run / "run.json").exists():  # an unfinished run has no links yet
        return run_by_name(run, root)[0].get(role)
    return None


def describe(artifact: Artifact, head: int = 0) -> dict[str, Any]:
    """Contract, rows, sizes, ranges, parents, statistics and violations of an artifact.

    Args:
        artifact: its folder may lie in a store, where its parents are looked up, or alone.
        head: first rows to show.
    """
    manifest = artifact.manifest
    parents = {role: _parent(artifact, role, key) for role, key in manifest.parents.items()}
    broken = artifact.verify([parent for parent in parents.values() if parent])
    return {
        "contract": artifact.contract.name,
        "version": manifest.version,
        "meaning": artifact.contract.meaning,
        "key": manifest.key,
        "folder": str(artifact.path),
        "rows": manifest.rows,
        "files": len(manifest.files),
        "bytes": sum(entry.size for entry in manifest.files),
        "partitions": [partition for partition in artifact.partitions() if partition],
        "columns": [] if broken else list(_columns(artifact)),
        "parents": {role: {"key": manifest.parents[role], "found": parent is not None}
                    for role, parent in parents.items()},
        "settings": manifest.settings,
        "statistics": manifest.statistics,
        "made": manifest.made,
        "violations": [str(violation) for violation in broken],
        "head": [] if broken or not head else _head(artifact, head),
    }  # fmt: skip


def as_text(found: Mapping[str, Any]) -> str:
    """A description for people."""
    size = f"{found['rows']:,} rows, {found['files']} files, {found['bytes'] / 2**20:.2f} MiB"
    lines = [f"{found['contract']} (contract version {found['version']}): {found['meaning']}",
             f"  {found['folder']}", f"  {size}, made {found['made']['at']} in {found['made']['seconds']} s",
             "columns:", *(f"  {_column_line(column)}" for column in found["columns"])]  # fmt: skip
    for role, parent in found["parents"].items():
        lines.append(f"parent: {role} {parent['key']}{'' if parent['found'] else ' (not in this store)'}")
    for part in ("settings", "statistics"):
        if found[part]:
            lines += [f"{part}:", *(f"  {line}" for line in _outline(found[part]))]
    lines += [f"row: {json.dumps(row, ensure_ascii=False, default=str)}" for row in found["head"]]
    lines += [f"VIOLATION: {violation}" for violation in found["violations"]] or ["violations: none"]
    return "\n".join(lines)


def _parent(artifact: Artifact, role: str, key: str) -> Artifact | None:
    contract = CONTRACTS[role.split("-", maxsplit=1)[0]]
    return Store(artifact.path.parent.parent).find(contract, key)


def _columns(artifact: Artifact) -> Iterator[dict[str, Any]]:
    for column in artifact.contract.columns:
        found: dict[str, Any] = {"name": column.name, "type": str(column.type), "meaning": column.meaning}
        found |= {"unit": column.unit} if column.unit else {}
        if column.name in artifact.contract.partitioned_by:
            values = sorted({partition[column.name] for partition in artifact.partitions()})
            found |= {"minimum": values[0], "maximum": values[-1], "distinct": len(values)} if values else {}
        else:
            found |= _range(artifact, column.name)
        yield found


def _range(artifact: Artifact, name: str) -> dict[str, Any]:
    """Smallest and largest value, list lengths and nulls, one file at a time."""
    lows, highs, lengths, nulls = [], [], [], 0
    for path in artifact.files():
        values = pq.read_table(path, columns=[name], page_checksum_verification=True, partitioning=None)[name]
        nulls += values.null_count
        if pa.types.is_list(values.type):
            lengths += [pc.max(pc.list_value_length(values)).as_py() or 0]
            values = pc.list_flatten(values)
        limits = pc.min_max(values).as_py()
        lows += [limits["min"]] if limits["min"] is not None else []
        highs += [limits["max"]] if limits["max"] is not None else []
    found = {"minimum": min(lows), "maximum": max(highs)} if lows else {}
    return found | ({"nulls": nulls} if nulls else {}) | ({"longest": max(lengths)} if lengths else {})


def _head(artifact: Artifact, rows: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for table in artifact.batches():
        found += table.slice(0, rows - len(found)).to_pylist()
        if len(found) >= rows:
            break
    return found


def _column_line(column: Mapping[str, Any]) -> str:
    limits = f"{column['minimum']!s} … {column['maximum']!s}" if "minimum" in column else "empty"
    extra = [f"{column[name]:,} {name}" for name in ("distinct", "nulls") if name in column]
    extra += [f"longest list {column['longest']:,}"] if "longest" in column else []
    unit = f" [{column['unit']}]" if "unit" in column else ""
    return f"{column['name']:<16} {column['type']:<20} {'; '.join([limits, *extra])} – {column['meaning']}{unit}"


def _outline(value: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Nested values, one per line; a list of mappings as a line for each."""
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield f"{indent}{key}:"
            yield from _outline(inner, indent + "  ")
        elif isinstance(inner, list) and inner and isinstance(inner[0], dict):
            yield f"{indent}{key}:"
            yield from (f"{indent}  {_flat(row)}" for row in inner)
        else:
            yield f"{indent}{key}: {json.dumps(inner, ensure_ascii=False)}"


def _flat(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in row.items())
