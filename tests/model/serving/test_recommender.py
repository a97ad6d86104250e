import json

import numpy as np
import pyarrow as pa
import pytest
from fake_stages import edda
from tiny_world import TinyRun, build

from data_contracts.store.store import Store
from model.serving.catalogue import Catalogue, find_numbers, open_catalogue
from model.serving.exact import fold_in, similar_items, top_items_for_users
from model.serving.ids import UnknownError
from model.serving.recommender import Recommender
from model.serving.scorer import DomainScorer, DomainScorers

IDS = [f"i{number}" for number in range(5)]


def catalogue(items: list[list[float]], users: list[list[float]], known: list[list[int]]) -> Catalogue:
    indptr = np.cumsum([0, *map(len, known)])
    flat = np.array([item for row in known for item in row], np.int32)
    ids = pa.array(IDS[: len(items)], pa.large_string())
    vectors = np.array(users, np.float32).reshape(len(known), len(items[0])), np.array(items, np.float32)
    names = pa.array([f"u{number}" for number in range(len(known))], pa.large_string())
    return Catalogue("books", names, ids, *vectors, indptr, flat, np.bincount(flat, minlength=len(items)))


def scorer(items: list[list[float]], users: list[list[float]], known: list[list[int]]) -> DomainScorer:
    return DomainScorer(catalogue(items, users, known), None)


def test_the_best_items_leave_out_known_ones_and_go_by_number_where_equal() -> None:
    books = scorer([[1], [3], [2], [3], [3]], [[1], [-1]], [[1], []])
    items, scores = top_items_for_users(books, np.array([0, 1]), 3)
    assert items.tolist() == [[3, 4, 2], [0, 2, 1]]
    assert scores.tolist() == [[3, 3, 2], [-1, -2, -3]]


def test_where_too_few_are_left_there_is_no_item() -> None:
    books = scorer([[1], [2]], [[1]], [[0]])
    assert top_items_for_users(books, np.array([0]), 9)[0].tolist() == [[1, -1]]


def test_best_items_do_not_depend_on_the_block(tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    books = DomainScorers(tiny_run.artifacts)["books"]
    whole = top_items_for_users(books, np.arange(30), 5)[0].tolist()
    monkeypatch.setattr("model.sparse.rows._BLOCK_BYTES", 4 * 20 * 7)
    assert top_items_for_users(books, np.arange(30), 5)[0].tolist() == whole


def test_similar_items_go_by_the_angle_and_not_by_length() -> None:
    found = similar_items(scorer([[1, 0], [9, 9], [0.1, 0.01], [0, 0]], [[1, 0]], [[0]]), 0, 4)
    assert found.items.tolist() == [2, 1, 3]
    assert found.scores == pytest.approx([0.1 / np.hypot(0.1, 0.01), 0.5**0.5, 0], abs=1e-6)
    assert found.cosines.tolist() == found.scores.tolist()


def test_a_new_user_is_one_normalised_step_scaled_to_trained_users() -> None:
    books = catalogue([[1, 0], [0, 1], [1, 1]], [[4, 0], [8, 8]], [[0], [0, 1]])
    steps = np.array([[1 / 2**0.5, 0], [1 / 2, 1 / 2**0.5]])  # degrees of the items: 2, 1, 0
    factor = (steps * books.users).sum() / (steps**2).sum()
    new = factor * (books.items[1] / 1 + books.items[2] / 1) / 2**0.5
    assert fold_in(books, [np.array([1, 2])])[0] == pytest.approx(new)


def test_without_trained_users_a_new_ones_vector_is_the_step_itself() -> None:
    books = catalogue([[2, 0]], [], [])
    assert fold_in(books, [np.array([0])]).tolist() == [[2, 0]]


def test_ids_are_found_by_their_order_and_strangers_are_not() -> None:
    ids = pa.array(["", "a", "é", "😀"], pa.large_string())
    wanted = ["😀", "a", "b", "", "\ud800", "z" * 9999]
    assert find_numbers(ids, np.arange(4), wanted).tolist() == [3, 1, -1, 0, -1, -1]
    order = np.array([2, 0, 3, 1])
    assert find_numbers(ids.take([1, 3, 0, 2]), order, wanted).tolist() == [1, 0, -1, 2, -1, -1]


def test_a_graph_of_other_nodes_is_refused(tiny_run: TinyRun, store: Store) -> None:
    other = build(store, {"books": [("u", "i", "train")]}).parents["graph"]
    with pytest.raises(ValueError, match=r"graph rows are \(30, 20, 2\), must be \(30, 20, 50\); export the run again"):
        open_catalogue({**tiny_run.artifacts, "graph": other}, "books")


def test_a_users_items_folded_in_lie_near_the_users_own_vector(tiny_run: TinyRun) -> None:
    books = open_catalogue(tiny_run.artifacts, "books")
    histories = [books.known[books.indptr[user] : books.indptr[user + 1]] for user in range(30)]
    folded = fold_in(books, histories)
    cosines = (folded * books.users).sum(1) / np.linalg.norm(folded, axis=1) / np.linalg.norm(books.users, axis=1)
    assert cosines.mean() > 0.5  # after two epochs; of strangers it is about 0


def test_a_new_users_own_items_are_left_out_and_unknown_ones_reported(vector_run: TinyRun) -> None:
    recommender = Recommender(vector_run.artifacts)
    found = recommender.for_new_user("games", ["i0002", "i0000", "i0002", "i0008-0", "zz"], 99)
    assert found.used == ["i0000", "i0002"]
    assert found.ignored == {"i0008-0": ["books"], "zz": []}
    assert {row.item for row in found.items} == {*recommender.catalogue("games").item_ids.to_pylist()} - {*found.used}


def test_a_new_user_without_any_item_of_the_domain_is_an_error(vector_run: TinyRun) -> None:
    with pytest.raises(UnknownError, match=r"none of the new user's items is in domain 'games' .* in books only"):
        Recommender(vector_run.artifacts).for_new_user("games", ["i0008-0"], 3)
    with pytest.raises(UnknownError, match="near 'i00001': i0001"):
        Recommender(vector_run.artifacts).for_new_user("games", ["i00001"], 3)


def test_recommend_prints_rank_item_and_score(vector_run: TinyRun, capsys) -> None:
    expected = Recommender(vector_run.artifacts).for_user("books", "u0001", 2).items
    arguments = ["recommend", "vectors", "--store", str(vector_run.store), "--domain", "books", "--top", "2"]
    assert edda(*arguments, "--user", "u0001") == 0
    assert capsys.readouterr().out == "".join(f"{row.rank}\t{row.item}\t{row.score:.4f}\n" for row in expected)
    assert edda(*arguments, "--user", "u0001", "--why") == 0
    assert capsys.readouterr().out.splitlines()[0].split("\t")[3] == "vectors 100 %, evidence 0 %"
    assert edda(*arguments, "--like", "i0001", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["like"], found["by"], found["score"]) == ("i0001", "vectors", "cosine")
    assert [row["rank"] for row in found["items"]] == [1, 2]
    assert "why" not in found["items"][0]


def test_recommend_takes_a_new_users_items_in_any_form(vector_run: TinyRun, capsys) -> None:
    arguments = ["recommend", "vectors", "--store", str(vector_run.store), "--domain", "games", "--json"]
    assert edda(*arguments, "--new-user", "i0000,i0002", "--new-user", "i0008-0") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["used"] == ["i0000", "i0002"]
    assert err == "ignored: 'i0008-0' is not in domain 'games', it is only in books\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--domain", "book", "--user", "u0001"], "domain 'book' is unknown; known: books, films, games"),
        (["--domain", "Games ", "--user", "u0001"], "domain 'Games ' is unknown, did you mean 'games'? known: books, "),
        (["--domain", "games", "--user", " U0001"], "user ' U0001' is not in domain 'games' (8 users); near: u0001"),
        (["--domain", "games", "--user", "u00001"], "user 'u00001' is not in domain 'games' (8 users); near: u0001, "),
        (["--domain", "games", "--user", "\udcff"], r"user '\udcff' is not in domain 'games' (8 users); near: "),
        (["--domain", "games", "--like", "x" * 99], f"item '{'x' * 60}'… is not in domain 'games' (10 items); near: "),
    ],
)
def test_recommend_names_what_is_unknown(tiny_run: TinyRun, capsys, arguments, message) -> None:
    assert edda("recommend", "tiny", "--store", str(tiny_run.store), *arguments) == 1
    assert message in capsys.readouterr().err


def test_recommend_wants_exactly_one_to_recommend_for(tiny_run: TinyRun, capsys) -> None:
    assert edda("recommend", "tiny", "--domain", "books") == 2
    assert edda("recommend", "tiny", "--domain", "books", "--user", "u", "--like", "i") == 2
    assert "found --user and --like, must be exactly one" in " ".join(capsys.readouterr().err.split())
