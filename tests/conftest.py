"""Fixtures of several test modules."""

from pathlib import Path

import pytest
from tiny_world import Tiny, build, random_log

from data_contracts.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def tiny_world(store: Store) -> Tiny:
    """Three domains of 30, 16 and 8 users that share some users and items, every split in each of them."""
    sizes = {"books": (30, 20, 260), "films": (16, 14, 120), "games": (8, 10, 50)}
    return build(store, random_log(1, sizes), every_pair=True)
