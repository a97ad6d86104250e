"""Allow and deny lists, the items file, and the popularity fallback, over the service."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from tiny_world import TinyRun

pytest.importorskip("uvicorn")

from data_contracts.store.runs import generation_id
from data_contracts.store.store import Store
from flows.config.run_config import load_config
from flows.runner.lookup import RunView
from flows.serve.items_file import ItemsFile
from flows.serve.served_run import RunSource, _say_unknown_ids, read_lists
from model.serving.recommender import Recommender
from tests.flows.serve.http_service import Service, running

PNG = bytes.fromhex("89504e470d0a1a0a")
BANNED = ["i0001", "i0003"]


@pytest.fixture(scope="module")
def recommender(tiny_run: TinyRun) -> Recommender:
    return Recommender(tiny_run.artifacts)


@pytest.fixture(scope="module")
def service(tiny_run: TinyRun, recommender: Recommender, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The tiny run with an items file, in which even items of books are dramas, and two items that are never listed."""
    folder = tmp_path_factory.mktemp("service")
    books = recommender.catalogue("books").item_ids.to_pylist()
    rows = [f'{item},"Title, {item}",{genre(item)},{item}.png' for item in books]
    (folder / "items.csv").write_text("\n".join(["id,title,genre,picture", *rows]))
    (folder / "i0000.png").write_bytes(PNG)
    (folder / "deny.txt").write_text("\ufeff" + "\r\n".join([*BANNED, "unheard-of", ""]), "utf-8")
    options = ("--items", str(folder / "items.csv"), "--deny", str(folder / "deny.txt"))
    with running("tiny", tiny_run.store, folder, *options) as service:
        yield service


def genre(item: str) -> str:
    return "drama" if int(item[1:5]) % 2 == 0 else "comedy"


def listed(service: Service, query: str = "", path: str = "recommendations/books/u0001") -> list[str]:
    reply = service.ask(f"/v1/{path}?top=1000{query}")
    assert reply.status == 200
    return [row["item"] for row in reply.body["items"]]


@pytest.fixture(scope="module")
def whole(recommender: Recommender) -> list[str]:
    """The list without the filters of the service."""
    return [row.item for row in recommender.for_user("books", "u0001", 1_000).items]


def test_denied_items_are_never_listed(service: Service, whole: list[str]) -> None:
    assert listed(service) == [item for item in whole if item not in BANNED]
    assert set(listed(service, path="similar/books/i0000")).isdisjoint(BANNED)
    asked = {"domain": "books", "items": ["i0000"], "top": 1_000, "allow": [*BANNED, "i0002"]}
    assert [row["item"] for row in service.ask("/v1/new-user", "POST", asked).body["items"]] == ["i0002"]


def test_a_request_may_allow_and_deny(service: Service, whole: list[str]) -> None:
    rest = [item for item in whole if item not in BANNED]
    assert listed(service, f"&allow={rest[4]}&allow={rest[1]}&allow=x") == [rest[1], rest[4]]
    assert listed(service, f"&deny={rest[0]}&deny=x") == rest[1:]
    assert listed(service, f"&allow={rest[4]}&deny={rest[4]}") == []


def test_a_request_may_choose_by_columns_of_the_items_file(service: Service, whole: list[str]) -> None:
    dramas = [item for item in whole if genre(item) == "drama" and item not in BANNED]
    assert listed(service, "&where=genre:drama") == dramas
    assert listed(service, "&where=genre:drama&where=genre:comedy") == [item for item in whole if item not in BANNED]
    assert listed(service, f"&where=genre:drama&where={quote(f'title:Title, {dramas[2]}')}") == [dramas[2]]
    assert listed(service, "&where=genre:opera") == []


def test_many_users_are_filtered_as_one_is(service: Service) -> None:
    asked = {"domain": "books", "users": ["u0001"], "top": 1_000, "where": {"genre": ["drama"]}, "deny": ["i0002"]}
    (row,) = service.ask("/v1/recommendations", "POST", asked).body["results"]
    assert [one["item"] for one in row["items"]] == listed(service, "&where=genre:drama&deny=i0002")


@pytest.mark.parametrize("query", ["&where=colour:red", "&where=id:i0001", "&where=picture:i0000.png"])
def test_an_unknown_column_is_422(service: Service, query: str) -> None:
    reply = service.ask(f"/v1/recommendations/books/u0001?top=3{query}")
    assert (reply.status, "must be one of title, genre" in reply.body["detail"]) == (422, True)


def test_an_unknown_user_gets_popular_items_where_that_is_asked_for(service: Service, recommender: Recommender) -> None:
    popular = [row.item for row in recommender.popular("books", 1_000).items if row.item not in BANNED]
    assert service.ask("/v1/recommendations/books/nobody").status == 404
    reply = service.ask("/v1/recommendations/books/nobody?fallback=popularity&top=5&why=true")
    assert (reply.body["by"], [row["item"] for row in reply.body["items"]]) == ("popularity", popular[:5])
    assert all(row["why"] is None for row in reply.body["items"])
    asked = {"domain": "books", "users": ["nobody", "u0001"], "fallback": "popularity"}
    assert [row["by"] for row in service.ask("/v1/recommendations", "POST", asked).body["results"]] == [
        "popularity",
        "blend",
    ]
    new = service.ask("/v1/new-user", "POST", {"domain": "books", "items": [], "fallback": "popularity"}).body
    assert (new["by"], new["used"], new["items"][0]["item"]) == ("popularity", [], popular[0])
    assert service.ask("/v1/recommendations/nowhere/nobody?fallback=popularity").status == 404


def test_the_service_may_fall_back_by_default(tiny_run: TinyRun, tmp_path: Path) -> None:
    with running("tiny", tiny_run.store, tmp_path, "--fallback", "popularity") as service:
        assert service.ask("/v1/recommendations/books/nobody").body["by"] == "popularity"
        assert service.ask("/v1/recommendations/books/nobody?fallback=none").status == 404


def test_details_come_from_the_items_file(service: Service) -> None:
    found = service.ask("/v1/details", "POST", {"items": ["i0001", "unheard-of"]}).body
    assert found == {"items": {"i0001": {"title": "Title, i0001", "picture": True, "columns": {"genre": "comedy"}}}}


def test_a_picture_is_sent_as_what_it_is(service: Service) -> None:
    reply = service.ask("/v1/pictures/i0000")
    assert (reply.status, reply.headers["Content-Type"]) == (200, "image/png")
    assert service.ask("/v1/pictures/i0001").status == 404  # no such file


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/passwd", "secret.txt", "http://x/y.png", "a\0.png", "link.png"]
)
def test_a_picture_is_a_file_beside_the_items_file_and_nothing_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.png").write_bytes(PNG)
    folder = tmp_path / "items"
    folder.mkdir()
    (folder / "secret.txt").write_text("x")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "items.csv").write_text(f"id,picture\ni1,{name}\n")
    items = ItemsFile(folder / "items.csv")
    assert (items.picture("i1"), items.details(["i1"])["i1"].has_picture) == (None, False)


def test_the_runs_file_may_name_the_items_file(tiny_run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "films.csv").write_text("id,title\ni0001,The First\n")
    (tmp_path / "run.toml").write_text('name = "tiny"\n[[logs]]\npath = "log.csv"\n[serve]\nitems = "films.csv"\n')
    config = load_config(tmp_path / "run.toml").model_dump(mode="json")
    view = RunView("tiny", Store(tiny_run.store), config, tiny_run.artifacts)
    items, allow, deny = read_lists(RunSource("tiny"), view)
    assert items is not None
    assert (items.details(["i0001"])["i0001"].title, allow, deny) == ("The First", None, [])


def test_the_items_file_is_no_part_of_a_generation(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('name = "tiny"\n[[logs]]\npath = "log.csv"\n')
    ids = {
        generation_id(load_config(tmp_path / "run.toml", overrides).model_dump(mode="json"))
        for overrides in ([], ["serve.items=films.csv"])
    }
    assert len(ids) == 1


def test_of_rows_with_one_id_the_first_counts(tmp_path: Path) -> None:
    (tmp_path / "items.tsv").write_text("title\titem_id\nB\tb\nA\ta\nother\tb\n")
    items = ItemsFile(tmp_path / "items.tsv")
    assert {item: row.title for item, row in items.details(["a", "b", "c"]).items()} == {"a": "A", "b": "B"}
    assert items.titled("O", 5) == ["b"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("items.csv", "sku,title\na,b\n", "no column of ids"),
        ("items.csv", "id,title\na\n", "cannot be read"),
        ("items.csv", "", "cannot be read"),
        ("items.csv", "id,id\na,b\n", "twice"),
        ("items.txt", "id\na\n", "must end in"),
        ("items.parquet", "PAR1", "cannot be read"),
        ("items.csv.gz", "\x1f", "cannot be read: .*; correct it, or copy it again"),
    ],
)
def test_a_file_that_is_none_is_refused_by_name(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        ItemsFile(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


def test_an_items_file_that_is_not_there_is_refused_without_a_number(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"items\.csv is not there, must be a CSV, TSV or Parquet file$"):
        ItemsFile(tmp_path / "items.csv")
    with pytest.raises(FileNotFoundError, match="is a folder, must be a CSV"):
        ItemsFile(tmp_path)


def test_rows_without_an_id_are_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "items.csv").write_text("id,title\na,A\n,B\n,C\n")
    assert ItemsFile(tmp_path / "items.csv").ids == ["a"]
    assert "2 rows have no id and are left out" in caplog.text


@pytest.mark.parametrize(
    ("ids", "level", "said"),
    [
        (["zz", "yy"], "WARNING", "--allow: none of 2 ids, such as 'zz' is an item of the run"),
        ([], "WARNING", "--allow: none of 0 ids is an item of the run"),
        (["i0001", "zz"], "INFO", "--allow: 1 of 2 ids are items of the run"),
    ],
)
def test_how_many_ids_of_a_list_are_items_of_the_run_is_said(
    recommender: Recommender, caplog: pytest.LogCaptureFixture, ids: list[str], level: str, said: str
) -> None:
    caplog.set_level("INFO")
    _say_unknown_ids({"books": recommender.catalogue("books")}, {"--allow": ids, "--deny": [], "the items file": None})
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [(level, said)]
