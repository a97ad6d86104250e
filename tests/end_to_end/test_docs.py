"""The site builds without warnings and loads nothing from the network; the examples of the Python page work."""

import importlib.util
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class LoadedAddresses(HTMLParser):
    """Addresses that a browser loads when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag in ("script", "img", "iframe"):
            self.addresses.append(attributes.get("src") or "")
        elif tag == "link" and attributes.get("rel") in ("stylesheet", "preconnect", "preload"):
            self.addresses.append(attributes.get("href") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("material")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    pytest.importorskip("material")
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "site" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_load_nothing_from_the_network(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 12
    for page in pages:
        loaded = LoadedAddresses()
        loaded.feed(page.read_text())
        assert loaded.addresses
        assert [address for address in loaded.addresses if re.match("(https?:)?//", address)] == []


def test_generated_pages_have_every_key_column_and_command(site):
    from data_contracts.contracts import CONTRACTS
    from flows.cli.main import app
    from flows.config.errors import known_keys
    from flows.config.run_config import RunConfig

    settings, artifacts, commands = (
        (site / f"{name}.html").read_text() for name in ("settings", "artifacts", "commands")
    )
    assert [key for key in known_keys(RunConfig) if key[-1] not in settings] == []
    for contract in CONTRACTS.values():
        assert f'id="{contract.name}"' in artifacts
        assert [column.name for column in contract.columns if f"<code>{column.name}</code>" not in artifacts] == []
    names = [name for name in app if not name.startswith("-")]
    assert len(names) > 10
    assert [name for name in names if f'id="edda-{name}"' not in commands] == []


def test_the_licences_of_all_dependencies_are_listed(hooks):
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in hooks.licences_page().splitlines()[5:]]
    listed = {name: (version, licence, use) for name, version, licence, use in rows}
    assert {name for name, (_, licence, _) in listed.items() if licence == "not declared"} == set()
    assert listed["numpy"][1].startswith("BSD-3-Clause")
    assert listed["duckdb"][1] == "MIT License"
    assert (listed["duckdb"][2], listed["pytest"][2]) == ("EDDA", "development, extras")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = {re.match(r"[\w-]+", requirement)[0] for requirement in project["dependencies"]}
    assert {name for name in direct if listed[name][2] != "EDDA"} == set()


def test_formulas_are_drawn(site):
    page = (site / "method.html").read_text()
    source = (ROOT / "docs" / "method.md").read_text()
    assert page.count('<svg role="img"') == source.count("```math") > 5
    assert "```" not in page


def test_navigation_skips_missing_pages_and_puts_unknown_ones_last(hooks):
    assert hooks.navigation({"index.md", "operate/storage.md", "novel.md"}) == [
        {"Start": ["index.md"]}, {"Operate": ["operate/storage.md"]}, {"More": ["novel.md"]},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("[a](faq.md#data) [b](../ARCHITECTURE.md#ingest)", "[a](faq.md#data) [b](architecture.md#ingest)"),
        ("[code](../pipeline/pairs.py) [top](../README.md#start)", "code [top](index.md)"),
        ("[soon](operate/updating.md) [wrong](updatign.md)", "soon [wrong](updatign.md)"),
        ("```python polars", "```python"),
        ("https://a.b ![picture](x.png) [web](https://c.d/e)", "https://a.b ![picture](x.png) [web](https://c.d/e)"),
    ],
)
def test_links_lead_to_pages_of_the_site_or_become_text(hooks, written, shown):
    from mkdocs.structure.files import File, Files

    pages = [File(name, "", "", use_directory_urls=False) for name in ("index.md", "faq.md", "architecture.md")]
    page = SimpleNamespace(file=pages[1])
    assert hooks.on_page_markdown(written, page, Files(pages)) == shown


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_pages_of_the_repository_link_to_files_that_exist(name):
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", (ROOT / name).read_text())
    assert [target for target in targets if not (ROOT / target).exists()] == []
    assert targets or name == "CHANGELOG.md"


def test_no_generated_page_is_kept_in_the_repository():
    assert {"settings.md", "artifacts.md", "commands.md", "functions.md", "licences.md"}.isdisjoint(
        path.name for path in (ROOT / "docs").rglob("*.md")
    )


def test_examples_of_the_python_page_print_what_it_shows(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = _BLOCK.findall((ROOT / "docs" / "python.md").read_text())
    assert [kind for kind, _ in blocks] == ["python", "text"] * (len(blocks) // 2)
    names: dict[str, object] = {}
    for (_, code), (_, expected) in zip(blocks[::2], blocks[1::2], strict=True):
        exec(compile(code, "docs/python.md", "exec"), names)
        assert capsys.readouterr().out == expected
