"""A pair that is held out in one domain is trained in none, whatever the split method."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.settings.ingest import IngestSettings, SplitSettings
from data_contracts.settings.logs import Columns, LogSource
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import GraphSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from pipeline.graph import number_nodes
from pipeline.ingest import stage as ingest_stage
from pipeline.ingest.stage import ingest
from pipeline.logs.discovery import find_logs

METHODS = {
    "given": SplitSettings(method="given"),
    "random": SplitSettings(),
    "time": SplitSettings(method="time", valid_from=70, test_from=85),
    "leave-last-out": SplitSettings(method="leave-last-out"),
}
DOMAINS, USERS, ITEMS = "abcdef", 40, 60
COLUMNS = Columns(domain=0, user=1, item=2, split=3, timestamp=4)

Row = tuple[str, str, str, str, int]
"""Domain, user, item, split, time."""


def crowded_log(seed: int, rows: int) -> list[Row]:
    """Items live in one to four domains; split and time of a row are drawn, whatever those of its pair elsewhere."""
    random = np.random.default_rng(seed)
    homes = [random.choice(list(DOMAINS), random.integers(1, 5), replace=False) for _ in range(ITEMS)]
    log: list[Row] = []
    for _ in range(rows):
        item = int(random.integers(ITEMS) * random.random())
        user = int(random.integers(USERS))
        for domain in homes[item][: random.integers(1, len(homes[item]) + 1)]:
            split = str(random.choice(["train", "valid", "test"], p=[0.8, 0.1, 0.1]))
            log.append((str(domain), f"u{user}", f"i{item}", split, int(random.integers(100))))
    return log


def ingested(
    folder: Path, log: list[Row], split: SplitSettings, before: Mapping[str, Artifact] | None = None, **options: Any
) -> dict[str, Artifact]:
    folder.mkdir(exist_ok=True)
    (folder / "log.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in log))
    source = LogSource(path=f"{folder}/log.csv", header=False, columns=COLUMNS)
    stage = IngestSettings(**{"split": split, "kept_share_at_least": 0.0, **options})
    logs = find_logs([source], folder)
    return ingest(Store(folder / "store"), stage, logs, ComputeSettings(threads=1), previous=before or {})


def updated(folder: Path, logs: list[list[Row]], split: SplitSettings, **options: Any) -> list[dict[str, Artifact]]:
    """What each log becomes, the first from scratch, every other as an update of the one before."""
    made: list[dict[str, Artifact]] = []
    before: dict[str, Artifact] = {}
    for log in logs:
        made.append(ingested(folder, log, split, before, **options))
        parents = {"interactions": made[-1]["interactions"]}
        nodes = number_nodes(Store(folder / "store"), GraphSettings(), parents, ComputeSettings(threads=1))
        before = {**parents, "nodes": nodes}
    return made


def splits_by_pair(interactions: Artifact) -> dict[tuple[str, str], dict[str, str]]:
    """(User, item) → domain → split."""
    result: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for row in interactions.read(["domain", "user_id", "item_id", "split"]).to_pylist():
        result[row["user_id"], row["item_id"]][row["domain"]] = row["split"]
    return result


def mixed_pairs(interactions: Artifact) -> list[tuple[str, str]]:
    """Pairs with more than one split, over all domains."""
    return [pair for pair, splits in splits_by_pair(interactions).items() if len(set(splits.values())) > 1]


def assert_every_row_is_accounted_for(log: list[Row], made: Mapping[str, Artifact]) -> None:
    """Accepted and rejected rows are those read, and the reasons of the rejects are those of the statistics."""
    interactions, rejects = made["interactions"], made["rejects"].read()
    accepted = sum(interactions.read(["count"])["count"].to_pylist())
    assert accepted + rejects.num_rows == len(log)
    reasons = Counter(rejects["reason"].to_pylist())
    assert {reason: interactions.statistics[reason] for reason in ("leaked", "cold")} == {
        reason: reasons[reason] for reason in ("leaked", "cold")
    }
    rejected = {(row["line"], *row["text"].split("\t")) for row in rejects.to_pylist()}
    assert rejected == {(line, *log[line - 1][1:3]) for line, _, _ in rejected}


@pytest.mark.parametrize("cold", ["drop", "keep"])
@pytest.mark.parametrize("method", METHODS)
def test_no_pair_is_held_out_in_one_domain_and_trained_in_another(tmp_path: Path, method: str, cold: str) -> None:
    log = crowded_log(7, 900)
    made = ingested(tmp_path, log, METHODS[method], cold=cold)
    splits = Counter(made["interactions"].read(["split"])["split"].to_pylist())
    assert min(splits[name] for name in ("train", "valid", "test")) > 20
    assert mixed_pairs(made["interactions"]) == []
    assert_every_row_is_accounted_for(log, made)


rows = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from("uv"),
        st.sampled_from("ijklm"),
        st.sampled_from(("train", "valid", "test")),
        st.integers(60, 99),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(rows, st.sampled_from(sorted(METHODS)), st.sampled_from(["drop", "keep"]))
def test_no_log_makes_a_pair_held_out_and_trained(
    tmp_path_factory: pytest.TempPathFactory, log: list[Row], method: str, cold: str
) -> None:
    made = ingested(tmp_path_factory.mktemp("logs"), log, METHODS[method], cold=cold, rejected_share_at_most=1.0)
    assert mixed_pairs(made["interactions"]) == []
    assert_every_row_is_accounted_for(log, made)


@settings(max_examples=40, deadline=None)
@given(st.lists(rows, min_size=2, max_size=3), st.sampled_from(sorted(METHODS)))
def test_in_an_update_what_was_trained_on_is_held_out_nowhere(
    tmp_path_factory: pytest.TempPathFactory, days: list[list[Row]], method: str
) -> None:
    """Each day adds its rows; then the first day's rows vanish."""
    logs = [*accumulate(days), list(chain(*days[1:]))]
    folder = tmp_path_factory.mktemp("logs")
    trained: set[tuple[str, str]] = set()
    for log, made in zip(logs, updated(folder, logs, METHODS[method], rejected_share_at_most=1.0), strict=True):
        by_pair = splits_by_pair(made["interactions"])
        assert mixed_pairs(made["interactions"]) == []
        assert_every_row_is_accounted_for(log, made)
        assert not {pair for pair in trained & by_pair.keys() if "train" not in by_pair[pair].values()}
        trained = {pair for pair, splits in by_pair.items() if "train" in splits.values()}


@pytest.mark.parametrize("method", ["random", "leave-last-out"])
def test_an_update_still_holds_out_new_rows(tmp_path: Path, method: str) -> None:
    """Ten users, each with ten pairs of two domains on monday and ten more on tuesday, of which some are held out."""
    days = [[(domain, f"u{user}", f"i{item}", "", item) for user in range(10) for item in items for domain in "ab"]
            for items in (range(10), range(10, 20))]  # fmt: skip
    monday, tuesday = updated(tmp_path, [days[0], days[0] + days[1]], METHODS[method])
    scratch = ingested(tmp_path, days[0] + days[1], METHODS[method])
    earlier = splits_by_pair(monday["interactions"])
    moved, held_out = [], Counter()
    for made in (tuesday, scratch):
        by_pair = splits_by_pair(made["interactions"])
        moved.append(sum(earlier.get(pair, {}).get("a") == "train" != splits["a"] for pair, splits in by_pair.items()))
        held_out[len(moved)] = sum(splits["a"] != "train" for splits in by_pair.values())
    assert held_out[1] == held_out[2]
    assert (moved[0], moved[1] > 0) == (0, method == "random")


LATER_ROWS: dict[str, tuple[list[tuple[str, int]], str, str]] = {
    "a third comes": ([("k", 30)], "train train test", "train valid test"),
    "a third lies between": ([("k", 15)], "train train valid", "train test valid"),
    "a third is older": ([("k", 5)], "train train train", "valid test train"),
    "a third comes and the second again": ([("k", 30), ("j", 40)], "train train test", "train valid test"),
    "two come": ([("k", 30), ("l", 40)], "train train valid test", "train train valid test"),
}
"""What comes to i at time 10 and j at time 20; the splits of i, j, k, l by the clean and the released protocol."""


@pytest.mark.parametrize("case", LATER_ROWS)
@pytest.mark.parametrize("protocol", ["clean", "released"])
def test_two_rows_that_were_trained_on_stay_in_training_when_a_third_comes(
    tmp_path: Path, case: str, protocol: str
) -> None:
    """By leave-last-out, two rows of a user are too few to hold one out. The released protocol is the exception: it
    splits what is there as if nothing had been trained on."""
    first: list[Row] = [("a", "u", "i", "", 10), ("a", "u", "j", "", 20)]
    later, *expected = LATER_ROWS[case]
    log = first + [("a", "u", item, "", time) for item, time in later]
    monday, tuesday = (
        splits_by_pair(made["interactions"])
        for made in updated(tmp_path, [first, log], METHODS["leave-last-out"], protocol=protocol, cold="keep")
    )
    assert monday == {("u", item): {"a": "train"} for item in "ij"}
    splits = expected[protocol == "released"].split()
    assert tuesday == {("u", item): {"a": split} for item, split in zip("ijkl", splits, strict=False)}


def test_an_update_of_the_released_protocol_splits_as_from_scratch(tmp_path: Path) -> None:
    log = crowded_log(9, 300)
    _, made = updated(tmp_path, [log[:200], log], SplitSettings(), protocol="released")
    scratch = ingested(tmp_path, log, SplitSettings(), protocol="released")
    assert splits_by_pair(made["interactions"]) == splits_by_pair(scratch["interactions"])


@pytest.mark.parametrize("method", METHODS)
def test_splits_do_not_depend_on_buckets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    log = crowded_log(8, 300)
    whole = ingested(tmp_path / "whole", log, METHODS[method])
    monkeypatch.setattr(ingest_stage, "_BUCKET_ROWS", (10, 10))
    cut = ingested(tmp_path / "cut", log, METHODS[method])
    for role in ("interactions", "rejects"):
        assert cut[role].manifest.files == whole[role].manifest.files
    assert cut["interactions"].statistics == whole["interactions"].statistics


def test_a_pair_is_drawn_where_its_user_has_fewest_pairs(tmp_path: Path) -> None:
    """The user has ten pairs in a and the first five of them in b too, so five are drawn in each: one test, one valid
    in both, and what is drawn in b is so in a."""
    log: list[Row] = [("a", f"u{user}", f"i{item}", "", 0) for user in range(30) for item in range(10)]
    log += [("b", f"u{user}", f"i{item}", "", 0) for user in range(30) for item in range(5)]
    made = ingested(tmp_path, log, SplitSettings(), cold="keep")["interactions"]
    counts: Counter[tuple[str, bool, str]] = Counter()
    for (_, item), splits in splits_by_pair(made).items():
        for domain, split in splits.items():
            counts[domain, item < "i5", split] += 1
    drawn = {"train": 90, "valid": 30, "test": 30}
    for place in (("a", True), ("a", False), ("b", True)):
        assert {split: counts[*place, split] for split in drawn} == drawn
    assert made.statistics["pairs_in_several_domains"] == drawn


def test_a_user_of_disjoint_domains_is_split_in_each(tmp_path: Path) -> None:
    log: list[Row] = [(domain, "u", f"{domain}{item}", "", 0) for domain in "ab" for item in range(10)]
    log += [("c", "u", "c0", "", 0)]
    made = ingested(tmp_path, log, SplitSettings(), cold="keep")["interactions"]
    counts = {domain: [values[split] for split in ("train", "valid", "test")]
              for domain, values in made.statistics["domains"].items()}  # fmt: skip
    assert counts == {"a": [7, 1, 2], "b": [7, 1, 2], "c": [1, 0, 0]}


def test_the_last_pair_is_held_out_only_if_it_is_so_in_each_of_its_domains(tmp_path: Path) -> None:
    """k is the last in both, j the last but one in b, but in the middle of a; l is last of c, where two are too few."""
    log: list[Row] = [("a", "u", item, "", time) for time, item in enumerate("ijxyk")]
    log += [("b", "u", item, "", time) for time, item in enumerate("gijk")]
    made = ingested(tmp_path, log, METHODS["leave-last-out"], cold="keep")["interactions"]
    by_pair = splits_by_pair(made)
    held_out = {item: splits for (_, item), splits in by_pair.items() if set(splits.values()) != {"train"}}
    assert held_out == {"k": {"a": "test", "b": "test"}, "y": {"a": "valid"}}


def test_users_whose_last_pairs_have_the_same_time_are_counted_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In a, of four users with three pairs or more, v and w have ties among their last three; x has only two pairs. In
    b, w has none."""
    caplog.set_level(logging.INFO)
    times = {"t": (1, 2, 3), "u": (5, 5, 6, 7, 8), "v": (1, 5, 5), "w": (4, 4, 5), "x": (5, 5)}
    log: list[Row] = [("a", user, f"i{n}", "", t) for user, all_t in times.items() for n, t in enumerate(all_t)]
    log += [("b", "w", f"j{time}", "", time) for time in range(4)]
    made = ingested(tmp_path, log, METHODS["leave-last-out"], cold="keep")["interactions"]
    assert made.statistics["tied_users"] == 2
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("leave-last-out")]
    assert [line.partition(" users")[0] for line in said] == ["leave-last-out: 40% of 5"]


@pytest.mark.parametrize("method", ["given", "time"])
def test_a_held_out_row_is_dropped_where_an_earlier_split_of_another_domain_has_its_pair(
    tmp_path: Path, method: str
) -> None:
    """i is trained in a, j is for validation in a; b holds both out for test, and k as well."""
    log: list[Row] = [
        ("a", "u", "i", "train", 1), ("a", "u", "j", "valid", 70), ("b", "u", "i", "test", 90),
        ("b", "u", "j", "test", 90), ("b", "u", "k", "test", 90), ("b", "u", "l", "train", 1),
    ]  # fmt: skip
    made = ingested(tmp_path, log, METHODS[method], cold="keep", rejected_share_at_most=0.0)
    assert splits_by_pair(made["interactions"]) == {
        ("u", "i"): {"a": "train"}, ("u", "j"): {"a": "valid"}, ("u", "k"): {"b": "test"}, ("u", "l"): {"b": "train"},
    }  # fmt: skip
    rejects = made["rejects"].read(["line", "reason", "text"]).to_pylist()
    assert [tuple(row.values()) for row in rejects] == [(3, "leaked", "u\ti"), (4, "leaked", "u\tj")]
    assert {domain: found["leaked"] for domain, found in made["interactions"].statistics["domains"].items()} == {
        "a": 0, "b": 2,
    }  # fmt: skip


def test_the_released_protocol_splits_each_domain_alone(tmp_path: Path) -> None:
    log = crowded_log(7, 900)
    made = ingested(tmp_path, log, SplitSettings(), protocol="released")["interactions"]
    assert mixed_pairs(made)
