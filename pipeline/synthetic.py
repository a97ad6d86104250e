"""Worlds: generated multi-domain logs with planted twins, so that alignment has a known truth."""

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
from data_contracts.settings import Columns, ComputeSettings, LogSource, WorldSettings
from data_contracts.store.artifact import Artifact, Artifacts
from data_contracts.store.draft import Draft
from data_contracts.store.store import Store
from pipeline.compute.fan_out import stream

Numbers = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]

TOPICS_PER_PERSON = 3
"""Topics that a person likes."""

_NAMES = ("north", "east", "south", "west", "harbour", "hill", "island", "valley")
_WEIGHTS = 1.5
"""Concentration of a person's weights over their topics: larger is more even."""
_POPULARITY_SPREAD = 0.7
_ACTIVITY_SPREAD = 0.6
"""Standard deviations of the logarithms of popularity and activity."""


@dataclass(frozen=True)
class Tastes:
    """One row per person: liked topics, their cumulated weights up to 1, and the centre of the liked region in each."""

    topics: Numbers
    weights: Reals
    centres: Reals

    def take(self, rows: Numbers) -> Tastes:
        """The tastes of some people."""
        return Tastes(self.topics[rows], self.weights[rows], self.centres[rows])


@dataclass(frozen=True)
class Shelf:
    """A domain's items sorted by place (topic + position in it), with the cumulated popularity in front of each."""

    ids: pa.StringArray
    places: Reals
    popularity: Reals


@dataclass(frozen=True)
class Domain:
    """One domain: its users with their tastes and numbers of interactions, and its shelf."""

    name: str
    number: int
    user_ids: pa.StringArray
    tastes: Tastes
    interactions: Numbers
    shelf: Shelf


@dataclass(frozen=True)
class Twins:
    """People of the largest domain who also live in a smaller one under another id."""

    target_domain: str
    source_ids: pa.StringArray
    target_ids: pa.StringArray


@dataclass(frozen=True)
class _Items:
    ids: pa.StringArray
    places: Reals
    popularity: Reals

    def take(self, rows: Numbers) -> _Items:
        return _Items(self.ids.take(pa.array(rows)), self.places[rows], self.popularity[rows])


def draws(settings: WorldSettings, purpose: str, *name: int | str) -> np.random.Generator:
    """The random numbers of one purpose: a function of the seed and the name alone."""
    text = "/".join(map(str, (settings.seed, purpose, *name)))
    key = np.frombuffer(hashlib.blake2b(text.encode(), digest_size=16).digest(), np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def domain_name(number: int) -> str:
    """Name of a domain by its number from 0, the largest: points of the compass, places, then `market-<number>`."""
    return _NAMES[number] if number < len(_NAMES) else f"market-{number + 1}"


def sizes(settings: WorldSettings, number: int) -> tuple[int, int, int]:
    """Users, items and interactions of a domain; ten users, ten items and one interaction per user at least."""
    scale = settings.shrink**number
    users = max(round(settings.users * scale), 10)
    return users, max(round(settings.items * scale), 10), max(round(settings.interactions * scale), users)


def populate(settings: WorldSettings) -> tuple[list[Domain], list[Twins]]:
    """All domains, the largest first, and the twins of each smaller one."""
    largest_tastes = _new_tastes(settings, 0, sizes(settings, 0)[0])
    largest_items = _new_items(settings, 0, sizes(settings, 0)[1])
    ids = _numbered("u", np.arange(len(largest_tastes.topics)), 6)
    domains = [_domain(settings, 0, ids, largest_tastes, largest_items)]
    twins = []
    for number in range(1, settings.domains):
        user_ids, tastes, twin = _users(settings, number, ids, largest_tastes)
        domains.append(_domain(settings, number, user_ids, tastes, _items(settings, number, largest_items)))
        twins.append(twin)
    return domains, twins


def _users(
    settings: WorldSettings, number: int, largest_ids: pa.StringArray, largest: Tastes
) -> tuple[pa.StringArray, Tastes, Twins]:
    """Users of a smaller domain in random order: shared people, twins, and people who live nowhere else.

    Twins and natives are numbered alike, by their place in that order, so that no id tells who is a twin.
    """
    users = sizes(settings, number)[0]
    shared = min(round(users * settings.shared_users), len(largest_ids))
    known = min(shared + round(users * settings.twins), len(largest_ids))
    random = draws(settings, "residents", number)
    people = random.permutation(len(largest_ids))[:known]
    natives = _new_tastes(settings, number, users - known)
    slots = random.permutation(users)
    own_ids = _numbered(f"{domain_name(number)}-u", slots[shared:], 6)
    all_ids = pa.concat_arrays([largest_ids.take(pa.array(people[:shared])), own_ids])
    order = np.argsort(slots)
    tastes = _joined(largest.take(people), natives).take(order)
    twins = Twins(domain_name(number), largest_ids.take(pa.array(people[shared:])), own_ids.slice(0, known - shared))
    return all_ids.take(pa.array(order)), tastes, twins


def _items(settings: WorldSettings, number: int, largest: _Items) -> _Items:
    """Items of a smaller domain: some that the largest also offers, the rest its own."""
    items = sizes(settings, number)[1]
    shared = min(round(items * settings.shared_items), len(largest.places))
    chosen = draws(settings, "offers", number).permutation(len(largest.places))[:shared]
    common, own = largest.take(chosen), _new_items(settings, number, items - shared)
    return _Items(
        pa.concat_arrays([common.ids, own.ids]),
        np.concatenate([common.places, own.places]),
        np.concatenate([common.popularity, own.popularity]),
    )


def _domain(settings: WorldSettings, number: int, ids: pa.StringArray, tastes: Tastes, items: _Items) -> Domain:
    placed = items.take(np.argsort(items.places, kind="stable"))
    shelf = Shelf(placed.ids, placed.places, np.concatenate([[0.0], np.cumsum(placed.popularity)]))
    return Domain(domain_name(number), number, ids, tastes, _activity(settings, number), shelf)


def _activity(settings: WorldSettings, number: int) -> Numbers:
    """Interactions of each user, one at least, in all as many as the domain has."""
    users, _, interactions = sizes(settings, number)
    share = np.cumsum(draws(settings, "activity", number).lognormal(0.0, _ACTIVITY_SPREAD, users))
    until = np.floor(share / share[-1] * (interactions - users) + 0.5).astype(np.int64)
    counts: Numbers = 1 + np.diff(until, prepend=0)
    return counts


def _new_tastes(settings: WorldSettings, number: int, people: int) -> Tastes:
    random = draws(settings, "tastes", number)
    liked = min(TOPICS_PER_PERSON, settings.topics)
    topics = _distinct(random, people, liked, settings.topics)
    weights = np.cumsum(random.gamma(_WEIGHTS, size=(people, liked)), axis=1)
    return Tastes(topics, weights / weights[:, -1:], random.random((people, liked)))


def _distinct(random: np.random.Generator, rows: int, columns: int, values: int) -> Numbers:
    """Rows of distinct numbers below `values`, by Floyd's way: draw below a growing bound, take the bound if seen."""
    chosen = np.empty((rows, columns), np.int64)
    for column, bound in enumerate(range(values - columns, values)):
        drawn = random.integers(0, bound + 1, rows)
        seen = (chosen[:, :column] == drawn[:, None]).any(axis=1)
        chosen[:, column] = np.where(seen, bound, drawn)
    return chosen


def _new_items(settings: WorldSettings, number: int, items: int) -> _Items:
    random = draws(settings, "items", number)
    prefix = "i" if number == 0 else f"{domain_name(number)}-i"
    places = random.integers(0, settings.topics, items) + random.random(items)
    return _Items(_numbered(prefix, np.arange(items), 5), places, random.lognormal(0.0, _POPULARITY_SPREAD, items))


def _joined(first: Tastes, second: Tastes) -> Tastes:
    return Tastes(
        np.concatenate([first.topics, second.topics]),
        np.concatenate([first.weights, second.weights]),
        np.concatenate([first.centres, second.centres]),
    )


def _numbered(prefix: str, numbers: Numbers, digits: int) -> pa.StringArray:
    """Ids such as `u000123`."""
    text = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), digits, "0")
    return pc.binary_join_element_wise(pa.scalar(prefix), text, "")


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
    store: Store,
    settings: WorldSettings,
    parents: Artifacts,
    compute: ComputeSettings,
    progress: Progress = silent,
) -> Artifact:
    """Generate a world: the table of its twins, and a log per domain under `logs/`.

    Every user's interactions are drawn by name (seed, domain, part), so the files are the same bytes for any number of
    threads. Parts hold about half a million interactions each.

    Args:
        store: where the artifact lives.
        settings: size, overlap and tastes of the world.
        parents: none.
        compute: threads.
        progress: called after each part.

    Returns:
        The world; no twins where `twins` is 0 or there is one domain.
    """
    return store.make(
        WORLD, settings.keyed(), parents, partial(_write, settings=settings, compute=compute, progress=progress)
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
