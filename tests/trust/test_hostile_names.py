"""Ids and domains with control and bidirectional characters steer no terminal and no page."""

from __future__ import annotations

import unicodedata

import pytest
from fake_stages import edda
from tiny_world import build, exported

from data_contracts.store.runs import RunRecord
from data_contracts.store.store import Store
from flows.config.run_config import load_config

RED = "\x1b]0;owned\x07\x1b[31mred\n"
TURNED = "\u202eturned\u2066\u200f\x9b31m"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A run of two domains, all of whose names are hostile."""
    folder = tmp_path_factory.mktemp("names")
    (folder / "run.toml").write_text('name = "tiny"\n[[logs]]\npath = "logs.csv"\ndomain = "d"\n')
    splits = ["train"] * 6 + ["valid", "test"]
    log = {
        domain: [
            (f"u{user}{RED}", f"i{(user + step) % 9}{TURNED}", splits[step]) for user in range(8) for step in range(8)
        ]
        for domain in (RED, TURNED)
    }
    store = Store(folder / "store")
    artifacts = exported(build(store, log), "tiny", dict.fromkeys(log, (1.0, 1.0)))
    config = load_config(folder / "run.toml").model_dump(mode="json")
    store.link_run(RunRecord.build("tiny", artifacts, config=config))
    return store


def steering(text: str) -> set[str]:
    """Characters of a text that steer a terminal, other than line ends and tabs."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") and c not in "\n\t"}


@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "tiny"],
        ["inspect", "tiny", "--json"],
        ["inspect", "tiny/interactions", "--head", "5"],
        ["inspect", "tiny", "--sql", "select * from nodes"],
        ["inspect", "tiny", "--sql", "select * from nodes", "--json"],
        ["inspect", "tiny", "--sql", f"select '{RED}' as {TURNED}"],
        ["inspect", f"{TURNED}/nodes"],
        ["recommend", "tiny", "--domain", RED, "--user", f"u1{RED}", "--why"],
        ["recommend", "tiny", "--domain", RED, "--user", f"u1{RED}", "--json"],
        ["recommend", "tiny", "--domain", TURNED, "--like", f"i1{TURNED}"],
        ["recommend", "tiny", "--domain", TURNED, "--new-user", f"i1{TURNED},x{RED}"],
        ["recommend", "tiny", "--domain", TURNED, "--user", RED],
        ["recommend", "tiny", "--domain", f"{RED}?", "--user", RED],
        ["index", "tiny"],
    ],
)
def test_a_command_prints_no_character_that_steers_a_terminal(store, capsys, command):
    edda(*command, "--store", str(store))
    said = capsys.readouterr()
    assert steering(said.out + said.err) == set()
    assert "\\u" in said.out + said.err


def test_the_report_has_no_such_character(store, tmp_path):
    assert edda("report", "tiny", "--store", str(store), "--output", str(tmp_path / "report.html")) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert steering(page) == set()
    assert "\\u001b[31mred" in page
