"""Buckets: all rows of some users, over all domains, few enough to be sifted in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_contracts.settings import IngestSettings
from pipeline.compute.fan_out import bounded_ranges
from pipeline.compute.scratch import load_array, made
from pipeline.ingest.partition import PARTS, Piece, Runs


class Run(NamedTuple):
    """Where a run is: its file's index among the sorted logs, its number there, and its number over all files."""

    file: int
    place: int
    number: int


@dataclass(frozen=True)
class Bucket:
    """Rows of some users, to be sifted.

    Attributes:
        parts: the users' parts.
        domains: names of all domains, sorted.
        runs: file of int32 [runs, 3]: each run's domain, file and place in the file, in the order of their numbers. It
            is a file because every bucket needs all of them.
        pieces: folder of all files' pieces.
        trained: folders of runs of the pairs that an update's tables were trained on; their numbers follow.
        ids: folders of the numbered user and item ids.
        settings: how to split, and what to drop.
        folder: where the result goes.
    """

    parts: range
    domains: tuple[str, ...]
    runs: Path
    pieces: Path
    trained: tuple[Path, ...]
    ids: tuple[Path, Path]
    settings: IngestSettings
    folder: Path

    def runs_by_domain(self) -> Iterator[list[Run]]:
        """The runs of each domain, in the order of their numbers."""
        runs = load_array(self.runs)
        for domain in range(len(self.domains)):
            numbers = np.flatnonzero(runs[:, 0] == domain)
            places = zip(runs[numbers, 1:].tolist(), numbers.tolist(), strict=True)
            yield [Run(file, place, number) for (file, place), number in places]

    def trained_runs(self) -> Iterator[tuple[Runs, int, int]]:
        """Of the pairs trained on before the runs of a folder, a run's place there, and its number over all."""
        number = len(load_array(self.runs))
        for folder in self.trained:
            runs = Runs(folder)
            for place in range(len(runs)):
                yield runs, place, number + place
            number += len(runs)


def domain_names(pieces: Sequence[Piece]) -> tuple[str, ...]:
    """All domains of the logs, sorted."""
    return tuple(sorted({domain for piece in pieces for domain in piece.domains}))


def buckets_of(
    pieces: Sequence[Piece],
    trained: tuple[Path, ...],
    ids: tuple[Path, Path],
    settings: IngestSettings,
    most_rows: int,
    scratch: Path,
) -> list[Bucket]:
    """All buckets: consecutive parts with at most `most_rows` rows together, or one larger part.

    Args:
        pieces: of every log file, in order, in folders `pieces/0`, `pieces/1` and so on of `scratch`.
        trained: folders of runs of the pairs trained on before.
        ids: folders of the numbered user and item ids.
        settings: how to split, and what to drop.
        most_rows: bound on a bucket's rows.
        scratch: where the list of runs and the folders of buckets go.

    Returns:
        In the order of parts; none for no rows.
    """
    domains = domain_names(pieces)
    number_of = {domain: number for number, domain in enumerate(domains)}
    runs: list[tuple[int, int, int]] = []
    sizes = np.zeros(PARTS, np.int64)
    for file, piece in enumerate(pieces):
        cut_runs = Runs(piece.folder)
        for place, domain in enumerate(piece.domains):
            runs.append((number_of[domain], file, place))
            sizes += cut_runs.rows_by_part(place)
    table = np.array(runs, np.int32).reshape(-1, 3)
    listed = made(scratch / "runs", lambda folder: np.save(folder / "runs.npy", table)) / "runs.npy"
    return [
        Bucket(
            parts, domains, listed, scratch / "pieces", trained, ids, settings,
            scratch / "buckets" / f"{parts.start}-{parts.stop}",
        )
        for parts in bounded_ranges(sizes, most_rows)
        if sizes[parts.start : parts.stop].any()
    ]  # fmt: skip
