"""The page at / in headless Chromium: what it shows, hostile ids, the keyboard, the token, and no other network."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from matplotlib.image import imread
from tiny_world import random_log

pytest.importorskip("uvicorn")

from flows.config.run_config import load_config
from flows.runner.execute import run_stages
from flows.serve.open_run import open_run
from model.serving.explanations import REASONS
from model.serving.recommender import Recommender
from tests.flows.serve.browser import Page, browser
from tests.flows.serve.http_service import Service, running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium"),
]

HOSTILE = """<img src=x onerror="document.title='hacked'">&'`/../%2F?#\u202e"""
"""Part of every id and of a domain's name: markup, paths, and a character that turns text around."""
SHOWN = HOSTILE.replace("\u202e", "\\u202e")
BOOKS = f"books {HOSTILE}"
TOKEN = "secret"

RUN = """
name = "shop"
[[logs]]
path = "log.csv"
columns = { domain = "domain" }
[train]
width = 8
epochs = 2
alignment = 0.3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, in it a run with aligned pairs, and an items file with titles of some of its items."""
    folder = tmp_path_factory.mktemp("page")
    log = random_log(1, {"books": (30, 20, 260), "films": (16, 14, 120), "games": (8, 10, 50)})
    rows = [
        [f"{user}{HOSTILE}", f"{item}{HOSTILE}", BOOKS if domain == "books" else domain]
        for domain in log
        for user, item, _ in log[domain]
    ]
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    (folder / "log.csv").write_text("\n".join(["user_id,item_id,domain", *quoted]) + "\n")
    (folder / "run.toml").write_text(RUN)
    run_stages(load_config(folder / "run.toml", [f"store={json.dumps(str(folder / 'store'))}"]))
    item = f"i0001{HOSTILE}".replace('"', '""')
    (folder / "items.csv").write_text(f'id,title,picture\n"{item}",The <b>First</b>,first.png\n')
    shutil.copy(Path(__file__).parents[3] / "docs/pictures/demo-ranking.png", folder / "first.png")
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    options = ("--items", str(folder / "items.csv"))
    with running("shop", folder / "store", folder / "service", *options, EDDA_SERVE_TOKEN=TOKEN) as service:
        yield service


@pytest.fixture(scope="module")
def recommender(folder: Path) -> Recommender:
    return open_run("shop", str(folder / "store"))


@pytest.fixture
def page(service: Service, tmp_path: Path) -> Iterator[Page]:
    """The page, open and with the token."""
    with browser(tmp_path / "profile") as page:
        page.open(f"http://127.0.0.1:{service.port}/docs")
        page.run(f"sessionStorage.setItem('edda-token', '{TOKEN}')")
        yield page
        assert page.complaints == []
        assert {address.split("/")[2] for address in page.requested if "://" in address} == {
            f"127.0.0.1:{service.port}"
        }


def visit(page: Page, service: Service, **query: str | list[str]) -> None:
    page.open(f"http://127.0.0.1:{service.port}/?{urlencode(query, doseq=True)}")
    page.wait("document.body.dataset.ready")


def texts(page: Page, selector: str) -> list[str]:
    """Texts of all elements that a selector finds."""
    found: list[str] = page.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((one) => one.innerText)")
    return found


def title(item: str) -> str:
    return "The <b>First</b>" if item == f"i0001{HOSTILE}" else item.replace("\u202e", "\\u202e")


def test_history_and_recommendations_of_a_user_are_those_of_the_run(
    page: Page, service: Service, recommender: Recommender
) -> None:
    user = f"u0001{HOSTILE}"
    visit(page, service, domain=BOOKS, user=user)
    ranked = recommender.for_user(BOOKS, user, 10).items
    assert texts(page, "#recommendations .title") == [title(row.item) for row in ranked]
    assert texts(page, "#recommendations .score") == [f"{row.score:.3f}" for row in ranked]
    known = []
    for name in recommender.domains:
        domain = recommender.catalogue(name)
        number = domain.user_ids.to_pylist().index(user)
        items = domain.known[domain.indptr[number] : domain.indptr[number + 1]]
        known += [title(domain.item_ids[item].as_py()) for item in items.tolist()]
    assert texts(page, "#history .chips button") == known
    assert texts(page, "#person-title") == [f"User u0001{SHOWN}"]
    assert page.run("document.title") == "EDDA recommendations"


def test_reasons_are_named_by_title_and_shares_are_drawn(
    page: Page, service: Service, recommender: Recommender
) -> None:
    with_reasons = 0
    for domain in recommender.domains:
        visit(page, service, domain=domain, user=f"u0001{HOSTILE}")
        expected = []
        for row in recommender.for_user(domain, f"u0001{HOSTILE}", 10, REASONS).items:
            assert row.why
            shares = f"vectors {row.why.vectors:.0%}, evidence from walks {row.why.evidence:.0%}".replace("%", " %")
            reasons = [
                f"{title(one.item)} ({', '.join(one.domains)}) {100 * one.share:.0f} %".replace("\u202e", "\\u202e")
                for one in row.why.because_of
            ]
            expected.append(f"{shares}; because of {', '.join(reasons)}" if reasons else shares)
            with_reasons += bool(reasons)
        assert [line.strip() for line in texts(page, "#recommendations .more")] == expected
        assert page.run("document.querySelectorAll('#recommendations meter').length") == len(expected)
    assert with_reasons > 0


def test_an_items_row_leads_to_what_is_like_it_and_to_its_partners(page: Page, service: Service) -> None:
    visit(page, service, domain=BOOKS, user=f"u0001{HOSTILE}")
    assert not texts(page, "#similar .title")
    page.run("document.querySelector('#history .chips button').click()")
    page.wait("document.querySelectorAll('#similar .title').length")
    assert "item=" in page.run("location.search")
    assert any("shared anchors:" in line for line in texts(page, "#aligned-items .more"))
    partners = texts(page, "#aligned-users .title")
    assert partners
    page.run("document.querySelector('#aligned-users .title').click()")
    page.wait(f"document.querySelector('#person-title').innerText === {json.dumps(f'User {partners[0]}')}")
    page.run("history.back()")
    page.wait(f"document.querySelector('#person-title').innerText === {json.dumps(f'User u0001{SHOWN}')}")


def test_a_new_user_is_clicked_together_and_taken_apart(page: Page, service: Service, recommender: Recommender) -> None:
    visit(page, service, domain=BOOKS, user=f"u0001{HOSTILE}")
    chosen = recommender.for_user(BOOKS, f"u0001{HOSTILE}", 1).items[0].item
    page.run("document.querySelector('#recommendations .actions button').click()")
    page.wait("document.querySelector('#person-title').innerText === 'A new user'")
    ranked = [title(row.item) for row in recommender.for_new_user(BOOKS, [chosen], 10).items]
    page.wait(f"document.querySelector('#recommendations .title')?.innerText === {json.dumps(ranked[0])}")
    assert texts(page, "#recommendations .title") == ranked
    page.run("document.querySelector('#history button').click()")
    page.wait("document.querySelector('#list-note').innerText === 'The most popular items of the domain.'")
    assert texts(page, "#history button") == []


def test_everything_can_be_reached_by_keyboard(page: Page, service: Service) -> None:
    visit(page, service, domain="games", user=f"u0001{HOSTILE}")
    page.run("document.querySelector('#item-search').focus()")
    for character in "i0003":
        page.press(character)
    page.wait("document.querySelectorAll('#items button').length === 1")
    page.press("Tab")
    page.press("Enter")
    page.wait("document.querySelector('#person-title').innerText === 'A new user'")
    order = []
    for _ in range(12):
        page.press("Tab")
        order.append(page.run("document.activeElement.closest('section, form')?.id"))
    assert order == sorted(order, key=["choice", "person", "list"].index)
    assert order[-1] == "list"


def test_titles_are_searched_and_pictures_shown(page: Page, service: Service) -> None:
    visit(page, service, domain=BOOKS, new=["", f"i0002{HOSTILE}"])
    page.run("document.querySelector('#item-search').focus()")
    for character in "first":
        page.press(character)
    page.wait("document.querySelectorAll('#items button').length === 1")
    assert texts(page, "#items button bdi") == ["The <b>First</b>"]
    visit(page, service, domain=BOOKS, user=f"u0001{HOSTILE}", item=f"i0002{HOSTILE}")
    page.wait("[...document.images].some((one) => one.src.startsWith('blob:') && one.naturalWidth > 0)")


def test_without_the_token_the_page_asks_for_it(service: Service, tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as page:
        visit(page, service)
        assert page.run("document.activeElement.id") == "token-text"
        for character in TOKEN:
            page.press(character)
        page.press("Enter")
        page.wait("document.querySelectorAll('#recommendations .title').length")
        assert page.run("document.querySelector('#token').hidden")


def test_an_unknown_user_gets_popular_items_and_the_reason_why_there_is_no_history(
    service: Service, tmp_path: Path
) -> None:
    with browser(tmp_path / "profile") as page:
        page.open(f"http://127.0.0.1:{service.port}/docs")
        page.run(f"sessionStorage.setItem('edda-token', '{TOKEN}')")
        visit(page, service, domain="games", user="nobody")
        assert texts(page, "#problem") == ["user 'nobody' is in none of the 3 domains"]


@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark_have_their_own_background(page: Page, service: Service, tmp_path: Path, dark: bool) -> None:
    page.open(f"http://127.0.0.1:{service.port}/?domain=games", dark=dark)
    page.wait("document.body.dataset.ready")
    page.screenshot(tmp_path / "page.png")
    assert (imread(tmp_path / "page.png")[-1, 0, :3].mean() < 0.2) == dark
