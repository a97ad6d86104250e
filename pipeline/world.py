"""Worlds: generated multi-domain logs with planted twins, so that alignment has a known truth."""

from __future__ import annotations

import glob
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as arrow_csv

from data_contracts.artifact import Artifact
from data_contracts.contracts import WORLD
from data_contracts.progress import Progress, silent
from data_contracts.settings import Columns, ComputeSettings, LogSource, WorldSettings
from data_contracts.store import Draft, Store
from pipeline.fanout import stream
from pipeline.population import Domain, Numbers, Reals, Shelf, Twins, draws, populate, sizes

_HEADER = b"user_id,item_id,timestamp\n"
_FIRST_SECOND, _SECONDS = 1_672_531_200, 365 * 86_400
"""Interactions happen in the year 2023, UTC."""

_REGION = 0.07
"""Standard deviation of a person's choices around their centre of a topic, whose length is 1."""
_REACH = 0.03
"""Half of the stretch around a choice from which an item is taken by popularity."""
_WANDERING = 0.05
"""Share of interactions with any item of the domain, by popularity alone."""

_ROWS_PER_FILE = 500_000


@dataclass(frozen=True)
class _Part:
    """Some users of a domain, whose interactions fill one file."""

    domain: Domain
    number: int
    users: range
    path: Path


def make_world(
    store: Store, settings: WorldSettings, compute: ComputeSettings, progress: Progress = silent
) -> Artifact:
    """Generate a world: the table of its twins, and a log per domain under `logs/`.

    Every user's interactions are drawn by name (seed, domain, part), so the files are the same bytes for any number of
    threads. Parts hold about half a million interactions each.

    Returns:
        The world; no twins where `twins` is 0 or there is one domain.
    """
    return store.make(
        WORLD, settings.keyed(), {}, partial(_write, settings=settings, compute=compute, progress=progress)
    )


def world_logs(world: Artifact) -> tuple[LogSource, ...]:
    """How to read a world's logs; their paths name the domain."""
    folder = glob.escape((world.path / "logs").absolute().as_posix())
    return (
        LogSource(
            path=f"{folder}/*.csv.gz",
            format="csv",
            columns=Columns(timestamp="timestamp"),
            path_pattern=r"/(?P<domain>[^/]+?)(?:-\d{5})?\.csv\.gz$",
        ),
    )


def _write(draft: Draft, settings: WorldSettings, compute: ComputeSettings, progress: Progress) -> None:
    domains, twins = populate(settings)
    draft.write(_twin_table(domains[0].name, twins))
    folder = draft.folder / "logs"
    folder.mkdir()
    parts = [part for domain in domains for part in _parts(settings, domain, folder)]
    for done, _ in enumerate(stream(partial(_write_part, settings), parts, compute), start=1):
        progress(done, len(parts), "files")
    draft.statistics["domains"] = {
        domain.name: dict(zip(("users", "items", "interactions"), sizes(settings, domain.number), strict=True))
        for domain in domains
    }
    draft.statistics["twins"] = {twin.target_domain: len(twin.source_ids) for twin in twins}


def _twin_table(source_domain: str, twins: Sequence[Twins]) -> pa.Table:
    tables = [WORLD.file_schema.empty_table()]
    for twin in twins:
        rows = len(twin.source_ids)
        domains = pa.repeat(source_domain, rows), pa.repeat(twin.target_domain, rows)
        tables.append(pa.table([*domains, twin.source_ids, twin.target_ids], WORLD.file_schema))
    return pa.concat_tables(tables).sort_by([(name, "ascending") for name in WORLD.sorted_by])


def _parts(settings: WorldSettings, domain: Domain, folder: Path) -> list[_Part]:
    """Runs of users with about `_ROWS_PER_FILE` interactions together."""
    users, _, interactions = sizes(settings, domain.number)
    step = max(_ROWS_PER_FILE * users // interactions, 1)
    starts = range(0, users, step)
    names = [f"{domain.name}-{n:05d}" for n in range(len(starts))] if len(starts) > 1 else [domain.name]
    return [
        _Part(domain, n, range(start, min(start + step, users)), folder / f"{names[n]}.csv.gz")
        for n, start in enumerate(starts)
    ]


def _write_part(settings: WorldSettings, part: _Part) -> None:
    random = draws(settings, "choices", part.domain.number, part.number)
    rows = slice(part.users.start, part.users.stop)
    user = np.repeat(np.arange(part.users.start, part.users.stop), part.domain.interactions[rows])
    place = _choose_places(random, part.domain, user)
    item = _choose_items(random, part.domain.shelf, place)
    time = _FIRST_SECOND + random.integers(0, _SECONDS, len(user))
    order = np.argsort(time, kind="stable")
    table = pa.table(
        {
            "user_id": part.domain.user_ids.take(pa.array(user[order])),
            "item_id": part.domain.shelf.ids.take(pa.array(item[order])),
            "timestamp": time[order],
        }
    )
    # The fixed modification time and the empty name make equal contents equal bytes.
    with part.path.open("wb") as file, gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as stream:
        stream.write(_HEADER)
        arrow_csv.write_csv(table, stream, arrow_csv.WriteOptions(include_header=False, quoting_style="none"))


def _choose_places(random: np.random.Generator, domain: Domain, user: Numbers) -> Reals:
    """A place for each interaction: a liked topic by weight, and in it a position near the person's centre."""
    tastes = domain.tastes
    liked = (random.random(len(user))[:, None] >= tastes.weights[user, :-1]).sum(axis=1)
    position = tastes.centres[user, liked] + _REGION * random.standard_normal(len(user))
    places: Reals = tastes.topics[user, liked] + position % 1.0
    return places


def _choose_items(random: np.random.Generator, shelf: Shelf, place: Reals) -> npt.NDArray[np.int64]:
    """An item by popularity within reach of each place, in the same topic; the next one where nothing is in reach."""
    topic = np.floor(place)
    first = np.searchsorted(shelf.places, np.maximum(place - _REACH, topic))
    last = np.searchsorted(shelf.places, np.minimum(place + _REACH, np.nextafter(topic + 1.0, topic)), side="right")
    wandering = random.random(len(place)) < _WANDERING
    first[wandering], last[wandering] = 0, len(shelf.places)
    low, high = shelf.popularity[first], shelf.popularity[last]
    within = np.searchsorted(shelf.popularity, low + random.random(len(place)) * (high - low), side="right") - 1
    item: npt.NDArray[np.int64] = np.where(last > first, np.clip(within, first, last - 1), first)
    return np.minimum(item, len(shelf.places) - 1)
