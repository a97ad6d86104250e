"""What `edda init` guesses from the first rows of a log, and that the file that it writes can be run."""

import gzip
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_stages import edda

from flows.config.first_run import guess_log, write_first_run
from flows.config.log_head import read_head
from flows.config.run_config import load_config
from pipeline.logs.discovery import LogError

START = 1_700_000_000
ROWS = [(f"k{n % 12}", f"Bär {n * 7 % 10}", 1 + n % 5, START + 3600 * n) for n in range(120)]
"""Users, items, ratings, seconds."""


def delimited(delimiter: str, header: str, times: list[str] | None = None) -> str:
    """The rows, by default with their seconds."""
    texts = times or [str(seconds) for *_, seconds in ROWS]
    lines = [
        delimiter.join((user, item, str(rating), time))
        for (user, item, rating, _), time in zip(ROWS, texts, strict=True)
    ]
    return "\n".join([*([header] if header else []), *lines]) + "\n"


ISO = [f"2024-05-{1 + n // 24:02}T{n % 24:02}:30:00Z" for n in range(120)]
GERMAN = [f"{1 + n // 24:02}.05.2024 {n % 24:02}:30" for n in range(120)]
BRITISH = [f"{13 + n // 24}/05/2024" for n in range(120)]
NAMED = {"user": "user", "item": "item", "timestamp": "ts"}
JSON = "".join(f'{{"user": "{u}", "item": "{i}", "market": "m{t % 2}", "ts": {t}, "m": [1]}}\n' for u, i, _, t in ROWS)

CASES: list[tuple[str, bytes, dict[str, Any], dict[str, str]]] = [
    ("orders.csv", delimited(",", "customer_id,sku,stars,created_at", ISO).encode(), {},
     {"user": "customer_id", "item": "sku", "rating": "stars", "timestamp": "created_at"}),
    ("bestellungen.csv", delimited(";", "Kunde;Artikel;Bewertung;Datum", GERMAN).encode("cp1252"),
     {"encoding": "cp1252", "delimiter": ";", "timestamp_format": "%d.%m.%Y %H:%M"},
     {"user": "Kunde", "item": "Artikel", "rating": "Bewertung", "timestamp": "Datum"}),
    ("kasse.csv", ("Bestellnr;Bestelldatum;Kundennummer;Artikelnummer;Abteilung;Preis\r\n" + "".join(
        f"{1000 + n};{time[:10]};{u};{i};{'Küche' if n % 3 else 'Bücher'};{n},{n % 100:02}\r\n"
        for n, ((u, i, _, _), time) in enumerate(zip(ROWS, GERMAN, strict=True)))).encode("cp1252"),
     {"encoding": "cp1252", "delimiter": ";", "timestamp_format": "%d.%m.%Y"},
     {"user": "Kundennummer", "item": "Artikelnummer", "domain": "Abteilung", "timestamp": "Bestelldatum"}),
    ("quoted.csv", b'"User-ID";"ISBN";"Book-Rating"\r\n'
     + b'"276725";"034545104X";"0"\r\n"276726";"0155061224";"5"\r\n' * 20,
     {"delimiter": ";"}, {"user": "User-ID", "item": "ISBN", "rating": "Book-Rating"}),
    ("british.csv", delimited(",", "user,item,x,date", BRITISH).encode(), {"timestamp_format": "%d/%m/%Y"},
     {"user": "user", "item": "item", "timestamp": "date"}),
    ("utf16.txt", delimited("\t", "userId\titemId\tx\tts").encode("utf-16"),
     {"encoding": "utf-16", "format": "csv", "delimiter": "\t"},
     {"user": "userId", "item": "itemId", "timestamp": "ts"}),
    ("clicks.tsv.gz", gzip.compress(delimited("\t", "", ISO).encode(), mtime=0), {"header": False},
     {"user": "0", "item": "1", "timestamp": "3"}),
    ("ratings.dat", delimited("::", "").encode(), {"format": "csv", "delimiter": "::", "header": False},
     {"user": "0", "item": "1", "timestamp": "3"}),
    ("bars.csv", delimited("|", "u|i|r|t").encode(), {"delimiter": "|"}, {"user": "u", "item": "i", "timestamp": "t"}),
    ("events.jsonl", JSON.encode(), {}, {"user": "user", "item": "item", "domain": "market", "timestamp": "ts"}),
    ("events.log", JSON.encode(), {"format": "jsonl"},
     {"user": "user", "item": "item", "domain": "market", "timestamp": "ts"}),
    ("breaks.csv", ("user,item,text,ts\n"
     + "".join(f'{u},{i},"a\nb, ""c""",{t}\n' for u, i, _, t in ROWS)).encode(), {}, NAMED),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "keys", "columns"), CASES, ids=[case[0] for case in CASES])
def test_form_and_columns_are_guessed_and_the_file_that_is_written_runs(
    tmp_path: Path, monkeypatch: Any, name: str, content: bytes, keys: dict[str, Any], columns: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    guess = guess_log(read_head(Path(name)))
    assert (guess.keys, guess.columns) == (keys, columns)
    assert edda("init", name, "--output", "run.toml") == 0
    lines = Path("run.toml").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 14
    assert edda("ingest", "run.toml") == 0
    (rejects,) = Path("edda-store/rejects").iterdir()
    statistics = json.loads((rejects / "manifest.json").read_text())["statistics"]
    assert statistics["raw_rows"] == guess.head.rows.num_rows
    assert set(statistics["reasons"]) <= {"rating", "cold"}


def test_parquet_is_guessed_by_its_schema_and_units_of_several_logs_are_made_one(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    times = pa.array([seconds * 10**9 for *_, seconds in ROWS], pa.timestamp("ns"))
    table = pa.table({"reviewerID": [row[0] for row in ROWS], "asin": [row[1] for row in ROWS], "time": times})
    pq.write_table(table, "a.parquet")
    Path("b*.csv").write_text(delimited(",", "user,item,stars,ts"))
    assert edda("init", "a.parquet", "b*.csv", "--name", "shop") == 0
    config = load_config(Path("shop.toml"))
    assert [source.timestamp_format for source in config.logs] == ["ns", "s"]
    assert [source.domain for source in config.logs] == ["a", "b*"]
    assert [source.rating_at_least for source in config.logs] == [None, 4]
    assert config.ingest.split.method == "leave-last-out"
    assert edda("ingest", "shop.toml") == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.zip", b"PK\x03\x04", "is a zip archive"),
        ("a.json", b'[{"user": 1}]', "is a JSON array"),
        ("a.csv", b"", "has 0 rows"),
        ("a.csv", b"user,item\n", "has 0 rows"),
        ("a.csv", b"x\n1\n2\n", "of 1 columns, must have rows of at least 2"),
        ("a.jsonl", b'{"a": {"user": 1}, "b": [1]}\n' * 9, "of 0 columns"),
        ("b.csv", None, "is not there, must be a file"),
        ("a.jsonl", b'{\n "user": 1\n}\n', "no line is a JSON object, must be JSON lines: one object a line"),
        ("a.jsonl", b"{'user': 1, 'item': 2}\n", "no line is a JSON object"),
        ("a.jsonl", b'{"a":' * 5000 + b"1" + b"}" * 5000, "no line is a JSON object"),
        ("a.csv.gz", b"user,item\nu,i\n", r"is not compressed by gzip, its name must not end with \.gz"),
    ],
)
def test_what_is_no_log_gets_the_right_word(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(LogError, match=message):
        guess_log(read_head(tmp_path / name))


def test_ids_whose_columns_have_no_name_are_marked_to_be_checked(tmp_path: Path, monkeypatch: Any) -> None:
    """The number of the row is no user, although it has the most values."""
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("nr,wer,was,wie\n" + "".join(f"{n},p{n % 12},q{n % 7},x\n" for n in range(90)))
    assert edda("init", "a.csv") == 0
    text = Path("a.toml").read_text()
    assert 'columns = { user = "wer", item = "was" }  # CHECK: user, item guessed from values' in text
    assert tomllib.loads(text)["ingest"]["split"]["method"] == "random"


LAST_TWO = "a user's last two are held out"


@pytest.mark.parametrize(
    ("times", "form", "note"),
    [
        (["03.11.24", "13.11.25"], "%d.%m.%y", f"{LAST_TWO}; or random, time, given"),
        (["11/23/24 10:15", "01/02/24 11:30"], "%m/%d/%y %H:%M", f"{LAST_TWO}; or random, time, given"),
        (
            ["03.11.2024", "11/23/2024"],
            None,
            'no column of times: "ts" of "a.csv" is not in one known format; or given; leave-last-out and time need '
            "columns.timestamp",
        ),
    ],
)
def test_years_of_two_digits_are_years_of_ours_and_times_that_cannot_be_read_are_said(
    tmp_path: Path, times: list[str], form: str | None, note: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user,item,ts\n" + "".join(f"u{n % 9},i{n % 7},{times[n % 2]}\n" for n in range(60)))
    guess = guess_log(read_head(path))
    assert guess.keys.get("timestamp_format") == form
    assert f"  # {note}\n" in write_first_run([guess], "a", tmp_path)


def test_prices_are_no_ids_and_columns_that_may_name_domains_are_shown(tmp_path: Path) -> None:
    """Prices have the most values; the gift is a sentence of its own each time, and the day a number."""
    path = tmp_path / "a.csv"
    lines = (
        f"p{n % 12};q{n % 7};{n},{10 + n};{['Bücher', 'Filme', 'Haus'][n % 3]};für {n};{n % 2}\n" for n in range(90)
    )
    path.write_text("wer;was;Euro;Welt;Geschenk;Tag\n" + "".join(lines), encoding="utf-8")
    guess = guess_log(read_head(path))
    assert (guess.columns, guess.unsure) == ({"user": "wer", "item": "was"}, ("user", "item"))
    text = write_first_run([guess], "a", tmp_path)
    assert 'domain = "a"  # or columns.domain, which names it; perhaps Welt (3 values)\n' in text


def test_a_file_is_overwritten_only_by_force(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text(delimited(",", "user,item,stars,ts"))
    Path("a.toml").write_text("mine")
    assert edda("init", "a.csv") == 1
    assert "a.toml is there already, is not overwritten without --force" in capsys.readouterr().err
    assert Path("a.toml").read_text() == "mine"
    assert edda("init", "a.csv", "--force") == 0
    assert load_config(Path("a.toml")).name == "a"
    log = Path("a.csv").read_text()
    assert edda("init", "a.csv", "--output", "./a.csv", "--force") == 1
    assert capsys.readouterr().err.endswith(
        "init: a.csv is a log, must not be overwritten; name another file by --output\n"
    )
    assert Path("a.csv").read_text() == log
    assert edda("init", "a.csv", "--name", "b/a") == 1
    assert "init: --name is 'b/a', must be letters, digits" in capsys.readouterr().err
    assert edda("init") == 1
    assert edda("init", "a.csv", "a.csv", "--force") == 1
    assert capsys.readouterr().err.endswith("init: a.csv is named twice, must be named once\n")


def test_files_that_are_called_alike_are_domains_named_by_their_folders(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("books", "films"):
        Path(folder).mkdir()
        Path(folder, "2024.csv").write_text(delimited(",", "user,item,stars,ts"))
    Path("other.csv").write_text(delimited(",", "user,item,stars,ts"))
    assert edda("init", "books/2024.csv", "films/2024.csv", "other.csv", "--name", "all") == 0
    domains = [source.domain for source in load_config(Path("all.toml")).logs]
    assert domains == ["books-2024", "films-2024", "other"]


def test_names_of_columns_are_a_header_where_ids_are_words(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,item\n" + "anna,dune\nbob,emma\n" * 9)
    guess = guess_log(read_head(tmp_path / "a.csv"))
    assert (guess.columns, guess.keys) == ({"user": "user", "item": "item"}, {})
    (tmp_path / "b.csv").write_text("eve,emma\n" + "anna,dune\nbob,emma\n" * 9)
    assert read_head(tmp_path / "b.csv").keys == {"header": False}


def test_times_outside_the_calendar_are_said(tmp_path: Path) -> None:
    times = pa.array([-(10**17)] * 9, pa.timestamp("us"))
    pq.write_table(pa.table({"user": ["u"] * 9, "item": ["i"] * 9, "time": times}), tmp_path / "a.parquet")
    with pytest.raises(LogError, match=r"a\.parquet has a time before year 1 or after 9999"):
        read_head(tmp_path / "a.parquet")


def test_bytes_that_no_delimiter_splits_are_refused_by_their_own_name(tmp_path: Path) -> None:
    content = np.random.default_rng(7).integers(0, 256, 3_000, np.uint8).tobytes()
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(LogError, match=r"a\.csv: has no delimiter .* must be CSV, TSV or JSON lines$"):
        read_head(tmp_path / "a.csv")
