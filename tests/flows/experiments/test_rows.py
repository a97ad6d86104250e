"""Variants of rows, by hand."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from flows.experiments.rows import (
    borrow_rows,
    by_size,
    give_two_names,
    keep_domains,
    merge_users,
    renamed_twins,
    shared_ids,
    shrink_domain,
    thin_overlap,
    user_strata,
)

SEED = 7


def table(*rows: tuple[str, str, str, str]) -> pa.Table:
    return pa.table(dict(zip(("domain", "user_id", "item_id", "split"), zip(*rows, strict=True), strict=True)))


ROWS = table(
    *((domain, f"u{n}", f"i{n % 3}", "train") for domain in ("a", "b") for n in range(40)),
    ("a", "only-a", "x", "test"),
    ("c", "u0", "i0", "valid"),
)


def users(rows: pa.Table, domain: str) -> set[str]:
    return set(rows.filter(pc.equal(rows["domain"], domain))["user_id"].to_pylist())


def test_users_of_one_domain_cannot_get_two_names():
    rows = pa.table({"domain": ["a"], "user_id": ["u"], "item_id": ["i"], "split": ["train"]})
    with pytest.raises(ValueError, match="domains must share more users"):
        give_two_names(rows, 1)


def test_shared_ids_live_in_two_domains():
    assert set(shared_ids(ROWS, "user").to_pylist()) == {f"u{n}" for n in range(40)}
    assert set(shared_ids(ROWS, "item").to_pylist()) == {"i0", "i1", "i2"}


def test_thinning_renames_users_in_each_domain_and_less_overlap_is_part_of_more():
    kept = []
    for share in (1.0, 0.5, 0.25, 0.0):
        thinned = thin_overlap(ROWS, "user", share, SEED)
        assert thinned.select(["domain", "item_id", "split"]) == ROWS.select(["domain", "item_id", "split"])
        assert "only-a" in users(thinned, "a")
        shared = set(shared_ids(thinned, "user").to_pylist())
        renamed = {f"u{n}" for n in range(40)} - shared
        assert users(thinned, "b") == shared | {f"{user}@b" for user in renamed}
        kept.append(shared)
    assert kept[0] == {f"u{n}" for n in range(40)}
    assert kept[0] > kept[1] > kept[2] > kept[3] == set()
    assert 10 < len(kept[1]) < 30


def test_renamed_users_are_twins_of_every_two_domains():
    thinned = thin_overlap(ROWS, "user", 0.5, SEED)
    twins = renamed_twins(ROWS, 0.5, SEED)
    ends = set(zip(twins["source_domain"].to_pylist(), twins["source_user_id"].to_pylist(), strict=True))
    ends |= set(zip(twins["target_domain"].to_pylist(), twins["target_user_id"].to_pylist(), strict=True))
    lives = zip(thinned["domain"].to_pylist(), thinned["user_id"].to_pylist(), strict=True)
    assert ends == {(domain, user) for domain, user in lives if "@" in user}


def test_merged_users_have_the_new_name_in_their_domain_alone():
    merged = merge_users(ROWS, {("b", "u1"): "u2"})
    assert users(merged, "b") == {f"u{n}" for n in range(40)} - {"u1"}
    assert users(merged, "a") == users(ROWS, "a")


def test_a_shrunk_domain_keeps_users_whole_and_held_out_rows_of_the_core():
    rows = table(*((d, f"u{n}", f"i{k}", split) for d in "ab" for n in range(60)
                   for k, split in enumerate(("train", "train", "test"))))  # fmt: skip
    tested, sizes = [], []
    for share in (1.0, 0.5, 0.2):
        shrunk = shrink_domain(rows, "a", share, 0.2, SEED)
        assert keep_domains(shrunk, ["b"]) == keep_domains(rows, ["b"])
        of_a = keep_domains(shrunk, ["a"])
        is_test = pc.equal(of_a["split"], "test")
        tested.append(set(of_a.filter(is_test)["user_id"].to_pylist()))
        counts = of_a.filter(pc.invert(is_test)).group_by("user_id").aggregate([("item_id", "count")])
        assert set(counts["item_id_count"].to_pylist()) == {2}
        sizes.append(counts.num_rows)
    assert tested[0] == tested[1] == tested[2]
    assert sizes[0] == 60 > sizes[1] > sizes[2] == len(tested[2]) > 0


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_domains_by_size_do_not_depend_on_the_order_of_rows(order):
    rows = ROWS.take(pa.array(list(range(ROWS.num_rows))[order]))
    assert by_size(rows) == ["a", "b", "c"]


def test_users_of_one_domain_with_few_rows_get_those_of_their_most_similar_partners():
    rows = table(
        *(("a", name, f"x{n}", "train") for name, many in (("poor", 1), ("rich", 3), ("both", 1)) for n in range(many)),
        ("b", "both", "y", "train"),
        *(
            ("b", partner, f"{partner}-{n}", split)
            for partner in ("p", "q")
            for n, split in enumerate(("train", "test"))
        ),
    )
    ends = [(user, partner) for user in ("poor", "rich", "both") for partner in ("p", "q")]
    pairs = pa.table(
        {
            "target_domain": ["b"] * 6,
            "source_id": [user for user, _ in ends],
            "target_id": [partner for _, partner in ends],
            "similarity": [0.9 if partner == "p" else 0.1 for _, partner in ends],
        }
    )
    new = borrow_rows(rows, pairs, few=2, share=1.0).to_pylist()[rows.num_rows :]
    assert {tuple(row.values()) for row in new} == {("b", "poor", f"{name}-0", "train") for name in ("p", "q")}
    most_alike = borrow_rows(rows, pairs, few=2, share=0.5).to_pylist()[rows.num_rows :]
    assert [tuple(row.values()) for row in most_alike] == [("b", "poor", "p-0", "train")]
    assert borrow_rows(rows, pairs.slice(0, 0), few=2, share=0.5) == rows


def test_strata_of_users_count_train_rows_of_all_domains():
    rows = table(
        *(("a", "long", f"x{n}", "train") for n in range(2)),
        *(("b", "long", f"y{n}", "train") for n in range(9)),
        ("b", "long", "y-held", "test"),
        ("a", "short", "x0", "train"),
        ("a", "new", "x1", "test"),
        ("b", "other", "y0", "train"),
    )
    assert user_strata(rows, "a") == {
        "history 0": {("a", "new")},
        "history 1-2": {("a", "short")},
        "history 11+": {("a", "long")},
        "user in one domain": {("a", "new"), ("a", "short")},
        "user in several domains": {("a", "long")},
    }
