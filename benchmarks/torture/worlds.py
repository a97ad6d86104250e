"""Degenerate worlds through every stage and every baseline, and hostile ids and names of domains."""

# mypy: ignore-errors
from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

from commands import Case, edda, verdict

from data_contracts.store.store import Store

RUN = 'name = "r"\n[train]\nepochs = 1\nwidth = 4\n[evaluate]\nresamples = 5\n[compute]\nthreads = 1\n'
HEAD = "user_id,item_id\n"


def rows(*pairs: tuple[object, object]) -> str:
    """A log."""
    return HEAD + "".join(f"{user},{item}\n" for user, item in pairs)


WORLDS: dict[str, dict[str, str]] = {
    "one row": {"a": rows(("u", "i"))},
    "one user": {"a": rows(*(("u", item) for item in range(30)))},
    "one item": {"a": rows(*((user, "i") for user in range(30)))},
    "one item in two domains": {name: rows(*((user, "i") for user in range(30))) for name in "ab"},
    "one user in two domains": {name: rows(*(("u", f"{name}{item}") for item in range(30))) for name in "ab"},
    "one domain": {"a": rows(*((n % 9, n * n % 13) for n in range(80)))},
    "one domain is empty": {"a": rows(*((n % 9, n * n % 13) for n in range(80))), "b": HEAD},
    "all domains are empty": {"a": HEAD, "b": HEAD},
    "empty files": {"a": "", "b": ""},
    "the same row a hundred times": {"a": rows(*[("u", "i")] * 100)},
    "everybody has everything": {"a": rows(*((n // 8, n % 8) for n in range(64)))},
    "nobody shares anything": {name: rows(*((f"{name}{n}", f"{name}{n}") for n in range(40))) for name in "ab"},
    "equal domains": {name: rows(*((n % 9, n * n % 13) for n in range(80))) for name in "abc"},
    "one row beside many": {"a": rows(*((n % 9, n * n % 13) for n in range(80))), "b": rows((1, 1))},
}

IDS = [
    "../../etc/passwd", "<script>alert(1)</script>", "' or 1=1 --", "\"; drop table nodes; --", "=cmd|' /C calc'!A0",
    "a\u202eb", "\u200b", "é", "e\u0301", "\x1b[31mred\x1b[0m", "a\tb", "x" * 20_000, "☃" * 500, "NaN", "null", "-0",
    "1e999", "{{7*7}}", "%s%n", "$(touch /tmp/edda-touched)", "&amp;", "\ufeffmark", "0x10", " ", "a\x7fb", "\x85",
]  # fmt: skip
DOMAINS = [
    "..", ".", "a/b", "../up", "a\\b", "CON", "x" * 300, "漢" * 30, "macro", "a=b", "%2e%2e", "<b>", "a b", " ", "-",
    "*", "a\u202eb", "\x1b[31m", "'", '"', "a\nb", "__HIVE_DEFAULT_PARTITION__", "~", "$HOME", "all",
]  # fmt: skip
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069]")


def run_worlds(folder: Path, names: list[str], baselines: str) -> Iterator[Case]:
    """A run of each world with alignment, then its baselines; both are harmless or refused in one line."""
    for number, name in enumerate(names):
        home = folder / str(number)
        _write_logs(home, WORLDS[name])
        made = edda(home, "run", "run.toml", "--no-prefect", "--set", "train.alignment=0.1")
        yield "worlds: stages", name, verdict(made), made.stderr[-1000:]
        compared = edda(home, "compare", "run.toml", "--no-prefect", f"--baselines{baselines}", seconds=900)
        yield "worlds: baselines", name, verdict(compared), compared.stderr[-1000:]


def _write_logs(home: Path, logs: dict[str, str]) -> None:
    home.mkdir(parents=True)
    tables = []
    for domain, text in logs.items():
        (home / f"{domain}.csv").write_text(text)
        tables.append(f'[[logs]]\npath = "{domain}.csv"\ndomain = "{domain}"\n')
    (home / "run.toml").write_text(RUN + "".join(tables))


def run_hostile_ids(folder: Path, draw: random.Random) -> Iterator[Case]:
    """All hostile ids in one log: they come back unchanged, and none reaches a terminal or the report as it is."""
    home, quoted = folder / "ids", ['"' + text.replace('"', '""') + '"' for text in IDS]
    pairs = [(user, item) for user in quoted for item in draw.sample(quoted, 6)]
    _write_logs(home, {"a": rows(*pairs)})
    made = edda(home, "run", "run.toml", "--no-prefect")
    if made.returncode:
        yield "hostile: ids", "run", verdict(made), made.stderr[-1000:]
        return
    store = Store(home / "edda-store")
    ids = set(store.recorded(store.run("r"))["nodes"].read(["id"])["id"].to_pylist())
    report = (home / "edda-store/runs/r/report.html").read_text()
    for text in IDS:
        is_kept = text in ids or text.strip() != text or text.startswith("\ufeff")
        asked = edda(home, "recommend", "r", "--store", "edda-store", "--domain", "a", "--user", text)
        said = asked.stdout + asked.stderr
        is_raw = bool(CONTROL.search(said)) or "<script>" in report.split("<body", 1)[-1].replace("<script>\n", "")
        outcome = "WRONG" if not is_kept or is_raw else verdict(asked)
        yield "hostile: ids", repr(text[:30]), outcome, said[-500:]


def run_hostile_domains(folder: Path, count: int, draw: random.Random) -> Iterator[Case]:
    """A name in a log's column is a domain or is refused; nothing is written outside the store."""
    for number, name in enumerate(draw.sample(DOMAINS, min(count, len(DOMAINS)))):
        home = folder / f"domain-{number}"
        home.mkdir(parents=True)
        quoted = name.replace('"', '""')
        lines = "".join(f'{n % 9},{n * n % 13},"{quoted}"\n' for n in range(60))
        (home / "log.csv").write_text(f"user_id,item_id,d\n{lines}")
        table = '[[logs]]\npath = "log.csv"\ncolumns = {domain = "d"}\n'
        (home / "run.toml").write_text(RUN + table)
        made = edda(home, "run", "run.toml", "--no-prefect")
        around = {path.name for path in home.iterdir()} | {path.name for path in folder.iterdir()}
        strangers = {each for each in around if not re.fullmatch(r"ids|domain-\d+|log.csv|run.toml|edda-store", each)}
        is_raw = CONTROL.search(made.stdout + made.stderr)
        outcome = "WRONG" if strangers or is_raw else verdict(made)
        yield "hostile: domains", repr(name[:30]), outcome, f"{strangers or ''} {made.stderr[-500:]}"
