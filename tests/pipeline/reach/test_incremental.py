"""What an update copies of reach and pairs is what it would compute, to the bit."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from raw_logs import numbered

from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import GraphSettings, PairsSettings, ReachSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from pipeline.graph import DomainGraph, build_graph
from pipeline.pairs.stage import pair_domains
from pipeline.reach.incremental import changed_nodes
from pipeline.reach.stage import compute_reach
from pipeline.reach.walk_graph import WalkGraph

COMPUTE = ComputeSettings(threads=1)
DOMAINS = {"books": 60, "films": 40, "games": 25}

Artifacts = dict[str, Artifact]


def write_log(folder: Path, day: str, sizes: Mapping[str, int], seed: int, names: int = 30) -> None:
    """Rows of users and items with common names; few enough that the graphs fall apart into small pieces."""
    random = np.random.default_rng(seed)
    lines = [
        f"{domain},u{random.integers(names)},i{random.integers(names)},{random.integers(2)}"
        for domain, rows in sizes.items()
        for _ in range(rows)
    ]
    (folder / f"{day}.csv").write_text("\n".join(["domain,user_id,item_id,time", *lines]) + "\n")


def prepared(store: Store, folder: Path, before: Artifacts, settings: ReachSettings) -> Artifacts:
    """All artifacts up to pairs of the logs in a folder, going on from others."""
    earlier = {role: before[role] for role in ("interactions", "nodes") if role in before}
    interactions, nodes = numbered(store, folder, "time", earlier)
    made = {"interactions": interactions, "nodes": nodes}
    made["graph"] = build_graph(store, GraphSettings(), made, COMPUTE)
    return made | reached(store, made, before, settings)


def reached(store: Store, made: Artifacts, before: Artifacts, settings: ReachSettings) -> Artifacts:
    parents = {role: made[role] for role in ("nodes", "graph")}
    reach = compute_reach(store, settings, parents, COMPUTE, previous=before)
    parents = {"nodes": made["nodes"], "reach": reach}
    return {"reach": reach, "pairs": pair_domains(store, PairsSettings(), parents, COMPUTE, previous=before)}


def files(artifact: Artifact) -> list[tuple[str, str]]:
    return [(file.path, file.sha256) for file in artifact.manifest.files]


def copied(reach: Artifact) -> dict[str, int]:
    return {domain: found["copied"] for domain, found in reach.statistics["domains"].items()}


@pytest.mark.parametrize(
    "options", [{}, {"method": "pruned", "anchors_kept": 2}, {"steps": (1, 2)}, {"method": "walk"}]
)
@pytest.mark.parametrize("seed", range(2))
def test_copied_and_computed_have_the_bits_of_all_computed(tmp_path: Path, seed: int, options: dict) -> None:
    settings = ReachSettings(**options, walks=20)
    write_log(tmp_path, "monday", DOMAINS, seed)
    before = prepared(Store(tmp_path / "store"), tmp_path, {}, settings)
    write_log(tmp_path, "tuesday", {"books": 3, "arts": 6}, seed + 100, names=40)
    updated = prepared(Store(tmp_path / "store"), tmp_path, before, settings)
    whole = reached(Store(tmp_path / "whole"), updated, {}, settings)
    for role in ("reach", "pairs"):
        assert updated[role].key == whole[role].key
        assert files(updated[role]) == files(whole[role])
    found = copied(updated["reach"])
    assert found["arts"] == 0
    assert sum(copied(whole["reach"]).values()) == 0
    if settings.method == "walk":
        assert sum(found.values()) == 0
    elif settings.steps == (1, 2):
        nodes = updated["nodes"].statistics["domains"]["books"]
        assert 0 < found["books"] < nodes["users"] + nodes["items"]


def test_pairs_of_domains_that_stayed_are_copied_and_no_others(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("pipeline.compute.array_folder._SMALL", 0)
    write_log(tmp_path, "monday", DOMAINS, 1)
    before = prepared(Store(tmp_path / "store"), tmp_path, {}, ReachSettings())
    (tmp_path / "tuesday.csv").write_text("domain,user_id,item_id,time\ngames,new,newer,0\n")
    updated = prepared(Store(tmp_path / "store"), tmp_path, before, ReachSettings())
    assert updated["pairs"].statistics["pairs_of_domains"] == 3
    assert updated["pairs"].statistics["copied"] == 1
    whole = reached(Store(tmp_path / "whole"), updated, {}, ReachSettings())
    assert files(updated["pairs"]) == files(whole["pairs"])
    nodes = updated["nodes"].statistics["domains"]
    sizes = {domain: nodes[domain]["users"] + nodes[domain]["items"] for domain in DOMAINS}
    assert copied(updated["reach"]) == sizes | {"games": sizes["games"] - 2}


def test_other_settings_copy_nothing(tmp_path: Path) -> None:
    write_log(tmp_path, "monday", DOMAINS, 1)
    before = prepared(Store(tmp_path / "store"), tmp_path, {}, ReachSettings())
    again = reached(Store(tmp_path / "other"), before, before, ReachSettings(anchors_kept=3))
    assert sum(copied(again["reach"]).values()) == 0
    assert again["pairs"].statistics["copied"] == 0


def path(nodes: int) -> DomainGraph:
    """A path user 0 – item 0 – user 1 – …; items follow the users."""
    users = (nodes + 1) // 2
    number = [place // 2 + (users if place % 2 else 0) for place in range(nodes)]
    near: list[list[int]] = [[] for _ in range(nodes)]
    for left, right in pairwise(number):
        near[left].append(right)
        near[right].append(left)
    indptr = np.cumsum([0, *map(len, near)])
    return DomainGraph("path", users, indptr, np.array([n for row in near for n in sorted(row)], np.int32))


def test_a_new_end_of_a_path_makes_the_nodes_within_the_steps_stale() -> None:
    # Of 9 nodes on a path, users are 0 … 4 and items 5 … 8; the tenth, item 9, joins user 4.
    earlier, today = (WalkGraph(path(nodes), np.ones(nodes, np.bool_), (3,)) for nodes in (9, 10))
    stale = changed_nodes(today, earlier, np.array([*range(9), -1], np.int32))
    # Item 8 is one step from user 4, user 3 two. From item 7 the third step ends on user 4 and goes no further.
    assert np.flatnonzero(stale).tolist() == [3, 4, 8, 9]


def test_a_node_that_becomes_an_anchor_is_seen_from_as_far_as_the_steps() -> None:
    earlier = WalkGraph(path(9), np.zeros(9, np.bool_), (3,))
    today = WalkGraph(path(9), np.arange(9) == 0, (3,))
    # User 0 is an anchor now: three steps from items 5 (user 0's neighbour) and 6 may end on it.
    assert np.flatnonzero(changed_nodes(today, earlier, np.arange(9, dtype=np.int32))).tolist() == [5, 6]
