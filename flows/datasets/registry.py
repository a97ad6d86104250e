"""Public data sets: what they are, where their files come from, whether the files at hand are the published ones."""

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

from data_contracts.progress import Progress, silent
from data_contracts.settings import Settings
from data_contracts.store.files import write_atomically

log = logging.getLogger(__name__)

RECORD = "SHA256SUMS"
"""File beside the data with what was first fetched of the files whose digests nobody has published."""


class DatasetError(ValueError):
    """A data set that is unknown, cannot be had, or is not what was published."""


class Dataset(Settings):
    """One entry of the table."""

    name: str
    what: str
    page: str
    folder: str
    """Where its files lie below the folder of all data."""
    files: dict[str, str]
    """File name → `sha256:…` or `md5:…`; empty where it is unknown."""
    base: str | None = None
    """Address that the files' names are put behind; None where a login is needed."""
    holds: tuple[str, ...] = ()
    """Members taken out of the files, which are archives."""
    licence: str
    citation: str
    run: str
    """TOML file of flows/runs."""
    adapter: str | None = None
    """Adapter that makes a log of the files; None where [[logs]] reads them as they are."""

    @property
    def toml(self) -> Path:
        """The run's file, relative to the current directory where it lies below."""
        path = Path(__file__).parents[1] / "runs" / self.run
        return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


class FileState(NamedTuple):
    """One file: its path, and how it compares with what is known of it."""

    path: Path
    state: Literal["missing", "good", "wrong", "unknown"]
    digest: str = ""
    """`sha256:…` or `md5:…` of its bytes, empty where it is missing."""
    expected: str = ""


def datasets() -> dict[str, Dataset]:
    """All entries, by name."""
    table = tomllib.loads((Path(__file__).parent / "datasets.toml").read_text())
    return {name: Dataset(name=name, **entry) for name, entry in table.items()}


def find_dataset(name: str) -> Dataset:
    """The entry of a name.

    Raises:
        DatasetError: there is none; the message has the names.
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
    """Every published file of a data set below a folder; of archives, their members where only these are there."""
    folder = root / dataset.folder
    recorded = _recorded(folder)
    names: Mapping[str, str] = dataset.files
    if dataset.holds and not any((folder / name).exists() for name in names):
        names = dict.fromkeys(dataset.holds, "")
    states = []
    for number, (name, digest) in enumerate(names.items(), start=1):
        states.append(_state(folder / name, digest or recorded.get(name, "")))
        progress(number, len(names), "files checked")
    return states


def fetch(dataset: Dataset, root: Path, progress: Progress = silent) -> list[FileState]:
    """Get what is missing, check everything; what is there and good is taken as it is.

    Raises:
        DatasetError: a file is not the published one, must be downloaded by hand, or cannot be fetched; nothing wrong
            or half fetched has its name, and the next fetch goes on where this one ended.
    """
    states = verify(dataset, root, progress)
    for found in states:
        if found.state == "wrong":
            raise DatasetError(f"{found.path} is {found.digest}, must be {found.expected}; delete it and fetch again")
    missing = [found.path for found in states if found.state == "missing"]
    if missing and dataset.base is None:
        raise DatasetError(f"{dataset.name} needs a login: {_by_hand(dataset, missing, dataset.page)}")
    missing = [root / dataset.folder / name for name in dataset.files] if missing and dataset.holds else missing
    for number, path in enumerate(missing):
        _download(dataset, path, missing[number:], progress)
    states = verify(dataset, root, progress) if missing else states
    _record(root / dataset.folder, [found for found in states if found.state == "unknown"])
    _unpack(dataset, root / dataset.folder)
    return states


def _state(path: Path, expected: str) -> FileState:
    if not path.is_file():
        return FileState(path, "missing", "", expected)
    kind = expected.partition(":")[0] or "sha256"
    with path.open("rb") as stream:
        digest = f"{kind}:{hashlib.file_digest(stream, kind).hexdigest()}"
    return FileState(path, "unknown" if not expected else "good" if digest == expected else "wrong", digest, expected)


def _download(dataset: Dataset, path: Path, missing: list[Path], progress: Progress) -> None:
    """Fetch one file; it has its name only when whole and as published, and what has come of it waits beside it."""
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
        hand = _by_hand(dataset, missing, str(dataset.base))
        raise DatasetError(
            f"{urlsplit(str(dataset.base)).netloc} cannot be reached or broke off; fetch again to go on, or {hand}"
        ) from error
    except ValueError as error:
        raise DatasetError(f"{dataset.base}{path.name} is not as published and was not kept: {error}") from error
    log.info("%s: %.1f MiB → %s", dataset.name, path.stat().st_size / 2**20, path)


def _by_hand(dataset: Dataset, missing: list[Path], source: object) -> str:
    mirror = "" if os.environ.get("EDDA_DATA") else f"; or let EDDA_DATA name a folder that has {dataset.folder}/"
    return (
        f"download {', '.join(path.name for path in missing)} from {source} into {missing[0].parent}/ by hand, then: "
        f"edda datasets fetch {dataset.name}{mirror}"
    )


def _recorded(folder: Path) -> dict[str, str]:
    """File name → digest, from lines as `sha256sum` writes them."""
    path = folder / RECORD
    lines = (line.split(maxsplit=1) for line in path.read_text().splitlines()) if path.exists() else ()
    return {name: f"sha256:{digest}" for digest, name in lines}


def _record(folder: Path, found: list[FileState]) -> None:
    """Keep the digests of files seen for the first time, so that a later change is noticed."""
    if found and not os.access(folder, os.W_OK):
        log.warning("%s is read-only: no digest is recorded", folder)
    elif found:
        known = _recorded(folder) | {state.path.relative_to(folder).as_posix(): state.digest for state in found}
        lines = (f"{digest.removeprefix('sha256:')}  {name}\n" for name, digest in sorted(known.items()))
        write_atomically({folder / RECORD: "".join(lines).encode()})


def _unpack(dataset: Dataset, folder: Path) -> None:
    for archive in map(folder.joinpath, dataset.files):
        wanted = [name for name in dataset.holds if not (folder / name).exists()]
        if wanted:
            with zipfile.ZipFile(archive) as members:
                members.extractall(folder, wanted)


def next_commands(dataset: Dataset, root: Path) -> Iterator[str]:
    """What to run after a fetch."""
    setting = "" if os.environ.get("EDDA_DATA") else f"EDDA_DATA={root} "
    if dataset.adapter:
        yield f"edda datasets convert {dataset.name}"
    yield f"{setting}edda run {dataset.toml}"


def files_folder(dataset: Dataset, root: Path) -> Path:
    """Where its files lie, those of an archive in the archive's own folder; a DatasetError where one is missing."""
    folder = root / dataset.folder
    if absent := [name for name in dataset.holds or dataset.files if not (folder / name).exists()]:
        raise DatasetError(f"{folder} lacks {', '.join(absent)}, first: edda datasets fetch {dataset.name}")
    return folder / (Path(dataset.holds[0]).parent if dataset.holds else "")


def at_hand(dataset: Dataset, root: Path) -> str:
    """How many of its files are there, unchecked."""
    names = dataset.holds or tuple(dataset.files)
    return f"{sum((root / dataset.folder / name).exists() for name in names)} of {len(names)}"


def begun(root: Path) -> Iterator[Dataset]:
    """The data sets of which at least one file is there."""
    for dataset in datasets().values():
        if any((root / dataset.folder / name).exists() for name in (*dataset.files, *dataset.holds)):
            yield dataset


def described(dataset: Dataset) -> Iterator[str]:
    """All that is known of it, a line each."""
    yield f"{dataset.name}: {dataset.what}"
    yield f"page:     {dataset.page}{'' if dataset.base else ' (needs a login: download by hand)'}"
    yield f"licence:  {dataset.licence}"
    yield f"cite:     {dataset.citation}"
    yield f"run:      {dataset.toml}{f', after edda datasets convert {dataset.name}' if dataset.adapter else ''}"
    yield from (f"file:     {dataset.base or ''}{name} {digest or '(no digest published)'}"
                for name, digest in dataset.files.items())  # fmt: skip


def as_json(dataset: Dataset) -> dict[str, Any]:
    """An entry with the address of each file."""
    return {**dataset.model_dump(), "urls": [f"{dataset.base}{name}" for name in dataset.files if dataset.base]}
