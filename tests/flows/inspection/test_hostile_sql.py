"""No statement writes, fetches or reads a file, whatever DuckDB knows."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pyarrow as pa
import pytest
from fake_stages import ROWS

from data_contracts.contracts import INTERACTIONS
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from flows.inspection.sql import QueryError, ask

SECRET = "precious"
SELECT = "(select 'gone' as word)"

WRITES = [
    f"copy {SELECT} to 'victim.txt' (format csv)",
    "copy interactions to 'new.parquet'",
    "copy interactions to 'folder' (format parquet, partition_by (domain))",
    *(f"with x as (copy {SELECT} to '{name}' (format {kind})) select 1"
      for name, kind in [("victim.txt", "csv"), ("new.parquet", "parquet"), ("new.json", "json"),
                         ("/tmp/edda-new", "csv"),
                         ("../outside.csv", "csv"), ("~/home.csv", "csv"), ("file:victim.txt", "csv"),
                         ("file://{here}/victim.txt", "csv"), ("/dev/stdout", "csv")]),
    f"with x as materialized (copy {SELECT} to 'victim.txt') from x",
    f"with x as not materialized (copy {SELECT} to 'victim.txt') from x",
    f"with recursive x as (copy {SELECT} to 'victim.txt') from x",
    f"with a as (select 1), x as (copy {SELECT} to 'victim.txt' (format csv)) select * from a",
    f"select * from (with x as (copy {SELECT} to 'victim.txt' (format csv)) select 1)",
    f"select (with x as (copy {SELECT} to 'victim.txt' (format csv)) select 1)",
    f"select 1 where exists (with x as (copy {SELECT} to 'victim.txt' (format csv)) select 1)",
    f"from query('with x as (copy {SELECT.replace(chr(39), chr(39) * 2)} to ''victim.txt'' (format csv)) select 1')",
    "with x as (copy interactions to 's3://bucket/x.csv') select 1",
    "with x as (copy interactions to '{url}/x.csv') select 1",
    "with x as (copy interactions from 'victim.txt') select 1",
    "with x as (insert into interactions select * from interactions returning *) from x",
    "with x as (update interactions set user_id = 'gone' returning *) from x",
    "with x as (delete from interactions returning *) from x",
    "insert into interactions select * from interactions", "delete from interactions",
    "update interactions set user_id = 'gone'", "truncate interactions", "drop view interactions",
    "create table t as select 1", "create view v as select 1", "create macro m() as 1", "create schema s",
    "create secret (type s3, key_id 'a', secret 'b')", "create persistent secret (type s3, key_id 'a', secret 'b')",
    "export database 'dump'", "export database 'dump' (format parquet)", "import database 'dump'",
    "attach 'new.db'", "attach 'victim.txt' as v", "attach ':memory:' as m", "attach '{url}/x.db' as remote",
    "attach 'x' (type sqlite)", "detach memory", "use memory", "checkpoint", "force checkpoint", "vacuum", "analyze",
    "prepare p as copy interactions to 'new.csv'", "execute p", "deallocate p",
    "explain analyze copy interactions to 'new.csv'", "explain select 1",
    "call enable_logging(storage_path = 'logs')", "from enable_logging(storage_path = 'logs')",
    "select 1; copy interactions to 'new.csv'", "begin; copy interactions to 'new.csv'; commit",
]  # fmt: skip
CONFIGURATION = [
    "install httpfs", "install httpfs from '{url}'", "force install json", "load httpfs", "load '{here}/victim.txt'",
    "update extensions", "from load_aws_credentials()", "from start_ui()", "from iceberg_scan('x')",
    "from delta_scan('x')", "from sqlite_scan('victim.txt', 't')",
    "from postgres_scan('host=localhost', 'public', 't')", "from st_read('x')",
    "from read_xlsx('x.xlsx')", "select getenv('HOME')", "set enable_external_access = true",
    "set lock_configuration = false", "reset lock_configuration", "set autoload_known_extensions = true",
    "set allow_unsigned_extensions = true", "set temp_directory = '{here}/spilled'", "set home_directory = '{here}'",
    "set extension_directory = '{here}/extensions'", "set secret_directory = '{here}/secrets'",
    "set allowed_directories = ['{here}']", "set allowed_paths = ['{here}/victim.txt']",
    "set custom_extension_repository = '{url}'", "set file_search_path = '{here}'", "set log_query_path = 'log.txt'",
    "set profiling_output = 'profile.json'", "set python_enable_replacements = true", "set variable v = 1",
    "pragma enable_profiling", "pragma profiling_output = 'profile.json'", "pragma export_database('dump')",
    "pragma import_database('dump')", "pragma add_parquet_key('k', '0123456789112345')", "pragma version",
    "from duckdb_secrets()", "from which_secret('s3://bucket/x', 's3')", "from duckdb_extensions()",
]  # fmt: skip
READS = [
    *(f"from {function}('victim.txt')"
      for function in ("read_csv", "read_csv_auto", "sniff_csv", "read_text", "read_blob", "read_json",
                       "read_json_auto",
                       "read_json_objects", "read_ndjson", "read_ndjson_auto",
                       "read_ndjson_objects", "read_parquet",
                       "parquet_scan", "parquet_metadata", "parquet_schema", "parquet_file_metadata",
                       "parquet_kv_metadata", "parquet_full_metadata", "read_duckdb", "glob")),
    "from parquet_bloom_probe('log.parquet', 'text', 'precious')",
    *(f"from '{name}'"
      for name in ("victim.txt", "log.parquet", "*.parquet", "victim.csv", "{here}/victim.csv", "file:victim.csv",
                   "/etc/passwd", "/proc/self/environ", "../*/victim.csv", "{url}/x.csv", "{url}/x.parquet",
                   "s3://bucket/x.parquet", "gs://bucket/x.parquet", "r2://bucket/x.parquet", "hf://datasets/a/b.csv",
                   "az://container/x.parquet", "https://localhost/x.json", "data:text/csv,a")),
    *(f"from {function}('{address}')"
      for function in ("read_csv", "read_parquet", "read_text", "read_json", "glob")
      for address in ("{url}/x", "s3://bucket/x", "/etc/passwd", "~/victim.txt")),
    'from "victim.csv"', "summarize 'victim.csv'", "describe 'victim.csv'", "describe from read_csv('victim.csv')",
    "from query('from read_text(''victim.txt'')')", "from query_table(['victim.csv'])",
    "from json_execute_serialized_sql(json_serialize_sql('from read_text(''victim.txt'')'))",
    "from read_csv(['victim.csv', 'victim.txt'])", "from read_text((select 'victim.txt'))",
    "select * from interactions, lateral (from read_text('victim.txt'))", "from glob('**')", "from glob('{here}/*')",
    "from pragma_storage_info('victim')", "from secret", "from frame", "from SECRET", "from rows",
]  # fmt: skip
HARMLESS = [
    "from duckdb_settings()", "from duckdb_databases()", "from duckdb_functions()", "from duckdb_temporary_files()",
    "from duckdb_logs()", "from duckdb_variables()", "from pragma_database_size()", "from information_schema.tables",
    "select current_setting('home_directory'), current_setting('extension_directory')", "select getvariable('v')",
    "select current_user, current_query(), version()", "from sql_auto_complete('from vic')", "show databases",
    "select write_log('gone')", "from checkpoint('memory')", "from force_checkpoint('memory')",
]  # fmt: skip
"""These may answer, about DuckDB itself."""


class _Site(HTTPServer):
    requests = 0


class _Handler(BaseHTTPRequestHandler):
    def _count(self) -> None:
        self.server.requests += 1  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a\n1\n")

    do_GET = do_HEAD = do_PUT = do_POST = _count  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[_Site]:
    site = _Site(("127.0.0.1", 0), _Handler)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    yield site
    site.shutdown()
    site.server_close()


@pytest.fixture(scope="module")
def interactions(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """An artifact in a folder with files that no query may touch."""
    folder = tmp_path_factory.mktemp("hostile") / "here"
    table = pa.table(ROWS["interactions"], INTERACTIONS.file_schema)
    made = Store(folder / "store").make(INTERACTIONS, {}, {}, lambda draft: draft.write(table, domain="books"))
    for name in ("victim.txt", "victim.csv"):
        (folder / name).write_text(f"{SECRET}\n{SECRET}\n")
    pa.parquet.write_table(pa.table({"text": [SECRET]}), folder / "log.parquet")
    return made


def _tree_digest(folder: Path) -> str:
    files = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*"))
    content = [(name, path.read_bytes() if path.is_file() else None, path.stat().st_mtime_ns) for name, path in files]
    return hashlib.sha256(repr(content).encode()).hexdigest()


def _answer(artifact: Artifact, sql: str) -> str:
    with ask({"interactions": artifact}, sql) as result:
        return repr([result.columns, *result.rows])


@pytest.fixture
def untouched(interactions: Artifact, site: _Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Check after the test that nothing has changed around the store, and that nobody has asked the web site."""
    folder = interactions.folder.parents[2]
    outside = (folder.parent, Path("/tmp/edda-new"))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{site.server_port}")
    before = _tree_digest(outside[0])
    yield {"here": str(folder), "url": f"http://127.0.0.1:{site.server_port}"}
    assert _tree_digest(outside[0]) == before
    assert not outside[1].exists()
    assert site.requests == 0


@pytest.mark.parametrize("sql", [*WRITES, *CONFIGURATION, *READS])
def test_statements_that_reach_outside_are_refused(interactions, untouched, sql):
    for name, value in untouched.items():
        sql = sql.replace(f"{{{name}}}", value)
    with pytest.raises(QueryError) as refused:
        _answer(interactions, sql)
    assert str(refused.value).count(SECRET) <= sql.count(SECRET)


@pytest.mark.parametrize("sql", HARMLESS)
def test_what_duckdb_says_about_itself_holds_nothing_of_files(interactions, untouched, sql):
    try:
        answer = _answer(interactions, sql)
    except QueryError as refused:
        answer = str(refused)
    assert SECRET not in answer
    assert "victim" not in answer


def test_the_table_of_statements_is_long_and_the_last_ones_can_fail(interactions, untouched):
    assert len({*WRITES, *CONFIGURATION, *READS}) >= 150
    assert _answer(interactions, "select user_id from interactions order by all") == "[('user_id',), ('u',), ('v',)]"
