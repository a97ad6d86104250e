"""Generated worlds: logs of several domains with planted twins, so that the true alignment is known."""

from __future__ import annotations

import glob
import gzip
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv

from data_contracts.contracts import WORLD
from data_contracts.progress import Progress, silent
from data_contracts.settings.logs import Columns, LogSource
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.world import WorldSettings
from data_contracts.statistics import WorldDomainStatistics, WorldStatistics
from data_contracts.store.artifact import Artifact, Artifacts
from data_contracts.store.draft import Draft
from data_contracts.store.store import Store
from pipeline.compute.dtypes import Longs
from pipeline.compute.fan_out import stream

Reals = npt.NDArray[np.float64]

TOPICS_PER_PERSON = 3
"""Topics that a person likes."""

_NAMES = ("north", "east", "south", "west", "harbour", "hill", "island", "valley")
_WEIGHTS = 1.5
"""Shape of the gamma distribution of a person's weights over their topics: larger is more even."""
_POPULARITY_SPREAD = 0.7
_ACTIVITY_SPREAD = 0.6
"""Standard deviations of the logarithms of popularity and activity."""


@dataclass(frozen=True)
class Tastes:
    """One row per person: liked topics, their cumulative weights up to 1, and the centre of what is liked in each."""

    topics: Longs
    weights: Reals
    centres: Reals

    def take(self, rows: Longs) -> Tastes:
        """The tastes of some people."""
        return Tastes(self.topics[rows], self.weights[rows], self.centres[rows])


@dataclass(frozen=True)
class Items:
    """Items in any order: position (topic + offset from 0 to 1 within it) and popularity of each."""

    ids: pa.StringArray
    positions: Reals
    popularity: Reals

    def take(self, rows: Longs) -> Items:
        """Some of the items."""
        return Items(self.ids.take(pa.array(rows)), self.positions[rows], self.popularity[rows])


@dataclass(frozen=True)
class ItemCatalogue:
    """A domain's items sorted by position, and the popularity of all items before each, float64 [items + 1]."""

    ids: pa.StringArray
    positions: Reals
    popularity_before: Reals

    @classmethod
    def from_items(cls, items: Items) -> ItemCatalogue:
        """Sort items by position."""
        ordered = items.take(np.argsort(items.positions, kind="stable"))
        return cls(ordered.ids, ordered.positions, np.concatenate([[0.0], np.cumsum(ordered.popularity)]))


@dataclass(frozen=True)
class SyntheticDomain:
    """One domain: its users with their tastes and numbers of interactions, and its items."""

    name: str
    number: int
    user_ids: pa.StringArray
    tastes: Tastes
    interactions: Longs
    catalogue: ItemCatalogue


@dataclass(frozen=True)
class Twins:
    """People of the largest domain who also live in a smaller one under another id."""

    target_domain: str
    source_ids: pa.StringArray
    target_ids: pa.StringArray


def build_generator(settings: WorldSettings, purpose: str, *name: int | str) -> np.random.Generator:
    """A generator of random numbers for one purpose, which depend on the seed and the name alone."""
    text = "/".join(map(str, (settings.seed, purpose, *name)))
    key = np.frombuffer(hashlib.blake2b(text.encode(), digest_size=16).digest(), np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def domain_name(number: int) -> str:
    """Name of a domain by its number; number 0 is the largest."""
    return _NAMES[number] if number < len(_NAMES) else f"market-{number + 1}"


def domain_sizes(settings: WorldSettings, number: int) -> tuple[int, int, int]:
    """Users, items and interactions of a domain; ten users, ten items and one interaction per user at least."""
    scale = settings.shrink**number
    users = max(round(settings.users * scale), 10)
    return users, max(round(settings.items * scale), 10), max(round(settings.interactions * scale), users)


def generate_population(settings: WorldSettings) -> tuple[list[SyntheticDomain], list[Twins]]:
    """All domains, the largest first, and the twins of each smaller one."""
    largest_tastes = _new_tastes(settings, 0, domain_sizes(settings, 0)[0])
    largest_items = _new_items(settings, 0, domain_sizes(settings, 0)[1])
    ids = _build_ids("u", np.arange(len(largest_tastes.topics)), 6)
    domains = [_build_domain(settings, 0, ids, largest_tastes, largest_items)]
    twins = []
    for number in range(1, settings.domains):
        user_ids, tastes, twin = _choose_users(settings, number, ids, largest_tastes)
        items = _choose_items(settings, number, largest_items)
        domains.append(_build_domain(settings, number, user_ids, tastes, items))
        twins.append(twin)
    return domains, twins


def _choose_users(
    settings: WorldSettings, number: int, largest_ids: pa.StringArray, largest: Tastes
) -> tuple[pa.StringArray, Tastes, Twins]:
    """Users of a smaller domain in random order: shared people, twins, and people of this domain only.

    Ids of twins and of the latter are numbered in that order, so that no id gives a twin away.
    """
    users = domain_sizes(settings, number)[0]
    shared = min(round(users * settings.shared_users), len(largest_ids))
    known = min(shared + round(users * settings.twins), len(largest_ids))
    random = build_generator(settings, "residents", number)
    people = random.permutation(len(largest_ids))[:known]
    natives = _new_tastes(settings, number, users - known)
    slots = random.permutation(users)
    own_ids = _build_ids(f"{domain_name(number)}-u", slots[shared:], 6)
    all_ids = pa.concat_arrays([largest_ids.take(pa.array(people[:shared])), own_ids])
    order = np.argsort(slots)
    tastes = _concatenate(largest.take(people), natives).take(order)
    twins = Twins(domain_name(number), largest_ids.take(pa.array(people[shared:])), own_ids.slice(0, known - shared))
    return all_ids.take(pa.array(order)), tastes, twins


def _choose_items(settings: WorldSettings, number: int, largest: Items) -> Items:
    """Items of a smaller domain: some of the largest domain's, and items of its own."""
    items = domain_sizes(settings, number)[1]
    shared = min(round(items * settings.shared_items), len(largest.positions))
    chosen = build_generator(settings, "offers", number).permutation(len(largest.positions))[:shared]
    common, own = largest.take(chosen), _new_items(settings, number, items - shared)
    return Items(
        pa.concat_arrays([common.ids, own.ids]),
        np.concatenate([common.positions, own.positions]),
        np.concatenate([common.popularity, own.popularity]),
    )


def _build_domain(
    settings: WorldSettings, number: int, ids: pa.StringArray, tastes: Tastes, items: Items
) -> SyntheticDomain:
    return SyntheticDomain(
        name=domain_name(number),
        number=number,
        user_ids=ids,
        tastes=tastes,
        interactions=_draw_activity(settings, number),
        catalogue=ItemCatalogue.from_items(items),
    )


def _draw_activity(settings: WorldSettings, number: int) -> Longs:
    """Interactions of each user, at least one; their sum is the size of the domain."""
    users, _, interactions = domain_sizes(settings, number)
    share = np.cumsum(build_generator(settings, "activity", number).lognormal(0.0, _ACTIVITY_SPREAD, users))
    until = np.floor(share / share[-1] * (interactions - users) + 0.5).astype(np.int64)
    counts: Longs = 1 + np.diff(until, prepend=0)
    return counts


def _new_tastes(settings: WorldSettings, number: int, people: int) -> Tastes:
    random = build_generator(settings, "tastes", number)
    liked = min(TOPICS_PER_PERSON, settings.topics)
    topics = _draw_distinct(random, people, liked, settings.topics)
    weights = np.cumsum(random.gamma(_WEIGHTS, size=(people, liked)), axis=1)
    return Tastes(topics, weights / weights[:, -1:], random.random((people, liked)))


def _draw_distinct(random: np.random.Generator, rows: int, columns: int, values: int) -> Longs:
    """Rows of distinct numbers below `values`, by Floyd's method: draw up to a rising bound, take the bound if seen."""
    chosen = np.empty((rows, columns), np.int64)
    for column, bound in enumerate(range(values - columns, values)):
        drawn = random.integers(0, bound + 1, rows)
        seen = (chosen[:, :column] == drawn[:, None]).any(axis=1)
        chosen[:, column] = np.where(seen, bound, drawn)
    return chosen


def _new_items(settings: WorldSettings, number: int, items: int) -> Items:
    random = build_generator(settings, "items", number)
    prefix = "i" if number == 0 else f"{domain_name(number)}-i"
    positions = random.integers(0, settings.topics, items) + random.random(items)
    return Items(_build_ids(prefix, np.arange(items), 5), positions, random.lognormal(0.0, _POPULARITY_SPREAD, items))


def _concatenate(first: Tastes, second: Tastes) -> Tastes:
    return Tastes(
        np.concatenate([first.topics, second.topics]),
        np.concatenate([first.weights, second.weights]),
        np.concatenate([first.centres, second.centres]),
    )


def _build_ids(prefix: str, numbers: Longs, digits: int) -> pa.StringArray:
    """Ids such as `u000123`."""
    text = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), digits, "0")
    return pc.binary_join_element_wise(pa.scalar(prefix), text, "")


_HEADER = b"user_id,item_id,timestamp\n"
_FIRST_SECOND, _SECONDS = 1_672_531_200, 365 * 86_400
"""Interactions happen in the year 2023, UTC."""

_TASTE_SPREAD = 0.07
"""Standard deviation of a person's choices around their centre in a topic, whose length is 1."""
_HALF_WINDOW = 0.03
"""Half of the window around a choice in which an item is drawn by popularity."""
_RANDOM_SHARE = 0.05
"""Share of interactions with any item of the domain, by popularity alone."""

_ROWS_PER_FILE = 500_000


@dataclass(frozen=True)
class _LogPart:
    """Consecutive users of a domain, whose interactions make one file."""

    domain: SyntheticDomain
    number: int
    users: range
    path: Path


def make_world(
    store: Store,
    settings: WorldSettings,
    parents: Artifacts,
    compute: ComputeSettings,
    progress: Progress = silent,
) -> Artifact:
    """Generate a world: the table of its twins, and logs of every domain under `logs/`.

    Interactions are drawn by (seed, domain, file), so the files are the same bytes for any number of threads. They hold
    about half a million interactions each.

    Args:
        store: where the artifact lives.
        settings: size, overlap and tastes of the world.
        parents: none.
        compute: threads.
        progress: called after each file.

    Returns:
        The world; no twins where `twins` is 0 or there is one domain.
    """
    write = partial(_write_world, settings=settings, compute=compute, progress=progress)
    return store.make(WORLD, settings.keyed(), parents, write)


def world_logs(world: Artifact) -> tuple[LogSource, ...]:
    """The sources of a world's logs; their paths contain the domain.

    Raises:
        OSError: a log is missing or damaged.
    """
    for entry in world.manifest.files:
        if entry.rows is None:
            world.checked(entry.path)
    folder = glob.escape((world.path / "logs").absolute().as_posix())
    return (
        LogSource(
            path=f"{folder}/*.csv.gz",
            format="csv",
            columns=Columns(timestamp="timestamp"),
            path_pattern=r"/(?P<domain>[^/]+?)(?:-\d{5})?\.csv\.gz$",
        ),
    )


def _write_world(draft: Draft, settings: WorldSettings, compute: ComputeSettings, progress: Progress) -> None:
    domains, twins = generate_population(settings)
    draft.write(_twin_table(domains[0].name, twins))
    folder = draft.folder / "logs"
    folder.mkdir()
    parts = [part for domain in domains for part in _plan_files(settings, domain, folder)]
    for done, _ in enumerate(stream(partial(_write_file, settings), parts, compute), start=1):
        progress(done, len(parts), "files")
    sizes = {domain.name: domain_sizes(settings, domain.number) for domain in domains}
    draft.statistics |= WorldStatistics(
        domains={
            name: WorldDomainStatistics(users=users, items=items, interactions=interactions)
            for name, (users, items, interactions) in sizes.items()
        },
        twins={twin.target_domain: len(twin.source_ids) for twin in twins},
    )


def _twin_table(source_domain: str, twins: Sequence[Twins]) -> pa.Table:
    tables = [WORLD.file_schema.empty_table()]
    for twin in twins:
        rows = len(twin.source_ids)
        domains = pa.repeat(source_domain, rows), pa.repeat(twin.target_domain, rows)
        tables.append(pa.table([*domains, twin.source_ids, twin.target_ids], WORLD.file_schema))
    return pa.concat_tables(tables).sort_by([(name, "ascending") for name in WORLD.sorted_by])


def _plan_files(settings: WorldSettings, domain: SyntheticDomain, folder: Path) -> list[_LogPart]:
    """Consecutive users with about `_ROWS_PER_FILE` interactions together."""
    users, _, interactions = domain_sizes(settings, domain.number)
    step = max(_ROWS_PER_FILE * users // interactions, 1)
    starts = range(0, users, step)
    names = [f"{domain.name}-{n:05d}" for n in range(len(starts))] if len(starts) > 1 else [domain.name]
    return [
        _LogPart(domain, n, range(start, min(start + step, users)), folder / f"{names[n]}.csv.gz")
        for n, start in enumerate(starts)
    ]


def _write_file(settings: WorldSettings, part: _LogPart) -> None:
    random = build_generator(settings, "choices", part.domain.number, part.number)
    rows = slice(part.users.start, part.users.stop)
    user = np.repeat(np.arange(part.users.start, part.users.stop), part.domain.interactions[rows])
    positions = _draw_positions(random, part.domain, user)
    item = _draw_items(random, part.domain.catalogue, positions)
    time = _FIRST_SECOND + random.integers(0, _SECONDS, len(user))
    order = np.argsort(time, kind="stable")
    table = pa.table(
        {
            "user_id": part.domain.user_ids.take(pa.array(user[order])),
            "item_id": part.domain.catalogue.ids.take(pa.array(item[order])),
            "timestamp": time[order],
        }
    )
    # The fixed modification time and the empty name make equal contents equal bytes.
    with part.path.open("wb") as file, gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as stream:
        stream.write(_HEADER)
        arrow_csv.write_csv(table, stream, arrow_csv.WriteOptions(include_header=False, quoting_style="none"))


def _draw_positions(random: np.random.Generator, domain: SyntheticDomain, user: Longs) -> Reals:
    """A position for each interaction: a liked topic by weight, and an offset in it near the person's centre."""
    tastes = domain.tastes
    liked = (random.random(len(user))[:, None] >= tastes.weights[user, :-1]).sum(axis=1)
    offset = tastes.centres[user, liked] + _TASTE_SPREAD * random.standard_normal(len(user))
    positions: Reals = tastes.topics[user, liked] + offset % 1.0
    return positions


def _draw_items(random: np.random.Generator, catalogue: ItemCatalogue, positions: Reals) -> Longs:
    """An item by popularity within a window around each position, in its topic; the next item where that is empty."""
    topic, until = np.floor(positions), catalogue.popularity_before
    topic_end = np.nextafter(topic + 1.0, topic)
    first = np.searchsorted(catalogue.positions, np.maximum(positions - _HALF_WINDOW, topic))
    last = np.searchsorted(catalogue.positions, np.minimum(positions + _HALF_WINDOW, topic_end), side="right")
    is_random = random.random(len(positions)) < _RANDOM_SHARE
    first[is_random], last[is_random] = 0, len(catalogue.positions)
    low, high = until[first], until[last]
    drawn = np.searchsorted(until, low + random.random(len(positions)) * (high - low), side="right") - 1
    item: Longs = np.where(last > first, np.clip(drawn, first, last - 1), first)
    return np.minimum(item, len(catalogue.positions) - 1)
