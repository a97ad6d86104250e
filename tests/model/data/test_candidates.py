import numpy as np
import pytest
import torch
from scipy import stats
from tiny_world import Tiny, build

from data_contracts.settings.ranking import EvaluateSettings
from data_contracts.store.store import Store
from model.data.candidates import build_held_out, score_candidates
from model.data.dataset import DomainData, Interactions, load_dataset, load_interactions

CLEAN, RELEASED = EvaluateSettings(candidates=5), EvaluateSettings(candidates=5, protocol="released")


def rows_of(world: Tiny, name: str) -> tuple[Interactions, DomainData]:
    loaded = load_dataset(world.parents["nodes"], world.parents["graph"])
    (domain,) = (domain for domain in loaded.domains if domain.name == name)
    return load_interactions(world.parents["interactions"], domain, loaded), domain


def test_clean_candidates_are_distinct_items_that_the_user_knows_in_no_split(tiny_world: Tiny) -> None:
    rows, domain = rows_of(tiny_world, "books")
    held = build_held_out(rows, domain, "test", CLEAN)
    known = set(zip(rows.users.tolist(), rows.items.tolist(), strict=True))
    assert held.users.size > 20
    for user, candidates in zip(held.users.tolist(), held.candidates.tolist(), strict=True):
        real = [item for item in candidates if item >= 0]
        assert len(set(real)) == len(real)
        assert not known & {(user, item) for item in real}


def test_released_candidates_leave_out_only_the_held_out_item(tiny_world: Tiny) -> None:
    rows, domain = rows_of(tiny_world, "books")
    settings = EvaluateSettings(candidates=domain.items - 1, protocol="released")
    held = build_held_out(rows, domain, "test", settings)
    for item, candidates in zip(held.items.tolist(), held.candidates.tolist(), strict=True):
        assert sorted(candidates) == [other for other in range(domain.items) if other != item]


def test_candidates_are_uniform(store: Store) -> None:
    log = {"a": [(f"u{n:04d}", "i", "test") for n in range(1500)] + [("x", f"j{n}", "train") for n in range(9)]}
    rows, domain = rows_of(build(store, log), "a")
    drawn = build_held_out(rows, domain, "test", EvaluateSettings(candidates=3)).candidates
    assert stats.chisquare(np.bincount(drawn.ravel(), minlength=10)[1:]).pvalue > 1e-4


def test_where_fewer_items_remain_all_of_them_are_candidates(store: Store) -> None:
    log = {"a": [("u", "i", "train"), ("u", "j", "test"), ("v", "k", "train"), ("v", "l", "train")]}
    held = build_held_out(*rows_of(build(store, log), "a"), "test", CLEAN)
    assert sorted(held.candidates[0].tolist()) == [-1, -1, -1, 2, 3]


def test_candidates_of_a_row_do_not_depend_on_the_other_rows(store: Store) -> None:
    items = [("x", f"j{n}", "train") for n in range(30)]
    more = build(
        store, {"a": [("t", "j1", "test"), ("u", "j2", "test"), ("v", "j3", "valid"), ("v", "j3", "train"), *items]}
    )
    fewer = build(store, {"a": [("t", "j1", "train"), ("u", "j2", "test"), ("v", "j3", "train"), *items]})
    many = build_held_out(*rows_of(more, "a"), "test", CLEAN)
    few = build_held_out(*rows_of(fewer, "a"), "test", CLEAN)
    assert many.candidates[1].tolist() == few.candidates[0].tolist()


def test_splits_and_seeds_have_candidates_of_their_own(tiny_world: Tiny) -> None:
    rows, domain = rows_of(tiny_world, "books")
    first = build_held_out(rows, domain, "test", CLEAN)
    other = build_held_out(rows, domain, "test", EvaluateSettings(candidates=5, candidate_seed=1))
    assert not np.array_equal(first.candidates, other.candidates)


def test_a_split_without_rows_has_no_candidates(store: Store) -> None:
    world = build(store, {"a": [("u", "i", "train")]})
    assert build_held_out(*rows_of(world, "a"), "valid", CLEAN).candidates.shape == (0, 5)


@pytest.mark.parametrize("settings", [CLEAN, RELEASED])
def test_scores_are_dot_products_and_absent_candidates_have_none(store: Store, settings: EvaluateSettings) -> None:
    log = {"a": [("u", "i", "train"), ("u", "j", "test"), ("v", "k", "train"), ("v", "l", "train")]}
    rows, domain = rows_of(build(store, log), "a")
    held = build_held_out(rows, domain, "test", settings)
    vectors = torch.arange(12.0).reshape(6, 2)
    positive, candidates = score_candidates(held, vectors, domain.users)
    assert positive.tolist() == [float(vectors[0] @ vectors[3])]
    for item, score in zip(held.candidates[0], candidates[0], strict=True):
        assert np.isnan(score) if item < 0 else score == float(vectors[0] @ vectors[2 + item])


def test_scores_of_many_rows_do_not_depend_on_the_block(tiny_world: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, domain = rows_of(tiny_world, "books")
    held = build_held_out(rows, domain, "test", EvaluateSettings(candidates=30))
    vectors = torch.from_numpy(np.random.default_rng(1).integers(-4, 5, (domain.users + domain.items, 3))).float()
    scores = vectors.numpy()
    assert held.items.size > 5
    assert (held.candidates == 0).any()
    assert (held.candidates < 0).any()
    for block in (1, 5, 4096):
        monkeypatch.setattr("model.data.candidates._BLOCK", block)
        positive, candidates = score_candidates(held, vectors, domain.users)
        for row, user in enumerate(held.users):
            of_items = scores[domain.users :] @ scores[user]
            expected = np.where(held.candidates[row] < 0, np.nan, of_items[held.candidates[row]])
            assert positive[row] == of_items[held.items[row]]
            np.testing.assert_array_equal(candidates[row], expected)
