"""Shuffled partners: a control that keeps every count and no similarity."""

from collections import Counter

import pyarrow as pa

from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import PairsSettings, ReachSettings
from pipeline.pairs.stage import pair_domains
from pipeline.reach.stage import compute_reach

ONE, TWO = ComputeSettings(threads=1), ComputeSettings(threads=2)


def partnerships(table: pa.Table, *columns: str) -> Counter:
    return Counter(zip(*(table[column].to_pylist() for column in columns), strict=True))


def test_partners_are_dealt_anew_within_domains_and_kind(tiny_world):
    parents = tiny_world.without_pairs()
    parents["reach"] = compute_reach(tiny_world.store, ReachSettings(), parents, ONE)
    similar = pair_domains(tiny_world.store, PairsSettings(), parents, ONE)
    shuffled = pair_domains(tiny_world.store, PairsSettings(shuffled=True), parents, TWO)
    assert not shuffled.verify([parents["nodes"]])
    before, after = similar.read(), shuffled.read()
    untouched = ("source_domain", "target_domain", "source_node", "kind", "rank", "similarity", "identity")
    assert before.select(untouched) == after.select(untouched)
    ends = ("source_domain", "target_domain", "kind", "target_node")
    assert partnerships(before, *ends) == partnerships(after, *ends)
    identity = pa.compute.equal(before["rank"], 0)
    assert identity.to_pylist().count(True) > 0
    assert before.filter(identity)["target_node"] == after.filter(identity)["target_node"]
    changed = pa.compute.not_equal(before["target_node"], after["target_node"])
    assert changed.to_pylist().count(True) > before.num_rows / 3


def test_keys_of_pairs_that_are_not_shuffled_stay_as_they_were():
    assert "shuffled" not in PairsSettings().keyed()
    assert PairsSettings(shuffled=True).keyed()["shuffled"] is True
