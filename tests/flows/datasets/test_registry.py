import hashlib
import io
import json
import os
import re
import socket
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from fake_stages import edda

from flows.config.run_config import load_config
from flows.datasets.registry import Dataset, DatasetError, datasets, fetch, verify

CONTENT = b"user,item\n" * 100_000
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Server:
    """Files on loopback, which know ranges where they have an ETag; the first `cuts` answers break off half way."""

    def __init__(self) -> None:
        self.files = {"/a.csv": CONTENT}
        self.etag = '"1"'
        self.cuts = 0
        self.busy = 0
        self.knows_conditions = True
        self.asked: list[str] = []
        """Of every request where it wants the file from, `bytes=0-` where it does not say."""
        self.sent = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *arguments: object) -> None:
                """Silent."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.http.server_port}/"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        content = self.files.get(request.path, b"")
        wanted = request.headers.get("Range", "bytes=0-")
        self.asked.append(wanted)
        self.busy -= 1
        same = not self.knows_conditions or request.headers.get("If-Range") == self.etag
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if self.etag and same else 0
        status = (
            503 if self.busy >= 0 else 404 if not content else 416 if start > len(content) else 206 if start else 200
        )
        request.send_response(status)
        if status == 206:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.etag:
            request.send_header("ETag", self.etag)
        rest = content[start:] if status < 300 else b""
        request.send_header("Content-Length", str(len(rest)))
        request.end_headers()
        self.cuts -= status < 300
        self.sent += request.wfile.write(rest[: len(rest) // 2] if self.cuts >= 0 else rest)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("flows.datasets.download.time.sleep", lambda seconds: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Server()
    thread = Thread(target=running.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.http.shutdown()
    thread.join()
    running.http.server_close()


def dataset(**changes) -> Dataset:
    known = {
        "name": "d",
        "what": "a file",
        "page": "http://page",
        "folder": "D",
        "files": {"a.csv": DIGEST},
        "licence": "free",
        "citation": "nobody",
        "run": "amazon.toml",
    }
    return Dataset(**{**known, **changes})


def states(found: Dataset, root: Path) -> list[str]:
    return [state.state for state in verify(found, root)]


def test_a_file_is_fetched_checked_and_not_fetched_again(server, tmp_path):
    for _ in range(2):
        fetch(dataset(base=server.base), tmp_path)
    assert (tmp_path / "D/a.csv").read_bytes() == CONTENT
    assert (states(dataset(), tmp_path), server.asked) == (["good"], ["bytes=0-"])


def test_progress_counts_bytes(server, tmp_path):
    reports = []
    fetch(dataset(base=server.base), tmp_path, lambda *progress: reports.append(progress))
    byte_reports = [progress for progress in reports if progress[2] == "bytes"]
    assert byte_reports[-1] == (len(CONTENT), len(CONTENT), "bytes", "a.csv")
    assert reports[-1] == (1, 1, "files checked")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_broken_connection_goes_on_where_it_broke_off(server, tmp_path):
    server.cuts = 3
    fetch(dataset(base=server.base), tmp_path)
    assert (tmp_path / "D/a.csv").read_bytes() == CONTENT
    assert names(tmp_path / "D") == ["a.csv"]
    starts = [int(wanted[6:-1]) for wanted in server.asked]
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert server.sent < 1.5 * len(CONTENT)


@pytest.mark.parametrize("etag", ["", 'W/"1"'])
def test_a_server_without_ranges_or_versions_sends_it_all_again(server, tmp_path, etag):
    server.etag, server.cuts = etag, 2
    fetch(dataset(base=server.base), tmp_path)
    assert ((tmp_path / "D/a.csv").read_bytes(), server.asked) == (CONTENT, ["bytes=0-"] * 3)


def test_a_connection_that_always_breaks_keeps_a_part_and_the_next_fetch_goes_on(server, tmp_path):
    server.cuts = 1000
    with pytest.raises(
        DatasetError, match=r"has closed the connection; fetch again to continue, or download a.csv from http://127"
    ):
        fetch(dataset(base=server.base), tmp_path)
    assert names(tmp_path / "D") == [".a.csv.etag", ".a.csv.part"]
    had = (tmp_path / "D/.a.csv.part").stat().st_size
    assert had > len(CONTENT) / 2
    server.cuts, server.sent, server.asked = 0, 0, []
    reports = []
    fetch(dataset(base=server.base), tmp_path, lambda *progress: reports.append(progress))
    assert (states(dataset(), tmp_path), server.asked) == (["good"], [f"bytes={had}-"])
    assert server.sent == len(CONTENT) - had
    assert min(progress[0] for progress in reports if progress[2] == "bytes") > had
    assert names(tmp_path / "D") == ["a.csv"]


@pytest.mark.parametrize("knows_conditions", [True, False])
@pytest.mark.parametrize("size", [len(CONTENT), 10])
def test_of_a_file_that_changed_meanwhile_nothing_of_the_old_is_kept(server, tmp_path, knows_conditions, size):
    server.knows_conditions = knows_conditions
    unpublished = dataset(base=server.base, files={"a.csv": ""})
    server.cuts = 1000
    with pytest.raises(DatasetError):
        fetch(unpublished, tmp_path)
    server.cuts, server.etag, server.files["/a.csv"] = 0, '"2"', b"x" * size
    fetch(unpublished, tmp_path)
    assert (tmp_path / "D/a.csv").read_bytes() == b"x" * size


def test_a_busy_server_is_asked_again_and_keeps_the_part(server, tmp_path):
    server.cuts, server.busy = 1, 3
    fetch(dataset(base=server.base), tmp_path)
    assert server.asked[:4] == ["bytes=0-"] * 4
    assert server.asked[4] != "bytes=0-"
    assert states(dataset(), tmp_path) == ["good"]


def test_waiting_becomes_longer_and_ends(server, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr("flows.datasets.download.time.sleep", waits.append)
    server.busy = 1000
    with pytest.raises(DatasetError, match=r"503 .*a.csv; see http://page"):
        fetch(dataset(base=server.base), tmp_path)
    assert waits == sorted(set(waits))
    assert len(server.asked) == len(waits) + 1


def test_another_content_than_the_published_is_refused_and_not_kept(server, tmp_path):
    server.files["/a.csv"] = b"something else"
    with pytest.raises(DatasetError, match=r"a.csv is not as published and was not kept"):
        fetch(dataset(base=server.base), tmp_path)
    assert list((tmp_path / "D").iterdir()) == []


def test_what_the_server_lacks_is_named_with_the_page(server, tmp_path):
    with pytest.raises(DatasetError, match=r"404 .*b.csv; see http://page"):
        fetch(dataset(base=server.base, files={"b.csv": ""}), tmp_path)
    assert len(server.asked) == 1


def test_without_a_network_one_line_says_what_to_download_from_where_to_where(tmp_path, server, monkeypatch, caplog):
    caplog.set_level("INFO", "flows.datasets.download")
    monkeypatch.delenv("EDDA_DATA", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    files = {"have.csv": "", "a.csv": DIGEST, "b.csv": ""}
    (tmp_path / "D").mkdir()
    (tmp_path / "D/have.csv").write_text("x")
    with pytest.raises(DatasetError) as raised:
        fetch(dataset(base=f"http://127.0.0.1:{port}/", files=files), tmp_path)
    assert str(raised.value) == (
        f"127.0.0.1:{port} cannot be reached or has closed the connection; fetch again to continue, or download "
        f"a.csv, b.csv from http://127.0.0.1:{port}/ into {tmp_path}/D/ by hand, then: edda datasets fetch d; "
        "or set EDDA_DATA to a folder that has D/"
    )
    assert re.match(r"a.csv: Failed to establish a new connection: .* refused; trying again in 1 s", caplog.messages[0])


def test_what_needs_a_login_is_said_with_the_page(tmp_path):
    with pytest.raises(DatasetError, match=r"d needs a login: download a.csv from http://page into .*/D/ by hand"):
        fetch(dataset(), tmp_path)


def test_a_folder_filled_by_hand_is_a_mirror_and_a_wrong_file_in_it_is_refused(tmp_path):
    (tmp_path / "D").mkdir()
    (tmp_path / "D/a.csv").write_bytes(CONTENT)
    fetch(dataset(), tmp_path)
    assert [path.name for path in (tmp_path / "D").iterdir()] == ["a.csv"]
    (tmp_path / "D/a.csv").write_bytes(CONTENT[1:])
    with pytest.raises(DatasetError, match=f"a.csv is sha256:.*, must be {DIGEST}; delete it and fetch again"):
        fetch(dataset(), tmp_path)


def test_an_unpublished_digest_is_recorded_at_the_first_fetch_and_compared_later(server, tmp_path):
    unpublished = dataset(base=server.base, files={"a.csv": ""})
    fetch(unpublished, tmp_path)
    assert (tmp_path / "D/SHA256SUMS").read_text() == f"{DIGEST.removeprefix('sha256:')}  a.csv\n"
    assert states(unpublished, tmp_path) == ["good"]
    (tmp_path / "D/a.csv").write_text("changed")
    assert states(unpublished, tmp_path) == ["wrong"]


def test_an_archive_is_unpacked_and_its_members_alone_do_as_well(server, tmp_path):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("m/ratings.csv", "1")
        members.writestr("m/other.csv", "2")
    server.files["/m.zip"] = archive.getvalue()
    files = {"m.zip": f"md5:{hashlib.md5(archive.getvalue()).hexdigest()}"}
    zipped = dataset(base=server.base, files=files, holds=("m/ratings.csv",))
    assert states(zipped, tmp_path) == ["missing"]
    fetch(zipped, tmp_path)
    assert [path.name for path in (tmp_path / "D/m").iterdir()] == ["ratings.csv"]
    (tmp_path / "D/m.zip").unlink()
    fetch(zipped, tmp_path)
    assert server.asked == ["bytes=0-"]


def test_every_entry_names_a_run_that_reads_its_folder(monkeypatch):
    monkeypatch.setenv("EDDA_DATA", "/data")
    for name, entry in datasets().items():
        run = load_config(Path(__file__).parents[3] / "flows/runs" / entry.run)
        folder = Path("/data", entry.folder, Path(entry.archive_members[0]).parent if entry.archive_members else "")
        assert run.name == name
        assert Path(run.logs[0].path).is_relative_to(folder / ("converted" if entry.adapter else ""))
        assert all(digest == "" or digest.startswith(("sha256:", "md5:")) for digest in entry.files.values())


def test_the_command_line_fetches_verifies_and_says_what_next(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EDDA_DATA", str(tmp_path))
    (tmp_path / "amazon-reviews").mkdir()
    for name in datasets()["amazon-reviews"].files:
        (tmp_path / "amazon-reviews" / name).write_text(name)
    assert edda("datasets", "fetch", "amazon-reviews") == 0
    out = capsys.readouterr().out
    assert "no digest is published for 3, so theirs are now in SHA256SUMS" in out
    assert "  edda run " in out
    assert "amazon-reviews.toml" in out
    assert edda("datasets", "verify", "amazon-reviews", "--json") == 0
    assert [state["state"] for state in json.loads(capsys.readouterr().out)] == ["good"] * 3
    (tmp_path / "amazon-reviews" / name).unlink()
    assert edda("datasets", "verify", "amazon-reviews") == 1
    assert "missing " in capsys.readouterr().out


def test_without_a_name_verify_checks_what_there_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EDDA_DATA", str(tmp_path))
    assert edda("datasets", "verify") == 0
    assert capsys.readouterr().out == f"no file of any data set is in {tmp_path}\n"
    (tmp_path / "taobao-ad").mkdir()
    first, second = datasets()["taobao-ad"].files
    (tmp_path / "taobao-ad" / first).write_text("x")
    assert edda("datasets", "verify", "--json") == 1
    states = {Path(state["path"]).name: state["state"] for state in json.loads(capsys.readouterr().out)}
    assert states == {first: "unknown", second: "missing"}


def test_without_edda_data_the_next_command_sets_it(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("EDDA_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path)
    (tmp_path / "taobao-ad").mkdir()
    for name in datasets()["taobao-ad"].files:
        (tmp_path / "taobao-ad" / name).write_text(name)
    assert edda("datasets", "fetch", "taobao-ad") == 0
    out = capsys.readouterr().out
    assert "  edda datasets convert taobao-ad\n" in out
    assert f"  EDDA_DATA={tmp_path} edda run " in out


def test_what_was_not_fetched_is_not_converted_and_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EDDA_DATA", str(tmp_path))
    assert edda("datasets", "convert", "ml-100k") == 1
    assert "lacks ml-100k/u.data, ml-100k/u.item, ml-100k/u.genre, first: edda datasets fetch ml-100k" in (
        capsys.readouterr().err
    )


def test_list_has_every_set_and_all_of_one(capsys):
    assert edda("datasets", "list") == 0
    out = capsys.readouterr().out
    assert all(f"\n{name} " in out for name in datasets())
    assert edda("datasets", "list", "ml-1m") == 0
    out = capsys.readouterr().out
    assert "https://files.grouplens.org/datasets/movielens/ml-1m.zip md5:" in out
    assert edda("datasets", "list", "ali-ccp", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["urls"] == []
    assert edda("datasets", "list", "ml-2") == 1
    assert "data set 'ml-2' is unknown, must be one of aliccp, " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["aliccp", "aliad", "amazon"])
def test_released_splits_at_hand_are_the_published_ones(name):
    root = os.environ.get("EDDA_DATA")
    if not root or not Path(root, datasets()[name].folder).is_dir():
        pytest.skip("EDDA_DATA has no released splits")
    assert set(states(datasets()[name], Path(root))) == {"good"}
