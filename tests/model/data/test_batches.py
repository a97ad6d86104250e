import math

import numpy as np
import pytest
from scipy import stats
from tiny_world import Tiny, build, rows_of

from data_contracts.settings.train import TrainSettings
from data_contracts.store.store import Store
from model.data.batches import Batching, Positives, build_batches, build_positives, sample_negatives
from model.data.dataset import load_dataset, load_interactions
from model.sparse.group_scores import group_windows

LOG = {
    "a": [("u", "i", "train", 3), ("u", "j", "train"), ("v", "k", "train"), ("v", "l", "test"), ("w", "m", "train")],
    "all": [("u", "i", "train"), ("u", "j", "train"), ("v", "i", "train")],
    "held": [("u", "i", "valid")],
}


def positives(world: Tiny, name: str, protocol: str) -> Positives:
    loaded = load_dataset(world.parents["nodes"], world.parents["graph"])
    (domain,) = (domain for domain in loaded.domains if domain.name == name)
    return build_positives(load_interactions(world.parents["interactions"], domain, loaded), domain, protocol)


@pytest.fixture
def hand_made(store: Store) -> Tiny:
    return build(store, LOG)


def test_clean_positives_occur_once(hand_made: Tiny) -> None:
    found = positives(hand_made, "a", "clean")
    assert list(zip(found.users.tolist(), found.items.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 2), (2, 4)]


def test_released_positives_repeat_as_in_the_logs(hand_made: Tiny) -> None:
    found = positives(hand_made, "a", "released")
    assert list(zip(found.users.tolist(), found.items.tolist(), strict=True)) == [(0, 0)] * 3 + [(0, 1), (1, 2), (2, 4)]


def test_clean_negatives_are_never_known_train_items(tiny_world: Tiny) -> None:
    found = positives(tiny_world, "books", "clean")
    known = set(zip(found.users.tolist(), found.items.tolist(), strict=True))
    for epoch in range(1, 30):
        negatives = sample_negatives(found, 1, epoch)
        assert not known & set(zip(found.users.tolist(), negatives.tolist(), strict=True))


def test_clean_negatives_are_uniform_over_the_unknown_items(hand_made: Tiny) -> None:
    found = positives(hand_made, "a", "clean")
    drawn = np.array([sample_negatives(found, 1, epoch)[0] for epoch in range(3000)])
    counts = np.bincount(drawn, minlength=5)
    assert counts[:2].tolist() == [0, 0]
    assert stats.chisquare(counts[2:]).pvalue > 1e-4


def test_released_negatives_are_any_item(hand_made: Tiny) -> None:
    found = positives(hand_made, "a", "released")
    drawn = np.array([sample_negatives(found, 1, epoch)[0] for epoch in range(3000)])
    assert stats.chisquare(np.bincount(drawn, minlength=5)).pvalue > 1e-4


def test_a_user_who_knows_every_item_trains_on_nothing(hand_made: Tiny) -> None:
    found = positives(hand_made, "all", "clean")
    assert (found.users.tolist(), found.items.tolist()) == ([1], [0])


def test_a_domain_without_train_rows_has_no_batch(hand_made: Tiny) -> None:
    assert list(build_batches(positives(hand_made, "held", "clean"), 1, 1, Batching(4, 2))) == []


def rows(found: Positives, epoch: int, triples: int, negatives: int = 1) -> list[list[int]]:
    return [row for batch in build_batches(found, 1, epoch, Batching(triples, negatives)) for row in rows_of(batch)]


def test_an_epoch_visits_every_positive_once(tiny_world: Tiny) -> None:
    found = positives(tiny_world, "books", "clean")
    visited = sorted((user, item - found.offset) for user, item, _ in rows(found, 1, 32))
    assert visited == sorted(zip(found.users.tolist(), found.items.tolist(), strict=True))


def test_the_batch_size_changes_neither_order_nor_own_negatives(tiny_world: Tiny) -> None:
    found = positives(tiny_world, "books", "clean")
    assert rows(found, 1, 7) == rows(found, 1, 1000)


def test_a_batch_size_that_is_left_open_is_a_32nd_of_all_domains_rows(hand_made: Tiny, tiny_world: Tiny) -> None:
    of_all = [positives(tiny_world, domain, "clean") for domain in ("books", "games")]
    rows = sum(found.users.size for found in of_all)
    assert Batching.from_settings(TrainSettings(negatives=3), of_all) == (math.ceil(rows / 32), 3, True, False)
    assert Batching.from_settings(TrainSettings(objective="softmax"), of_all).grouped
    assert Batching.from_settings(TrainSettings(batch_size=7), of_all).triples == 7
    assert Batching.from_settings(TrainSettings(), [positives(hand_made, "held", "clean")]).triples == 1


def test_every_epoch_has_an_order_of_its_own(tiny_world: Tiny) -> None:
    found = positives(tiny_world, "books", "clean")
    assert rows(found, 1, 1000) != rows(found, 2, 1000)


def test_further_negatives_are_those_of_the_batchs_other_positives(tiny_world: Tiny) -> None:
    found = positives(tiny_world, "books", "clean")
    for batch in build_batches(found, 1, 1, Batching(50, 4)):
        own = {row[2] for row in rows_of(batch)}
        assert {node for row in rows_of(batch) for node in row[3:]} <= own
    assert [row[:3] for row in rows(found, 1, 50, 4)] == rows(found, 1, 50)
    further = [row for row in rows(found, 1, 50, 4) if len(set(row[2:])) > 1]
    assert len(further) > found.users.size / 2


def test_no_negative_that_is_shared_is_known_to_the_user(tiny_world: Tiny) -> None:
    found = positives(tiny_world, "books", "clean")
    known = set(zip(found.users.tolist(), (found.items + found.offset).tolist(), strict=True))
    for epoch in range(1, 30):
        shared = {(row[0], node) for row in rows(found, epoch, 64, 5) for node in row[2:]}
        assert not known & shared


def test_a_batch_counts_how_often_each_node_occurs_in_its_triples(tiny_world: Tiny) -> None:
    (batch,) = build_batches(positives(tiny_world, "games", "clean"), 1, 1, Batching(1000, 3))
    nodes = [node for row in rows_of(batch) for node in row[:3]]
    assert batch.counts.tolist() == np.bincount(nodes)[batch.nodes].tolist()
    assert np.unique(batch.nodes).size == batch.nodes.size


def test_grouped_positives_share_the_negatives_of_neighbouring_rows(tiny_world: Tiny) -> None:
    found = positives(tiny_world, "books", "clean")
    users_items = set(zip(found.users.tolist(), found.items.tolist(), strict=True))
    marked = 0
    for batch in build_batches(found, 1, 1, Batching(50, 12, grouped=True)):
        users, items, negatives = batch.nodes[batch.pattern.picks.forward.indices.numpy().reshape(3, -1)]
        assert batch.pattern.users.tolist() == users.tolist()
        size = min(12, batch.size)
        assert batch.pattern.known.shape == (batch.size, size)
        windows = [window for group, window in group_windows(batch.size, 12) for _ in range(group.start, group.stop)]
        for row, window in enumerate(windows):
            pairs = [(users[row], negative - found.offset) for negative in negatives[window].tolist()]
            assert batch.pattern.known[row].tolist() == [pair in users_items for pair in pairs]
            assert not batch.pattern.known[row, row - window.start]
        marked += int(batch.pattern.known.sum())
        drawn = np.concatenate([users, items, negatives])
        assert batch.counts.tolist() == np.bincount(drawn)[batch.nodes].tolist()
    assert marked > 100


def test_grouping_changes_no_triple(tiny_world: Tiny) -> None:
    found = positives(tiny_world, "books", "clean")
    grouped = build_batches(found, 1, 1, Batching(50, 12, grouped=True))
    triples = [batch.nodes[batch.pattern.picks.forward.indices.numpy().reshape(3, -1)].T.tolist() for batch in grouped]
    assert [row for rows_ in triples for row in rows_] == rows(found, 1, 50)
