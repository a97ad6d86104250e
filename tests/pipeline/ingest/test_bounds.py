"""Memory is bounded by `compute.memory_mib` and a constant, whatever a log holds."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from raw_logs import PAIR, RawLogs, parquet, source

from data_contracts.contracts import INTERACTIONS
from data_contracts.settings.ingest import IngestSettings
from data_contracts.settings.logs import Columns, LogSource
from pipeline.ingest.inputs import ingest_inputs
from pipeline.logs.discovery import LogError

MEMORY_MIB, CONSTANT_MIB = 256, 512
PEAK = """
import json, sys
from pathlib import Path
sys.path[:0] = json.loads(sys.argv[3])
from raw_logs import RawLogs, source
from data_contracts.settings.machine import ComputeSettings
compute = ComputeSettings(threads=2, memory_mib=int(sys.argv[2]))
reasons = RawLogs(Path(sys.argv[1])).ingest(source("*"), compute)["rejects"].statistics["reasons"]
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps([int(peak.split()[1]) >> 10, reasons]))
"""
HEADER, RECORD = b"user_id,item_id\n", b'{"user_id": "u", "item_id": "i"}\n'


@pytest.fixture
def world(tmp_path: Path) -> RawLogs:
    return RawLogs(tmp_path)


def test_memory_does_not_grow_with_what_a_small_file_stands_for(world: RawLogs) -> None:
    """A line of 128 MiB, 16 Mi empty ones, 200,000 broken ones, wide and nested ones, 1 GB in a dictionary."""
    mebibyte = 1 << 20
    texts = {
        "zeros.csv": [HEADER, b"\0" * (128 * mebibyte), b"\nu,i\n"],
        "empty.csv": [HEADER, b"\n" * (16 * mebibyte), b"u,j\n"],
        "broken.jsonl": [RECORD, b"x\n" * 200_000],
        "commas.csv": [HEADER, b"," * (15 * mebibyte), b"\n", b'a,b,"' + b'""' * (7 * mebibyte) + b'"\n'],
        "objects.jsonl": [RECORD, b"{broken\n", RECORD[:-2], b', "x": [', b'{"":0},' * mebibyte, b"0]}\n"],
    }
    for name, content in texts.items():
        world.put(f"{name}.gz", gzip.compress(b"".join(content), 1))
    items = pa.DictionaryArray.from_arrays(np.arange(10_000, dtype=np.int32) % 2, ["i" * 100_000, "j"])
    pq.write_table(pa.table({"user_id": ["u"] * 10_000, "item_id": items}), world.logs / "dictionary.parquet")
    command = [sys.executable, "-c", PEAK, str(world.logs.parent), str(MEMORY_MIB), json.dumps(sys.path)]
    peak, reasons = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert reasons == {"arity": 2, "length": 1, "syntax": 200_001}
    assert peak < MEMORY_MIB + CONSTANT_MIB


SHORT_LINES = {"line_bytes_at_most": 1024}


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_longer_lines_are_rejects_with_the_start_of_their_text(world: RawLogs, name: str) -> None:
    """A line of 1,024 bytes is not too long, whatever its line end."""
    end = {"a.csv": b"u,%s", "a.tsv": b"u\t%s", "a.jsonl": b'{"user_id": "u", "item_id": "%s"}'}[name]
    lines = [end % (b"i" * (length - len(end) + 2)) for length in (1024, 1025, 300_000)]
    start = [HEADER.replace(b",", b"\t") if name == "a.tsv" else HEADER] if name != "a.jsonl" else []
    world.put(name, b"".join([*start, *(line + b"\n" for line in lines)]))
    first = len(start) + 1
    assert len(world.rows(source(name), "item_id", **SHORT_LINES)) == 1
    texts = [(first + row, "length", lines[row][:500].decode()) for row in (1, 2)]
    assert world.rejects(source(name), **SHORT_LINES) == texts


def test_longer_rows_of_parquet_are_rejects(world: RawLogs) -> None:
    items = pa.array(["a" * 1023, "b" * 1024, None, "c"]).dictionary_encode()
    world.put("a.parquet", parquet(user_id=["u"] * 4, item_id=items))
    assert world.rows(source("a.parquet"), *PAIR, **SHORT_LINES) == [("u", "a" * 1023), ("u", "c")]
    assert world.rejects(source("a.parquet"), **SHORT_LINES) == [(2, "length", ""), (3, "missing", "u\t")]


def test_the_longest_line_changes_keys_only_where_it_is_set() -> None:
    """So that artifacts of versions without the setting keep their keys."""
    assert ingest_inputs(INTERACTIONS, IngestSettings(), [])["settings"].keys().isdisjoint(SHORT_LINES)
    assert ingest_inputs(INTERACTIONS, IngestSettings(**SHORT_LINES), [])["settings"]["line_bytes_at_most"] == 1024


@pytest.mark.parametrize("rows", [64, 5000])
def test_blank_lines_are_counted_but_not_read(world: RawLogs, rows: int) -> None:
    blank = b"\n\r\n" * rows
    world.put("a.csv", HEADER + blank + b"u,i\nbroken\n" + blank)
    world.put("b.jsonl", RECORD + b" \t\r\n" * rows + b"{broken\n")
    assert world.rejects(source("*")) == [(2 * rows + 3, "arity", "broken"), (rows + 2, "syntax", "{broken")]


def test_an_error_shows_the_start_of_a_long_header(world: RawLogs) -> None:
    world.put("a.csv", ",".join(f"column{number}" for number in range(50_000)) + "\n")
    world.put("b.parquet", parquet(**{f"column{number}": [1] for number in range(500)}))
    for name, width in (("a.csv", "50,000"), ("b.parquet", "500")):
        with pytest.raises(LogError, match=rf"one of .*column0, column1, .*… \({width} in all\), occurring") as error:
            world.ingest(source(name))
        assert len(str(error.value)) < 1000


def test_a_header_has_at_most_a_mebibyte(world: RawLogs) -> None:
    world.put("a.csv", b"user_id,item_id" + b"," * (1 << 20) + b"\nu,i\n")
    with pytest.raises(LogError, match="the header has more than 1,048,576 bytes; if the file has no header"):
        world.ingest(source("a.csv"))


def test_files_of_many_columns_are_read_line_by_line(world: RawLogs) -> None:
    columns = ",".join("1" * 5000)
    world.put("a.csv", f"u,i,{columns}\nv,{columns}\nw,j,{columns}\n")
    wide = LogSource(path="a.csv", header=False, domain="d", columns=Columns(user=0, item=1))
    assert world.rows(wide, *PAIR) == [("u", "i"), ("w", "j")]
