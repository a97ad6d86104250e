"""Records of CSV with line breaks inside quotes, brought on one line each.

A line with an odd number of quotes may open a field that the next such line closes. If both, and what is between, are
one record by RFC 4180, they become one line, with spaces for the breaks; empty lines follow, so that all lines keep
their numbers. If the record has another number of fields, or a break in a field that is read, each of its lines becomes
one that cannot be read. So the text of a review never becomes a row, and a stray quote costs its own line.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.compute.dtypes import Longs
from pipeline.logs.discovery import LogError

_LONGEST = 1 << 20
"""Bytes of a record of several lines."""


@dataclass(frozen=True)
class QuotedLines:
    """Joins the lines of one file to records of `width` fields, of which those at `positions` are read.

    Attributes:
        path: for messages.
        first_line: number of the first line.
        width, positions: of the fields.
        delimiter: between them.
        line_bytes: longest readable line.
        are_allowed: whether records may have several lines; otherwise the first such record is an error.
    """

    path: Path
    first_line: int
    width: int
    positions: tuple[int, ...]
    delimiter: str
    line_bytes: int
    are_allowed: bool = True

    def join(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """Blocks of as many lines, with records of several lines joined. The result does not depend on the blocks.

        Raises:
            LogError: there is such a record, and none is allowed.
        """
        waiting, size, line = list[bytes](), 0, self.first_line  # from a line on whose quote may be open
        for block in blocks:
            if not waiting and b'"' not in block:
                yield block
                line += block.count(b"\n")
                continue
            waiting.append(block)
            size += len(block)
            if len(waiting) > 1 and size <= self._longest and not len(_odd_lines(block, self._longest).starts):
                continue
            joined = self._join(b"".join(waiting), line, is_last=False)
            if joined.done:
                yield joined.done
                line += joined.done.count(b"\n")
            waiting, size = ([joined.rest], len(joined.rest)) if joined.rest else ([], 0)
        if waiting:
            yield self._join(b"".join(waiting), line, is_last=True).done

    @property
    def _longest(self) -> int:
        return min(self.line_bytes, _LONGEST)

    def _join(self, text: bytes, first_line: int, *, is_last: bool) -> _Joined:
        lines = _odd_lines(text, self._longest)
        done, cursor, index = list[bytes](), 0, 0
        while index < len(lines.starts):
            start = int(lines.starts[index])
            if index + 1 == len(lines.starts):
                if not is_last and len(text) - start <= self._longest:
                    return _Joined(b"".join([*done, text[cursor:start]]), text[start:])
            else:
                record = text[start : int(lines.ends[index + 1])]
                fields = self._parse(record.removesuffix(b"\r")) if len(record) <= self._longest else None
                if fields is not None:
                    self._require_allowed(record, first_line + text.count(b"\n", 0, start))
                    done += [text[cursor:start], self._as_lines(record, fields)]
                    cursor = start + len(record)
                    index += 1
            index += 1
        return _Joined(b"".join([*done, text[cursor:]]), b"")

    def _parse(self, text: bytes) -> list[str] | None:
        """The fields of text that is one record of several lines, else None."""
        lines = text.decode("latin-1").split("\n")
        broken = chain((f"{line}\n" for line in lines[:-1]), lines[-1:])
        reader = csv.reader(broken, delimiter=self.delimiter, strict=True)
        try:
            fields = next(reader)
        except (csv.Error, StopIteration):
            return None
        return fields if reader.line_num == len(lines) else None

    def _as_lines(self, record: bytes, fields: list[str]) -> bytes:
        """As many lines as the record has, the last without its end: the record and empty ones, or unreadable ones."""
        if len(fields) == self.width and not any("\n" in fields[position] for position in self.positions):
            flat = record.replace(b"\r\n", b" ").replace(b"\n", b" ")
            return flat + b"\n" * record.count(b"\n")
        first, *others = record.split(b"\n")  # the first has an open quote
        return b"\n".join([first, *(b'"' + line.replace(b'"', b"") if line.strip() else line for line in others)])

    def _require_allowed(self, record: bytes, line: int) -> None:
        if not self.are_allowed:
            last = line + record.count(b"\n")
            raise LogError(
                f"{self.path}: lines {line} to {last} are one record, with line breaks inside quotes, but "
                "quoted_newlines is false; set it to true, or format = 'tsv' with a delimiter if quotes have no meaning"
            )


class _Joined(NamedTuple):
    """Text whose records are complete, and text from a quote on that may be open."""

    done: bytes
    rest: bytes


class _OddLines(NamedTuple):
    """Lines with an odd number of quotes: the bytes where they start, and where their line feeds are."""

    starts: Longs
    ends: Longs


def _odd_lines(text: bytes, longest: int) -> _OddLines:
    """Without lines of more than `longest` bytes, of which some may be missing."""
    data = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    if not len(ends):
        return _OddLines(starts, ends)
    is_odd = np.bitwise_xor.reduceat(data == ord('"'), starts) & (ends - starts <= longest)
    return _OddLines(starts[is_odd], ends[is_odd])
