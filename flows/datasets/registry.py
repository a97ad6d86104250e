"""Public data sets: what they are, where their files come from, and whether local files are the published ones."""

from __future__ import annotations

import hashlib
import logging
import os
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field

from data_contracts.progress import Progress, silent
from data_contracts.settings.base import Settings
from data_contracts.store.files import write_atomically

log = logging.getLogger(__name__)

RECORD = "SHA256SUMS"
"""File beside the data with the digests of the files that were first fetched, if none have been published."""


class DatasetError(ValueError):
    """A data set is unknown, cannot be downloaded, or is not what was published."""


class Dataset(Settings):
    """One entry of datasets.toml."""

    name: str
    what: str
    page: str
    folder: str
    """Folder of its files, below the folder of all data."""
    files: dict[str, str]
    """File name → `sha256:…` or `md5:…`; empty if no digest is published."""
    base: str | None = None
    """Base URL of the files; None if a login is needed."""
    archive_members: tuple[str, ...] = Field((), alias="holds")
    """Members to extract from the files, which are archives; `holds` in TOML and JSON."""
    licence: str
    citation: str
    run: str
    """TOML file of flows/runs."""
    adapter: str | None = None
    """Adapter that converts the files to logs; None if [[logs]] reads them as they are."""

    @property
    def toml(self) -> Path:
        """The run's file, relative to the current directory if it is below that."""
        path = Path(__file__).parents[1] / "runs" / self.run
        return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


class FileState(NamedTuple):
    """One file, compared with its published or recorded digest."""

    path: Path
    state: Literal["missing", "good", "wrong", "unknown"]
    digest: str = ""
    """`sha256:…` or `md5:…` of its content, empty if the file is missing."""
    expected: str = ""


def datasets() -> dict[str, Dataset]:
    """All entries, by name."""
    table = tomllib.loads((Path(__file__).parent / "datasets.toml").read_text(encoding="utf-8"))
    return {name: Dataset(name=name, **entry) for name, entry in table.items()}


def find_dataset(name: str) -> Dataset:
    """Look up an entry by its name.

    Raises:
        DatasetError: there is none; the message lists the names.
    """
    known = datasets()
    if name not in known:
        raise DatasetError(f"data set {name!r} is unknown, must be one of {', '.join(known)}")
    return known[name]


def data_folder() -> Path:
    """$EDDA_DATA, else the user's cache folder."""
    import pooch

    return Path(os.environ.get("EDDA_DATA") or pooch.os_cache("edda")).absolute()


def verify(dataset: Dataset, root: Path, progress: Progress = silent) -> list[FileState]:
    """Check the files of a data set in its folder below `root`; if it has only members of archives, check those."""
    folder = root / dataset.folder
    recorded = _read_record(folder)
    digests: Mapping[str, str] = dataset.files
    if dataset.archive_members and not any((folder / name).exists() for name in digests):
        digests = dict.fromkeys(dataset.archive_members, "")
    states = []
    for number, (name, digest) in enumerate(digests.items(), start=1):
        states.append(_check_file(folder / name, digest or recorded.get(name, "")))
        progress(number, len(digests), "files checked")
    return states


def fetch(dataset: Dataset, root: Path, progress: Progress = silent) -> list[FileState]:
    """Download the missing files and check all; files that are there and good are used as they are.

    Raises:
        DatasetError: a file is not the published one, must be downloaded by hand, or cannot be downloaded; no wrong or
            incomplete file has the final name, and the next fetch resumes the download.
    """
    states = verify(dataset, root, progress)
    if wrong := [state for state in states if state.state == "wrong"]:
        path, _, digest, expected = wrong[0]
        raise DatasetError(f"{path} is {digest}, must be {expected}; delete it and fetch again")
    missing = [state.path for state in states if state.state == "missing"]
    if missing and dataset.base is None:
        raise DatasetError(f"{dataset.name} needs a login: {_manual_steps(dataset, missing, dataset.page)}")
    if missing and dataset.archive_members:
        missing = [root / dataset.folder / name for name in dataset.files]
    for number, path in enumerate(missing):
        _download(dataset, path, missing[number:], progress)
    states = verify(dataset, root, progress) if missing else states
    _write_record(root / dataset.folder, [state for state in states if state.state == "unknown"])
    _extract(dataset, root / dataset.folder)
    return states


def _check_file(path: Path, expected: str) -> FileState:
    if not path.is_file():
        return FileState(path, "missing", "", expected)
    kind = expected.partition(":")[0] or "sha256"
    with path.open("rb") as stream:
        digest = f"{kind}:{hashlib.file_digest(stream, kind).hexdigest()}"
    return FileState(path, "unknown" if not expected else "good" if digest == expected else "wrong", digest, expected)


def _download(dataset: Dataset, path: Path, missing: list[Path], progress: Progress) -> None:
    """Download one file; it only gets its name when it is complete and as published. Partial downloads are kept."""
    import pooch
    from requests import HTTPError, RequestException

    from flows.datasets.download import Resuming

    pooch.get_logger().setLevel(logging.WARNING)
    names = {path.name: dataset.files[path.name] or None}
    fetcher = pooch.create(path.parent, str(dataset.base), registry=names)
    try:
        fetcher.fetch(path.name, downloader=Resuming(path, progress))
    except HTTPError as error:
        raise DatasetError(f"{error}; see {dataset.page}") from error
    except RequestException as error:
        host, steps = urlsplit(str(dataset.base)).netloc, _manual_steps(dataset, missing, str(dataset.base))
        raise DatasetError(
            f"{host} cannot be reached or has closed the connection; fetch again to continue, or {steps}"
        ) from error
    except ValueError as error:
        raise DatasetError(f"{dataset.base}{path.name} is not as published and was not kept: {error}") from error
    log.info("%s: %.1f MiB → %s", dataset.name, path.stat().st_size / 2**20, path)


def _manual_steps(dataset: Dataset, missing: list[Path], source: object) -> str:
    mirror = "" if os.environ.get("EDDA_DATA") else f"; or set EDDA_DATA to a folder that has {dataset.folder}/"
    return (
        f"download {', '.join(path.name for path in missing)} from {source} into {missing[0].parent}/ by hand, then: "
        f"edda datasets fetch {dataset.name}{mirror}"
    )


def _read_record(folder: Path) -> dict[str, str]:
    """File name → digest, from lines in the format of `sha256sum`."""
    path = folder / RECORD
    lines = (
        (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
        if path.exists()
        else ()
    )
    return {line[1]: f"sha256:{line[0]}" for line in lines if len(line) == 2}


def _write_record(folder: Path, states: list[FileState]) -> None:
    """Record the digests of files that are seen for the first time, so that a later change is noticed."""
    if states and not os.access(folder, os.W_OK):
        log.warning("%s is read-only: no digest is recorded", folder)
    elif states:
        digests = _read_record(folder) | {state.path.relative_to(folder).as_posix(): state.digest for state in states}
        lines = (f"{digest.removeprefix('sha256:')}  {name}\n" for name, digest in sorted(digests.items()))
        write_atomically({folder / RECORD: "".join(lines).encode()})


def _extract(dataset: Dataset, folder: Path) -> None:
    for name in dataset.files:
        missing = [member for member in dataset.archive_members if not (folder / member).exists()]
        if missing:
            with zipfile.ZipFile(folder / name) as archive:
                archive.extractall(folder, missing)


def next_commands(dataset: Dataset, root: Path) -> Iterator[str]:
    """Commands to run after a fetch."""
    setting = "" if os.environ.get("EDDA_DATA") else f"EDDA_DATA={root} "
    if dataset.adapter:
        yield f"edda datasets convert {dataset.name}"
    yield f"{setting}edda run {dataset.toml}"


def files_folder(dataset: Dataset, root: Path) -> Path:
    """The folder of its files; those of an archive are in the archive's own folder.

    Raises:
        DatasetError: a file is missing.
    """
    folder = root / dataset.folder
    if absent := [name for name in dataset.archive_members or dataset.files if not (folder / name).exists()]:
        raise DatasetError(f"{folder} lacks {', '.join(absent)}, first: edda datasets fetch {dataset.name}")
    return folder / (Path(dataset.archive_members[0]).parent if dataset.archive_members else "")


def files_present(dataset: Dataset, root: Path) -> str:
    """How many of its files exist, as `1 of 3`, without checking them."""
    names = dataset.archive_members or tuple(dataset.files)
    return f"{sum((root / dataset.folder / name).exists() for name in names)} of {len(names)}"


def started(root: Path) -> Iterator[Dataset]:
    """The data sets of which at least one file exists."""
    for dataset in datasets().values():
        if any((root / dataset.folder / name).exists() for name in (*dataset.files, *dataset.archive_members)):
            yield dataset


def details(dataset: Dataset) -> Iterator[str]:
    """Lines with everything that is known of a data set."""
    yield f"{dataset.name}: {dataset.what}"
    yield f"page:     {dataset.page}{'' if dataset.base else ' (needs a login: download by hand)'}"
    yield f"licence:  {dataset.licence}"
    yield f"cite:     {dataset.citation}"
    yield f"run:      {dataset.toml}{f', after edda datasets convert {dataset.name}' if dataset.adapter else ''}"
    for name, digest in dataset.files.items():
        yield f"file:     {dataset.base or ''}{name} {digest or '(no digest published)'}"


def as_json(dataset: Dataset) -> dict[str, Any]:
    """An entry with the URL of each file."""
    urls = [f"{dataset.base}{name}" for name in dataset.files if dataset.base]
    return {**dataset.model_dump(by_alias=True), "urls": urls}
