"""Ingest: the pipeline beside DuckDB and Polars, on the same logs, each in its own process, in the same run.

    python benchmarks/ingest.py                             # 1,000,000 and 10,000,000 rows, CSV.gz and Parquet
    python benchmarks/ingest.py --rows 1000000 --formats csv
    python benchmarks/ingest.py --unordered                 # the peers may leave rows in any order

Peers: `pip install duckdb polars`; a peer that is not installed is left out. The job: read a generated world's logs,
merge equal (domain, user, item) with their count and earliest time, number users and items by the rank of their id
among the sorted distinct ids of all domains, hold out 20 % of each user's pairs for test and 10 % for validation by a
hash, and write Parquet (zstd) partitioned by domain, in order of user and item. The pipeline also checks its contract,
keeps rejects, writes and verifies checksums, and hashes logs and results; the peers do not. Wall and CPU seconds are
the least of several repeats, in turns; memory is the peak resident size of the process.
"""

# mypy: ignore-errors
from __future__ import annotations

import argparse
import glob
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from data_contracts.settings.ingest import IngestSettings
from data_contracts.settings.logs import Columns, LogSource
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.world import WorldSettings
from data_contracts.store.store import Store

CONTENDERS = ("edda", "duckdb", "polars")
MEASURES = {"wall": "s wall", "cpu": "s CPU", "mib": "MiB"}
BY_PATH = r"/(?P<domain>[^/-]+)(?:-\d{5})?\.(?:csv\.gz|parquet)$"


def main() -> None:
    """Generate what is missing, measure, print."""
    options = parsed()
    if options.contender:
        print(json.dumps(measured(options)))
        return
    present = [name for name in CONTENDERS if name == "edda" or is_installed(name)]
    with tempfile.TemporaryDirectory(prefix="edda-ingest-", dir=options.folder) as scratch:
        results = {}
        for rows in options.rows:
            logs = world(rows, Path(options.worlds or scratch), options.threads)
            for form in options.formats:
                results[rows, form] = best(present, f"{logs / form}/*", Path(scratch), options)
    report(results, as_json=options.json)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--formats", nargs="+", default=["csv", "parquet"], choices=["csv", "parquet"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", type=int, default=ComputeSettings().memory_mib, help="the pipeline's setting, MiB")
    parser.add_argument("--unordered", action="store_true", help="let the peers skip the last sort")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", help="where results go; a temporary folder by default")
    parser.add_argument("--worlds", help="folder in which to keep the worlds for the next time; not kept by default")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--logs", help=argparse.SUPPRESS)
    return parser.parse_args()


def is_installed(name: str) -> bool:
    """Whether a peer can be imported; prints a line if not."""
    from importlib.util import find_spec

    if find_spec(name) is None:
        print(f"{name} is not installed and is left out", file=sys.stderr)
        return False
    return True


def world(rows: int, folder: Path, threads: int) -> Path:
    """A world of about `rows` interactions in four domains, as CSV.gz and as Parquet parts."""
    from pipeline.synthetic import make_world

    share = rows / 10_000_000
    settings = WorldSettings(
        domains=4,
        users=max(round(213_000 * share), 10),
        items=max(round(133_000 * share), 10),
        interactions=max(round(5_333_000 * share), 10),
        topics=100,
    )
    logs = make_world(Store(folder / "store"), settings, {}, ComputeSettings(threads=threads)).path / "logs"
    forms = folder / f"rows-{rows}"
    if not forms.exists():
        forms.mkdir()
        (forms / "csv").symlink_to(logs)
        as_parquet(logs, forms / "parquet")
    return forms


def as_parquet(logs: Path, folder: Path) -> None:
    """The same parts as Parquet."""
    folder.mkdir()
    for path in sorted(logs.iterdir()):
        with pa.input_stream(str(path), compression="gzip") as stream:
            types = {"user_id": pa.string(), "item_id": pa.string(), "timestamp": pa.int64()}
            table = arrow_csv.read_csv(stream, convert_options=arrow_csv.ConvertOptions(column_types=types))
        pq.write_table(table, folder / path.name.replace(".csv.gz", ".parquet"), compression="zstd")


def best(present: list[str], logs: str, scratch: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The least of every measure of every contender; contenders take turns."""
    results: dict[str, dict[str, float]] = {}
    for _ in range(options.repeats):
        for name in present:
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                arguments = ["--contender", name, "--logs", logs, "--folder", folder]
                machine = ["--threads", str(options.threads), "--memory", str(options.memory)]
                machine += ["--unordered"] * options.unordered
                environment = os.environ | {"POLARS_MAX_THREADS": str(options.threads)}
                command = [sys.executable, __file__, *arguments, *machine]
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
            run = json.loads(done.stdout)
            results[name] = {m: min(v, results.get(name, run)[m]) for m, v in run.items()}
    return results


def measured(options: argparse.Namespace) -> dict[str, float]:
    """One contender's wall and CPU seconds from its import on, peak memory, and rows written."""
    contender = {"edda": edda, "duckdb": duckdb, "polars": polars}[options.contender]
    wall, cpu = time.perf_counter(), time.process_time()
    rows = contender(options.logs, Path(options.folder) / "out", options)
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    status = Path("/proc/self/status").read_text()  # unlike ru_maxrss, not inherited from the parent process
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return seconds | {"mib": peak / 1024, "rows": rows}


def edda(logs: str, out: Path, options: argparse.Namespace) -> int:
    """The stage as a run calls it, from finding the logs to publishing the artifacts."""
    from pipeline.ingest.stage import ingest
    from pipeline.logs.discovery import find_logs

    source = LogSource(path=logs, columns=Columns(timestamp="timestamp"), path_pattern=BY_PATH)
    compute = ComputeSettings(threads=options.threads, memory_mib=options.memory)
    settings = IngestSettings(cold="keep")
    return ingest(Store(out), settings, find_logs([source], out), compute)["interactions"].manifest.rows


DUCKDB = r"""
CREATE TEMP TABLE pairs AS
    SELECT regexp_extract(filename, '/([^/-]+)(-[0-9]+)?\.(csv\.gz|parquet)$', 1) AS domain,
        user_id, item_id, min("timestamp") AS "timestamp", count(*)::INTEGER AS count
    FROM {reader} GROUP BY ALL;
CREATE TEMP TABLE users AS
    SELECT user_id, (row_number() OVER (ORDER BY user_id) - 1)::INTEGER AS "user"
    FROM (SELECT DISTINCT user_id FROM pairs);
CREATE TEMP TABLE items AS
    SELECT item_id, (row_number() OVER (ORDER BY item_id) - 1)::INTEGER AS item
    FROM (SELECT DISTINCT item_id FROM pairs);
COPY (
    SELECT * EXCLUDE (place, size), CASE
        WHEN place <= least(floor(size * 0.2 + 0.5), size - 1) THEN 'test'
        WHEN place <= least(floor(size * 0.3 + 0.5), size - 1) THEN 'valid' ELSE 'train' END AS split
    FROM (
        SELECT pairs.*, "user", item,
            row_number() OVER (PARTITION BY domain, user_id ORDER BY hash(domain, user_id, item_id, 2022)) AS place,
            count(*) OVER (PARTITION BY domain, user_id) AS size
        FROM pairs JOIN users USING (user_id) JOIN items USING (item_id)
    ) {order}
) TO '{out}' (FORMAT parquet, COMPRESSION zstd, PARTITION_BY (domain));
"""


def duckdb(logs: str, out: Path, options: argparse.Namespace) -> int:
    """One script of SQL in a database on disk, so that DuckDB may spill."""
    import duckdb as peer

    types = "{'user_id': 'VARCHAR', 'item_id': 'VARCHAR', 'timestamp': 'BIGINT'}"
    is_csv = glob.glob(logs)[0].endswith(".gz")  # noqa: PTH207 - the peers take globs as text
    reader = (
        f"read_csv('{logs}', header = true, columns = {types}, filename = true)"
        if is_csv
        else f"read_parquet('{logs}', filename = true)"
    )
    out.mkdir()
    with peer.connect(str(out.with_suffix(".duckdb"))) as connection:
        connection.execute(f"SET threads = {options.threads}")
        connection.execute(f"SET preserve_insertion_order = {not options.unordered}")
        order = "" if options.unordered else 'ORDER BY domain, "user", item'
        connection.execute(DUCKDB.format(reader=reader, out=out, order=order))
        return connection.execute("SELECT count(*) FROM pairs").fetchone()[0]


def polars(logs: str, out: Path, options: argparse.Namespace) -> int:
    """Lazy frames on the streaming engine; the merged pairs, which all later steps use, stay in memory."""
    import polars as pl

    is_csv = glob.glob(logs)[0].endswith(".gz")  # noqa: PTH207
    rows = (
        pl.scan_csv(logs, schema_overrides={"timestamp": pl.Int64}, include_file_paths="path")
        if is_csv
        else pl.scan_parquet(logs, include_file_paths="path")
    )
    domain = pl.col("path").str.extract(r"/([^/-]+)(?:-\d+)?\.(?:csv\.gz|parquet)$").cast(pl.Categorical)
    merged = rows.group_by(domain.alias("domain"), "user_id", "item_id").agg(
        pl.col("timestamp").min(), pl.len().cast(pl.Int32).alias("count")
    )
    pairs = merged.collect(engine="streaming").lazy()
    numbers = {
        kind: pairs.select(pl.col(f"{kind}_id").unique().sort()).with_row_index(kind).cast({kind: pl.Int32})
        for kind in ("user", "item")
    }
    size, place = pl.len().over("domain", "user"), pl.int_range(pl.len()).over("domain", "user")
    test, held_out = ((size * share + 0.5).floor().clip(None, size - 1) for share in (0.2, 0.3))
    split = pl.when(place < test).then(pl.lit("test")).when(place < held_out).then(pl.lit("valid"))
    numbered = pairs.join(numbers["user"], on="user_id").join(numbers["item"], on="item_id")
    hashed = numbered.with_columns(pl.struct("domain", "user_id", "item_id").hash(2022).alias("draw"))
    halves = hashed.sort("domain", "user", "draw").with_columns(split.otherwise(pl.lit("train")).alias("split"))
    numbered = halves.drop("draw")
    ordered = numbered if options.unordered else numbered.sort("domain", "user", "item")
    ordered.sink_parquet(
        pl.PartitionBy(out, key="domain", include_key=False), compression="zstd", mkdir=True, engine="streaming"
    )
    return pairs.select(pl.len()).collect().item()


def report(results: dict[tuple[int, str], dict[str, dict[str, float]]], *, as_json: bool) -> None:
    """Print every figure, its ratio to each peer's, and how the cost grows from the smallest job to the largest."""
    ratios = {
        f"{form}-{rows}": {
            f"{measure}_ratio_to_{peer}": runs["edda"][measure] / values[measure]
            for peer, values in runs.items()
            if peer != "edda"
            for measure in MEASURES
        }
        for (rows, form), runs in results.items()
    }
    least, most = min(rows for rows, _ in results), max(rows for rows, _ in results)
    growth = {
        form: {name: run["wall"] / results[least, form][name]["wall"] for name, run in results[most, form].items()}
        for rows, form in results
        if rows == most > least
    }
    if as_json:
        runs = {f"{form}-{rows}": run for (rows, form), run in results.items()}
        print(json.dumps({"runs": runs, "ratios": ratios, "growth": growth, "load": os.getloadavg()[0]}))
        return
    print(f"load average {os.getloadavg()[0]:.1f}")
    for (rows, form), runs in results.items():
        print(f"{rows:,} rows of {form}")
        for name, run in runs.items():
            figures = "  ".join(f"{run[measure]:9.2f} {unit}" for measure, unit in MEASURES.items())
            ratio = ", ".join(f"{runs['edda'][measure] / run[measure]:.2f}" for measure in MEASURES)
            print(f"  {name:7} {figures}  {run['rows']:,} pairs  " + f"edda / {name}: {ratio}" * (name != "edda"))
    for form, times in growth.items():
        print(f"{form}, {most:,} against {least:,} rows: " + ", ".join(f"{n} {t:.1f} x" for n, t in times.items()))


if __name__ == "__main__":
    main()
