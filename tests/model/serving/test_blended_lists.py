"""Lists of vectors and evidence against brute force: users with and without vectors and histories, new users, items."""

import json

import numpy as np
import pytest
from fake_stages import edda
from oracle_serving import Served
from tiny_world import TinyRun, build, exported

from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import NeighboursSettings
from data_contracts.settings.ranking import ExportSettings
from data_contracts.store.store import Store
from model.serving.exact import fold_in
from model.serving.explanations import REASONS
from model.serving.export import export_recommendations
from model.serving.ids import UnknownError
from model.serving.recommender import Ranking, Recommender
from model.serving.scorer import DomainScorers, served_artifacts
from pipeline.neighbours.stage import build_neighbours

LOG = {
    "books": [("ann", "b1", "train"), ("ann", "b2", "train"), ("bob", "b1", "train"), ("bob", "b3", "train"),
              ("cat", "b2", "train"), ("cat", "b3", "train"), ("cat", "b4", "train"), ("dan", "b4", "train"),
              ("eve", "b5", "train")],
    "films": [("ann", "f1", "train"), ("bob", "f1", "train"), ("bob", "f2", "train"), ("fay", "f1", "train"),
              ("gus", "f3", "train"), ("gus", "b1", "train"), ("hal", "f4", "train")],
}  # fmt: skip
"""Fay, Gus and Hal see films only; walks from Fay's and Gus's films lead to books, from Hal's nowhere."""


@pytest.fixture(scope="module")
def served(tiny_run: TinyRun) -> Served:
    return Served(tiny_run.artifacts)


@pytest.fixture(scope="module")
def recommender(tiny_run: TinyRun) -> Recommender:
    return Recommender(tiny_run.artifacts)


@pytest.fixture(scope="module")
def cinema(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """The world above as a run `cinema`: books by vectors and evidence, films by vectors alone."""
    store = Store(tmp_path_factory.mktemp("cinema") / "store")
    return TinyRun(store.root, exported(build(store, LOG), "cinema", {"books": (1.0, 2.0), "films": (1.0, 0.0)}))


def assert_same(found: Ranking, expected: list[tuple[str, float]]) -> None:
    """The same items and scores, best first; items whose scores differ by rounding alone may change places."""
    scores = dict(expected)
    assert [row.rank for row in found.items] == list(range(1, len(expected) + 1))
    assert {row.item for row in found.items} == set(scores)
    assert [row.score for row in found.items] == pytest.approx([score for _, score in expected], rel=1e-5, abs=1e-6)
    assert [row.score for row in found.items] == pytest.approx(
        [scores[row.item] for row in found.items], rel=1e-5, abs=1e-6
    )


@pytest.mark.parametrize("domain", ["books", "films", "games"])
def test_every_users_list_is_that_of_the_formula(served: Served, recommender: Recommender, domain: str) -> None:
    for user in served.users(domain):
        found = recommender.for_user(domain, user, 99)
        assert_same(found, served.for_user(domain, user))
        has_evidence = bool(served.history(user)) and domain != "games"
        assert found.by == ("blend" if has_evidence else "vectors")


def test_equal_scores_go_by_the_items_numbers(served: Served, recommender: Recommender) -> None:
    """Films are ranked by evidence alone, and many items have none."""
    for user in served.users("films"):
        last = [row.item for row in recommender.for_user("films", user, 99).items if row.score == 0.0]
        assert last == [item for item, score in served.for_user("films", user) if score == 0.0]


def test_export_writes_the_lists_that_recommend_prints(
    tiny_run: TinyRun, recommender: Recommender, store: Store
) -> None:
    parents = served_artifacts(tiny_run.artifacts)
    table = export_recommendations(store, ExportSettings(top=5), parents, ComputeSettings(threads=1))
    for domain in recommender.domains:
        rows = table.read(domain=domain).to_pylist()
        for user in {row["user_id"] for row in rows}:
            mine = [row for row in rows if row["user_id"] == user]
            one = recommender.for_user(domain, user, 5)
            assert [row.item for row in one.items] == [row["item_id"] for row in mine]
            assert [row.score for row in one.items] == pytest.approx([row["score"] for row in mine], rel=1e-5)


def test_exported_reasons_are_those_of_recommend(tiny_run: TinyRun, recommender: Recommender, store: Store) -> None:
    parents = served_artifacts(tiny_run.artifacts)
    made = export_recommendations(store, ExportSettings(top=5, why=True), parents, ComputeSettings(threads=1))
    assert made.verify() == []
    for domain in recommender.domains:
        for row in made.read(domain=domain).to_pylist():
            why = recommender.for_user(domain, row["user_id"], 5, REASONS).items[row["rank"] - 1].why
            assert why is not None
            assert [part.item for part in why.because_of] == row["because_of"]
            assert [part.domains for part in why.because_of] == row["because_of_domains"]
            assert [part.share for part in why.because_of] == pytest.approx(row["because_of_shares"])
            assert why.evidence == pytest.approx(row["evidence_share"], rel=1e-5)


def test_without_export_why_the_columns_are_null(tiny_run: TinyRun, store: Store) -> None:
    parents = served_artifacts(tiny_run.artifacts)
    table = export_recommendations(store, ExportSettings(), parents, ComputeSettings(threads=1)).read(domain="books")
    names = ["because_of", "because_of_domains", "because_of_shares", "evidence_share"]
    assert [table[name].null_count for name in names] == [table.num_rows] * 4


def test_reasons_are_the_largest_shares_of_the_evidence_and_say_where_they_are(
    served: Served, recommender: Recommender
) -> None:
    for user in served.users("books"):
        history = served.history(user)
        dots = served.dots("books", served.vectors["books", "user", user])
        for row in recommender.for_user("books", user, 99, len(history)).items:
            place = served.items("books").index(row.item)
            shares = {item: served.evidence("books", [item])[place] for item in history}
            total = sum(shares.values())
            assert row.why is not None
            assert {part.item for part in row.why.because_of} == {item for item in history if shares[item] > 0}
            assert sum(part.share for part in row.why.because_of) == pytest.approx(1.0 if total else 0.0)
            for part in row.why.because_of:
                assert part.share == pytest.approx(shares[part.item] / total, rel=1e-5)
                assert part.domains == [d for d, pairs in served.train.items() if (user, part.item) in pairs]
            assert [part.share for part in row.why.because_of] == sorted(
                (part.share for part in row.why.because_of), reverse=True
            )
            weighted = 2.0 * max(len(history), 1) ** 0.5 * total
            assert row.why.evidence == pytest.approx(weighted / (weighted + abs(dots[place])), rel=1e-4, abs=1e-6)
            assert row.why.vectors + row.why.evidence == pytest.approx(1.0)


def test_few_reasons_are_the_first_of_many(recommender: Recommender) -> None:
    few, many = (recommender.for_user("books", "u0001", 9, reasons).items for reasons in (REASONS, 99))
    for row, other in zip(few, many, strict=True):
        assert row.why is not None
        assert other.why is not None
        assert row.why.because_of == other.why.because_of[:3]


def test_where_vectors_are_served_alone_no_item_is_a_reason(recommender: Recommender) -> None:
    rows = recommender.for_user("games", "u0001", 3, REASONS).items
    assert [row.why for row in rows] == [([], 1.0, 0.0)] * 3


def test_a_batch_is_each_users_own_list(served: Served, recommender: Recommender) -> None:
    users = [*served.users("films"), "nobody"]
    found = recommender.for_users("films", users, 4, REASONS)
    assert found["nobody"] is None
    assert [found[user] for user in users[:-1]] == [
        recommender.for_user("films", user, 4, REASONS) for user in users[:-1]
    ]


def test_a_user_of_another_domain_is_ranked_by_what_evidence_says_from_there(cinema: TinyRun) -> None:
    recommender, served = Recommender(cinema.artifacts), Served(cinema.artifacts)
    for user in ("fay", "gus"):
        assert user not in served.users("books")
        found = recommender.for_user("books", user, 9, REASONS)
        weights = {"vectors": 0.0}
        scores = served.blended("books", np.zeros(5), served.history(user), weights)
        degrees = [sum(item == known for _, known in served.train["books"]) for item in served.items("books")]
        order = sorted(range(5), key=lambda place: (-scores[place], -degrees[place], place))
        assert [row.item for row in found.items] == [served.items("books")[place] for place in order]
        assert [row.score for row in found.items] == pytest.approx([scores[place] for place in order])
        assert found.by == "evidence"
        for row in found.items:
            reasons = {"fay": {"f1"}, "gus": {"b1", "f3"}}[user]
            assert (row.why is None) == (row.score == 0.0)
            assert row.why is None or {part.item for part in row.why.because_of} <= reasons
            assert row.why is None or (row.why.vectors, row.why.evidence) == (0.0, 1.0)


def test_where_vectors_are_served_alone_a_user_of_another_domain_is_still_ranked_by_evidence(cinema: TinyRun) -> None:
    """Cat's books lead to b1 and f1 alike, of which more people see f1."""
    found = Recommender(cinema.artifacts).for_user("films", "cat", 3)
    assert (found.by, [row.item for row in found.items]) == ("evidence", ["f1", "b1", "f2"])
    assert found.items[0].score == found.items[1].score > 0


def test_a_user_from_whose_items_no_walk_leads_here_gets_what_is_popular(cinema: TinyRun) -> None:
    found = Recommender(cinema.artifacts).for_user("books", "hal", 3, REASONS)
    assert found.by == "popularity"
    assert [(row.item, row.score, row.why) for row in found.items] == [
        ("b1", 2.0, None), ("b2", 2.0, None), ("b3", 2.0, None)
    ]  # fmt: skip


def test_without_evidence_a_user_of_another_domain_is_unknown(vector_run: TinyRun) -> None:
    recommender = Recommender(vector_run.artifacts)
    films = set(recommender.catalogue("films").user_ids.to_pylist())
    stranger = min(films - {*recommender.catalogue("books").user_ids.to_pylist()})
    with pytest.raises(UnknownError, match="is not in domain 'books'"):
        recommender.for_user("books", stranger, 3)


def test_a_user_without_train_items_is_ranked_by_vectors(store: Store) -> None:
    log = {**LOG, "books": [*LOG["books"], ("new", "b1", "test")]}
    artifacts = exported(build(store, log), "cold", {"books": (0.0, 2.0), "films": (1.0, 1.0)})
    found, served = Recommender(artifacts).for_user("books", "new", 9, REASONS), Served(artifacts)
    assert_same(found, served.ranked("books", served.dots("books", served.vectors["books", "user", "new"]), set()))
    assert found.by == "vectors"
    assert {row.why for row in found.items if row.why is None or row.why.because_of} == set()


def test_a_new_users_list_is_vectors_of_the_domains_items_and_evidence_of_all(
    tiny_run: TinyRun, served: Served
) -> None:
    recommender, books = Recommender(tiny_run.artifacts), DomainScorers(tiny_run.artifacts)["books"]
    given = ["i0002", "i0000", "i0008-1", "i0002", "zz"]
    assert "i0008-1" not in served.items("books")
    found = recommender.for_new_user("books", given, 99, REASONS)
    places = np.array([served.items("books").index(item) for item in ("i0000", "i0002")])
    vector = fold_in(books.catalogue, [places])[0]
    scores = served.blended("books", served.dots("books", vector), ["i0000", "i0002", "i0008-1"])
    assert_same(found, served.ranked("books", scores, {"i0000", "i0002"}))
    assert (found.by, found.used, found.ignored) == ("blend", ["i0000", "i0002", "i0008-1"], {"zz": []})
    named = {part.item: part.domains for row in found.items if row.why for part in row.why.because_of}
    assert named["i0008-1"] == ["films"]
    assert named["i0000"] == [domain for domain in served.train if "i0000" in served.items(domain)]


def test_a_new_user_with_items_of_other_domains_only_is_ranked_by_evidence(tiny_run: TinyRun, served: Served) -> None:
    found = Recommender(tiny_run.artifacts).for_new_user("books", ["i0008-1"], 99, REASONS)
    scores = served.blended("books", np.zeros(len(served.items("books"))), ["i0008-1"], {"vectors": 0.0})
    assert (found.by, found.used, found.ignored) == ("evidence", ["i0008-1"], {})
    assert {row.item: row.score for row in found.items if row.score} == pytest.approx(
        {item: score for item, score in zip(served.items("books"), scores, strict=True) if score}
    )


def test_a_new_users_items_say_nothing_where_no_walk_starts_from_them(cinema: TinyRun) -> None:
    recommender = Recommender(cinema.artifacts)
    assert recommender.for_new_user("books", ["b1", "f4"], 3).ignored == {"f4": ["films"]}
    with pytest.raises(UnknownError, match=r"none of the new user's items is in .* 'f4' is in films only"):
        recommender.for_new_user("books", ["f4"], 3)


def test_a_domain_served_by_vectors_alone_ignores_what_other_domains_have(cinema: TinyRun) -> None:
    recommender = Recommender(cinema.artifacts)
    found = recommender.for_new_user("films", ["f1", "b2"], 3)
    assert (found.by, found.used, found.ignored) == ("vectors", ["f1"], {"b2": ["books"]})
    assert recommender.for_new_user("films", ["b2"], 3).by == "evidence"


def test_similar_items_blend_cosines_with_walks_from_the_item(served: Served, recommender: Recommender) -> None:
    for item in served.items("books"):
        vectors = np.array([served.vectors["books", "item", other] for other in served.items("books")])
        directions = vectors / np.linalg.norm(vectors, axis=1)[:, None]
        cosines = directions @ directions[served.items("books").index(item)]
        weights = {"evidence": 2.0 * cosines.std() / 0.5, "spread": cosines.std()}
        found = recommender.similar("books", item, 99, REASONS)
        assert_same(found, served.ranked("books", served.blended("books", cosines, [item], weights), {item}))
        assert found.by == "blend"
        assert {part.item for row in found.items if row.why for part in row.why.because_of} <= {item}


def test_where_walks_stay_in_their_domain_histories_do_too(cinema: TinyRun, store: Store) -> None:
    walked = {role: cinema.artifacts[role] for role in ("nodes", "graph")}
    apart = NeighboursSettings(scope="domain")
    made = {**cinema.artifacts, "neighbours": build_neighbours(store, apart, walked, ComputeSettings(threads=1))}
    recommender = Recommender(made)
    assert recommender.for_user("books", "gus", 3).by == "popularity"
    rows = recommender.for_user("books", "ann", 9, REASONS).items
    assert {(part.item, *part.domains) for row in rows if row.why for part in row.why.because_of} == {
        ("b1", "books"), ("b2", "books")
    }  # fmt: skip


def test_evidence_is_read_when_the_first_domain_is_opened(tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    scorers = DomainScorers(tiny_run.artifacts)
    assert scorers.have_evidence
    monkeypatch.setattr("model.serving.scorer._load_blends", lambda artifacts: opened.append("blends") or {})
    assert scorers["books"].blend is scorers["games"].blend is None
    assert opened == ["blends"]


def test_recommend_says_why(cinema: TinyRun, capsys) -> None:
    arguments = ["recommend", "cinema", "--store", str(cinema.store), "--domain", "books", "--top", "2", "--why"]
    assert edda(*arguments, "--user", "ann") == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [len(row) for row in rows] == [4, 4]
    assert rows[0][3] == "because of b2 (books) 37 %, b1 (books) 31 %, f1 (films) 31 %; vectors 3 %, evidence 97 %"
    assert edda(*arguments, "--user", "hal") == 0
    out, err = capsys.readouterr()
    assert [line.split("\t")[3] for line in out.splitlines()] == ["popular", "popular"]
    assert err == "user 'hal' is in other domains only and has no vector in 'books': ranked by popularity\n"
    assert edda(*arguments, "--user", "fay", "--json") == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["by"], found["score"]) == ("evidence", "evidence")
    because = {"item": "f1", "domains": ["films"], "share": 1.0}
    assert found["items"][0]["why"] == {"because_of": [because], "vectors": 0.0, "evidence": 1.0}
    assert "ranked by walks from the items in other domains" in err


def test_recommend_tells_when_a_new_user_has_no_vector(cinema: TinyRun, capsys) -> None:
    arguments = ["recommend", "cinema", "--store", str(cinema.store), "--domain", "books", "--new-user", "f1"]
    assert edda(*arguments) == 0
    assert (
        capsys.readouterr().err
        == "no item given is in domain 'books': ranked by walks from the items in other domains\n"
    )
