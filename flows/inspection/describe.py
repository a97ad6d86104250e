"""What an artifact holds and whether it keeps its contract, as plain values that print as text or JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.store.artifact import Artifact
from data_contracts.store.files import partition_of, read_rows
from flows.inspection.lineage import lineage, parents_of
from flows.output.tables import Table

_SHOWN_PARTS = 20
"""Partitions, or parts of what a stage measured, that are shown of more."""
_SHOWN_ROWS = 100


def describe(artifact: Artifact, head: int = 0) -> dict[str, Any]:
    """Contract, rows by partition, sizes, ranges, ancestors, statistics and violations of an artifact.

    Args:
        artifact: its folder may lie in a store, where its parents are looked up, or alone.
        head: first rows to show.
    """
    manifest = artifact.manifest
    broken = artifact.verify([parent for parent in parents_of(artifact).values() if parent])
    return {
        "contract": artifact.contract.name,
        "version": manifest.version,
        "meaning": artifact.contract.meaning,
        "key": manifest.key,
        "folder": str(artifact.path),
        "rows": manifest.rows,
        "files": len(manifest.files),
        "bytes": sum(entry.size for entry in manifest.files),
        "partitions": _rows_by_partition(artifact),
        "columns": [] if broken else list(_columns(artifact)),
        "parents": lineage(artifact),
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
    lines += _partition_lines(found["partitions"])
    for part in ("settings", "statistics"):
        if found[part]:
            lines += [f"{part}:", *(f"  {line}" for line in _outline(found[part]))]
    if found["head"]:
        lines += ["first rows:", rows_table(tuple(found["head"][0]), (row.values() for row in found["head"]))]
    lines += [f"VIOLATION: {violation}" for violation in found["violations"]] or ["violations: none"]
    return "\n".join(lines)


def rows_table(columns: Sequence[str], rows: Iterator[Iterable[Any]]) -> str:
    """Rows in aligned columns, long lists and texts cut short; the first hundred, and a line where there are more."""
    cells = tuple(tuple(map(_cell, row)) for row in islice(rows, _SHOWN_ROWS))
    text = Table("", tuple(columns), cells).plain().removeprefix("\n")
    return (
        f"{text}\n… more than {_SHOWN_ROWS} rows: add a limit, or --json for all" if any(True for _ in rows) else text
    )


def _cell(value: Any) -> str:
    if isinstance(value, list) and len(value) > 3:
        return f"[{', '.join(map(_cell, value[:3]))}, … {len(value):,}]"
    text = f"{value:.6g}" if isinstance(value, float) else str(value).replace("\t", "\\t").replace("\n", "\\n")
    return text if len(text) <= 60 else f"{text[:59]}…"


def _rows_by_partition(artifact: Artifact) -> list[dict[str, Any]]:
    rows: Counter[tuple[tuple[str, str], ...]] = Counter()
    for entry in artifact.manifest.files:
        rows[tuple(partition_of(entry.path).items())] += entry.rows or 0
    return [{**dict(partition), "rows": count} for partition, count in sorted(rows.items()) if partition]


def _partition_lines(partitions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if partitions:
        yield "rows by partition:"
    for partition in partitions[:_SHOWN_PARTS]:
        yield f"  {' → '.join(list(partition.values())[:-1]):<32} {partition['rows']:>15,}"
    yield from _rest(len(partitions), "  ")


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
        values = read_rows(path, [name])[name]
        nulls += values.null_count
        while pa.types.is_list(values.type):
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
    """Nested values, one per line; a list of mappings as a line for each. Of many mappings the first are shown."""
    are_parts = all(isinstance(inner, dict) for inner in value.values())
    for key, inner in islice(value.items(), _SHOWN_PARTS if are_parts else None):
        if isinstance(inner, dict) and inner:
            yield f"{indent}{key}:"
            yield from _outline(inner, indent + "  ")
        elif isinstance(inner, list) and inner and isinstance(inner[0], dict):
            yield f"{indent}{key}:"
            yield from (f"{indent}  {_flat(row)}" for row in inner[:_SHOWN_PARTS])
            yield from _rest(len(inner), indent + "  ")
        else:
            yield f"{indent}{key}: {json.dumps(inner, ensure_ascii=False)}"
    if are_parts:
        yield from _rest(len(value), indent)


def _rest(parts: int, indent: str) -> Iterator[str]:
    if parts > _SHOWN_PARTS:
        yield f"{indent}… {parts - _SHOWN_PARTS:,} more, --json has them"


def _flat(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in row.items())
