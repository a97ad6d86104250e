"""Descriptions of artifacts: content, statistics and violations, as plain values to print as text or JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.store.artifact import Artifact
from data_contracts.store.files import parse_partition, read_rows
from flows.inspection.lineage import find_parents, lineage
from flows.output.characters import escape
from flows.output.tables import Table

_SHOWN_ENTRIES = 20
"""Most partitions, or entries of a table of statistics, that are shown."""
_SHOWN_ROWS = 100


def describe(artifact: Artifact, head: int = 0) -> dict[str, Any]:
    """Contract, rows by partition, sizes, ranges, ancestors, statistics and violations of an artifact.

    Args:
        artifact: to describe; its parents are only found if it is in a store.
        head: number of first rows to show.
    """
    manifest = artifact.manifest
    broken = artifact.verify([parent for parent in find_parents(artifact).values() if parent])
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
    }


def as_text(description: Mapping[str, Any], width: int | None = None) -> str:
    """A description as text, for a terminal of this width."""
    made, head = description["made"], description["head"]
    size = f"{description['rows']:,} rows, {description['files']} files, {description['bytes'] / 2**20:.2f} MiB"
    lines = [
        f"{description['contract']} (contract version {description['version']}): {description['meaning']}",
        f"  {description['folder']}",
        f"  {size}, made {made['at']} in {made['seconds']} s",
        "columns:",
        *(f"  {_column_line(column)}" for column in description["columns"]),
        *_partition_lines(description["partitions"]),
    ]
    for name in ("settings", "statistics"):
        if description[name]:
            lines += [f"{name}:", *(f"  {line}" for line in _outline(description[name]))]
    if head:
        lines += ["first rows:", rows_table(tuple(head[0]), (row.values() for row in head), width)]
    lines += [f"VIOLATION: {violation}" for violation in description["violations"]] or ["violations: none"]
    return "\n".join(lines)


def rows_table(columns: Sequence[str], rows: Iterator[Iterable[Any]], width: int | None = None) -> str:
    """The first hundred rows in aligned columns, with long lists and texts cut short, for a terminal of this width."""
    cells = tuple(tuple(map(_cell, row)) for row in islice(rows, _SHOWN_ROWS))
    text = Table("", tuple(columns), cells).plain(width).removeprefix("\n")
    has_more = any(True for _ in rows)
    return f"{text}\n… more than {_SHOWN_ROWS} rows: add a limit, or --json for all" if has_more else text


def _cell(value: Any) -> str:
    if isinstance(value, list) and len(value) > 3:
        return f"[{', '.join(map(_cell, value[:3]))}, … {len(value):,}]"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    text = escape(text)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _rows_by_partition(artifact: Artifact) -> list[dict[str, Any]]:
    rows: Counter[tuple[tuple[str, str], ...]] = Counter()
    for entry in artifact.manifest.files:
        rows[tuple(parse_partition(entry.path).items())] += entry.rows or 0
    return [{**dict(partition), "rows": count} for partition, count in sorted(rows.items()) if partition]


def _partition_lines(partitions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if partitions:
        yield "rows by partition:"
    for partition in partitions[:_SHOWN_ENTRIES]:
        yield f"  {escape(' → '.join(list(partition.values())[:-1])):<32} {partition['rows']:>15,}"
    yield from _more_line(len(partitions), "  ")


def _columns(artifact: Artifact) -> Iterator[dict[str, Any]]:
    for column in artifact.contract.columns:
        description: dict[str, Any] = {"name": column.name, "type": str(column.type), "meaning": column.meaning}
        description |= {"unit": column.unit} if column.unit else {}
        if column.name in artifact.contract.partitioned_by:
            values = sorted({partition[column.name] for partition in artifact.partitions()})
            description |= {"minimum": values[0], "maximum": values[-1], "distinct": len(values)} if values else {}
        else:
            description |= _range(artifact, column.name)
        yield description


def _range(artifact: Artifact, name: str) -> dict[str, Any]:
    """Smallest and largest value, longest list and number of nulls of a column, read one file at a time."""
    lows, highs, lengths, nulls = [], [], [], 0
    for path in artifact.files():
        values = read_rows(path, [name], folder=artifact.path)[name]
        nulls += values.null_count
        while pa.types.is_list(values.type):
            lengths += [pc.max(pc.list_value_length(values)).as_py() or 0]
            values = pc.list_flatten(values)
        limits = pc.min_max(values).as_py()
        lows += [limits["min"]] if limits["min"] is not None else []
        highs += [limits["max"]] if limits["max"] is not None else []
    extremes = {"minimum": min(lows), "maximum": max(highs)} if lows else {}
    return extremes | ({"nulls": nulls} if nulls else {}) | ({"longest": max(lengths)} if lengths else {})


def _head(artifact: Artifact, rows: int) -> list[dict[str, Any]]:
    head: list[dict[str, Any]] = []
    for table in artifact.batches():
        head += table.slice(0, min(rows - len(head), table.num_rows)).to_pylist()
        if len(head) >= rows:
            break
    return head


def _column_line(column: Mapping[str, Any]) -> str:
    limits = escape(f"{column['minimum']!s} … {column['maximum']!s}") if "minimum" in column else "empty"
    counts = [f"{column[name]:,} {name}" for name in ("distinct", "nulls") if name in column]
    counts += [f"longest list {column['longest']:,}"] if "longest" in column else []
    unit = f" [{column['unit']}]" if "unit" in column else ""
    return f"{column['name']:<16} {column['type']:<20} {'; '.join([limits, *counts])} – {column['meaning']}{unit}"


def _outline(value: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Nested values, one per line, and one line for each mapping of a list; only the first of many mappings."""
    are_mappings = all(isinstance(inner, dict) for inner in value.values())
    for key, inner in islice(value.items(), _SHOWN_ENTRIES if are_mappings else None):
        if isinstance(inner, dict) and inner:
            yield f"{indent}{escape(key)}:"
            yield from _outline(inner, indent + "  ")
        elif isinstance(inner, list) and inner and isinstance(inner[0], dict):
            yield f"{indent}{escape(key)}:"
            for row in inner[:_SHOWN_ENTRIES]:
                pairs = (f"{name} {json.dumps(cell, ensure_ascii=False)}" for name, cell in row.items())
                yield f"{indent}  {', '.join(pairs)}"
            yield from _more_line(len(inner), indent + "  ")
        else:
            yield f"{indent}{escape(key)}: {json.dumps(inner, ensure_ascii=False)}"
    if are_mappings:
        yield from _more_line(len(value), indent)


def _more_line(count: int, indent: str) -> Iterator[str]:
    if count > _SHOWN_ENTRIES:
        yield f"{indent}… {count - _SHOWN_ENTRIES:,} more, --json has them"
