"""Generated worlds: sizes, overlaps and twins as asked, the same every time."""

import gzip
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
import pytest
from pydantic import ValidationError

from data_contracts.settings.ingest import IngestSettings
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.world import WorldSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from pipeline import synthetic as world_module
from pipeline.ingest.stage import ingest
from pipeline.logs.discovery import find_logs
from pipeline.synthetic import domain_name, generate_population, make_world, world_logs

SMALL = WorldSettings(domains=3, users=400, items=200, interactions=8000)


def generate(folder: Path, settings: WorldSettings = SMALL, threads: int = 2) -> Artifact:
    return make_world(Store(folder), settings, {}, ComputeSettings(threads=threads))


def log_of(world: Artifact, domain: str) -> pa.Table:
    parts = sorted((world.path / "logs").glob(f"{domain}*.csv.gz"))
    return pa.concat_tables([arrow_csv.read_csv(part) for part in parts])


def digests(world: Artifact) -> dict[str, str]:
    return {entry.path: entry.sha256 for entry in world.manifest.files}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return generate(tmp_path_factory.mktemp("world"))


def test_same_settings_give_the_same_bytes_for_any_threads(world: Artifact, tmp_path: Path) -> None:
    assert digests(generate(tmp_path, threads=1)) == digests(world)


def test_another_seed_gives_another_world(world: Artifact, tmp_path: Path) -> None:
    other = digests(generate(tmp_path, SMALL.model_copy(update={"seed": 8})))
    assert all(other[path] != digest for path, digest in digests(world).items())


def test_each_domain_has_the_asked_size(world: Artifact) -> None:
    sizes = [(400, 200, 8000), (200, 100, 4000), (100, 50, 2000)]
    for number, (users, items, interactions) in enumerate(sizes):
        log = log_of(world, domain_name(number))
        assert log.num_rows == interactions
        assert pc.count_distinct(log["user_id"]).as_py() == users
        assert items * 0.9 <= pc.count_distinct(log["item_id"]).as_py() <= items


def test_smaller_domains_share_users_under_the_same_id(world: Artifact) -> None:
    largest = set(log_of(world, "north")["user_id"].to_pylist())
    for domain, users in (("east", 200), ("south", 100)):
        assert len(largest & set(log_of(world, domain)["user_id"].to_pylist())) == users * SMALL.shared_users


def test_smaller_domains_share_items_under_the_same_id(world: Artifact) -> None:
    largest, *smaller = generate_population(SMALL)[0]
    known = set(largest.catalogue.ids.to_pylist())
    shared = [len(known & set(domain.catalogue.ids.to_pylist())) for domain in smaller]
    assert shared == [100 * SMALL.shared_items, 50 * SMALL.shared_items]


def test_twins_are_as_many_as_asked_and_live_under_two_ids(world: Artifact) -> None:
    for domain, twins in (("east", 20), ("south", 10)):
        rows = world.read().filter(pc.field("target_domain") == domain)
        users = {name: set(log_of(world, name)["user_id"].to_pylist()) for name in ("north", domain)}
        assert rows.num_rows == twins
        assert set(rows["source_user_id"].to_pylist()) <= users["north"] - users[domain]
        assert set(rows["target_user_id"].to_pylist()) <= users[domain] - users["north"]


def test_twin_ids_are_spread_among_the_ids_of_natives(world: Artifact) -> None:
    """Twins' numbers are neither first nor last: their mean rank is near the middle (standard error 0.065)."""
    rows = world.read().filter(pc.field("target_domain") == "east")
    own = sorted({u for u in log_of(world, "east")["user_id"].to_pylist() if u.startswith("east-")})
    ranks = [own.index(user) / len(own) for user in rows["target_user_id"].to_pylist()]
    assert 0.3 < np.mean(ranks) < 0.7


def test_order_of_twin_ids_tells_nothing(world: Artifact) -> None:
    """Sorted by one id, the other id goes up about half of the time (standard deviation 0.1)."""
    rows = world.read().filter(pc.field("target_domain") == "east").sort_by("source_user_id")
    ups = [before < after for before, after in pairwise(rows["target_user_id"].to_pylist())]
    assert 0.2 < np.mean(ups) < 0.8


def places_of(world: Artifact, domain: str) -> dict[str, set[int]]:
    """User id → tenths of topics in which the user's items lie."""
    number = {domain_name(n): n for n in range(3)}[domain]
    catalogue = generate_population(SMALL)[0][number].catalogue
    place = dict(zip(catalogue.ids.to_pylist(), np.floor(catalogue.positions * 10).astype(int).tolist(), strict=True))
    places: dict[str, set[int]] = {}
    for user, item in zip(*(log_of(world, domain)[name].to_pylist() for name in ("user_id", "item_id")), strict=True):
        places.setdefault(user, set()).add(place[item])
    return places


def overlap(first: set[int], second: set[int]) -> float:
    return len(first & second) / min(len(first), len(second))


def test_twins_share_taste_far_above_chance(world: Artifact) -> None:
    north, east = places_of(world, "north"), places_of(world, "east")
    twins = world.read().filter(pc.field("target_domain") == "east")
    sources, targets = twins["source_user_id"].to_pylist(), twins["target_user_id"].to_pylist()
    own = [overlap(north[s], east[t]) for s, t in zip(sources, targets, strict=True)]
    strangers = [overlap(north[s], east[t]) for i, s in enumerate(sources) for j, t in enumerate(targets) if i != j]
    assert np.mean(own) > 0.4
    assert np.mean(own) > 4 * np.mean(strangers)


def test_many_twins_are_nearer_to_each_other_than_to_any_stranger(world: Artifact) -> None:
    """By the share of common places among all of both; chance is 0.5 %."""
    north, east = places_of(world, "north"), places_of(world, "east")
    twins = world.read().filter(pc.field("target_domain") == "east").to_pylist()
    hits = 0
    for row in twins:
        own = north[row["source_user_id"]]
        nearest = max(east, key=lambda user: len(own & east[user]) / len(own | east[user]))
        hits += nearest == row["target_user_id"]
    assert hits >= 0.25 * len(twins)


def test_duplicates_and_times_occur(world: Artifact) -> None:
    log = log_of(world, "north")
    assert log.group_by(["user_id", "item_id"]).aggregate([]).num_rows < log.num_rows
    assert 1_672_531_200 <= pc.min(log["timestamp"]).as_py() < pc.max(log["timestamp"]).as_py() < 1_704_067_200


def test_popularity_has_a_long_tail(world: Artifact) -> None:
    counts = np.sort(pc.value_counts(log_of(world, "north")["item_id"]).field("counts").to_numpy())[::-1]
    assert counts[:20].sum() > 0.2 * counts.sum()


def test_large_domains_are_cut_into_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world_module, "_ROWS_PER_FILE", 3000)
    world = generate(tmp_path)
    names = sorted(path.name for path in (world.path / "logs").iterdir())
    assert names == [
        "east-00000.csv.gz", "east-00001.csv.gz",
        "north-00000.csv.gz", "north-00001.csv.gz", "north-00002.csv.gz", "south.csv.gz",
    ]  # fmt: skip
    assert log_of(world, "north").num_rows == 8000
    assert {log.domain for log in find_logs(world_logs(world), tmp_path)} == {"north", "east", "south"}


def test_logs_carry_no_time_of_making(world: Artifact) -> None:
    """Bytes 4 to 7 of gzip are the modification time, the flag byte 3 says that no name follows."""
    content = (world.path / "logs" / "south.csv.gz").read_bytes()
    assert content[3:8] == bytes(5)
    assert gzip.decompress(content).startswith(b"user_id,item_id,timestamp\n")


def test_ingest_reads_a_world(world: Artifact, tmp_path: Path) -> None:
    logs = find_logs(world_logs(world), tmp_path)
    made = ingest(Store(tmp_path), IngestSettings(), logs, ComputeSettings(threads=2))
    assert [partition["domain"] for partition in made["interactions"].partitions()] == ["east", "north", "south"]
    assert (made["interactions"].statistics["raw_rows"], made["interactions"].statistics["malformed"]) == (14_000, {})
    assert made["interactions"].read(["timestamp"])["timestamp"].null_count == 0


def test_world_keeps_its_contract(world: Artifact) -> None:
    assert world.verify() == []


def test_one_domain_has_no_twins(tmp_path: Path) -> None:
    assert generate(tmp_path, SMALL.model_copy(update={"domains": 1})).manifest.rows == 0


def test_world_without_overlap_shares_nothing(tmp_path: Path) -> None:
    apart = SMALL.model_copy(update={"shared_users": 0.0, "shared_items": 0.0, "twins": 0.0})
    domains, twins = generate_population(apart)
    for name in ("user_ids", "item_ids"):
        ids = [set((d.user_ids if name == "user_ids" else d.catalogue.ids).to_pylist()) for d in domains]
        assert not ids[0] & ids[1] | ids[0] & ids[2] | ids[1] & ids[2]
    assert [len(twin.source_ids) for twin in twins] == [0, 0]


@pytest.mark.parametrize(
    ("keys", "message"),
    [({"shared_users": 0.6, "twins": 0.5}, "must be ≤ 1"), ({"users": 100, "interactions": 99}, "must be ≥ users")],
)
def test_impossible_worlds_are_refused(keys: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        WorldSettings(**keys)  # type: ignore[arg-type]
