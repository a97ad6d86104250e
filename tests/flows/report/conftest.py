"""Finished runs to report, whose names and ids are full of markup; tests leave them as they are."""

import json
from pathlib import Path

import pytest
from tiny_world import random_log

from flows.config.run_config import load_config
from flows.runner.execute import run_stages
from flows.runner.lookup import RunView, find_run

ODD = "<b>&'$x_1$"
"""Part of a domain's and of every id's name: markup for HTML and for matplotlib."""

RUN = """
name = "{name}"
[[logs]]
path = "log.csv"
columns = {{ domain = "domain" }}
[train]
width = 8
epochs = 3
{train}
[evaluate]
resamples = 20
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, a log of three domains, and the finished runs `r` and, domains alone, `alone`."""
    folder = tmp_path_factory.mktemp("report")
    names = {"books": f"books {ODD}", "films": "films", "games": "games"}
    sizes = {"books": (30, 20, 260), "films": (16, 14, 120), "games": (8, 10, 50)}
    log = random_log(1, sizes)
    rows = [f"{user}{ODD},{item}{ODD},{names[domain]}" for domain in log for user, item, _ in log[domain]]
    (folder / "log.csv").write_text("\n".join(["user_id,item_id,domain", *rows, rows[0]]) + "\n")
    for name, train in (("r", "alignment = 0.3"), ("alone", 'tables = "intra"')):
        (folder / f"{name}.toml").write_text(RUN.format(name=name, train=train))
        run_stages(load_config(folder / f"{name}.toml", [f"store={json.dumps(str(folder / 'store'))}"]))
    return folder


@pytest.fixture
def run(folder: Path) -> RunView:
    return find_run("r", str(folder / "store"))


@pytest.fixture(scope="session")
def updated(folder: Path) -> RunView:
    """The same as run `u`, updated with a user of one domain and with another domain."""
    rows = (folder / "log.csv").read_text()
    (folder / "u.toml").write_text(RUN.format(name="u", train="alignment = 0.3"))
    run_stages(load_config(folder / "u.toml", store := [f"store={json.dumps(str(folder / 'store'))}"]))
    nodes = find_run("u", str(folder / "store")).artifacts["nodes"].read(["kind", "id"], domain="games").to_pylist()
    known = next(node["id"] for node in nodes if node["kind"] == "item")
    (folder / "log.csv").write_text(f"{rows}new,{known},games\n" + "".join(f"t{n},t,toys\n" for n in range(9)))
    run_stages(load_config(folder / "u.toml", [*store, "update=true"]))
    (folder / "log.csv").write_text(rows)
    return find_run("u", str(folder / "store"))
