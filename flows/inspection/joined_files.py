"""Files of other origin that a query joins with artifacts: Parquet, CSV, TSV, JSON lines; also .gz."""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.dataset as ds

from data_contracts.store.dataset import PARQUET

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_ENDINGS = (".parquet", *_DELIMITERS, ".jsonl")


def open_joined_files(files: Mapping[str, Path], taken: Container[str]) -> dict[str, ds.Dataset]:
    """Open files as data sets; their rows are read when they are scanned.

    Args:
        files: by the name that a query gives them.
        taken: names that they may not have.

    Raises:
        ValueError: a name is taken, or a file is of no known kind or damaged.
        FileNotFoundError: there is no such file.
    """
    for name in files:
        if name.lower() in taken:
            raise ValueError(f"--with {name}={files[name]}: {name} is the view of an artifact; choose another name")
    return {name: _open(path) for name, path in files.items()}


def _open(path: Path) -> ds.Dataset:
    """A file's data set. CSV has no types, so its columns are text, as ids are; a query casts what is a number."""
    if not path.is_file():
        raise FileNotFoundError(f"--with: {path} is not there, or no plain file")
    ending = Path(path.name.removesuffix(".gz")).suffix.lower()
    if ending not in _ENDINGS:
        raise ValueError(
            f"--with: {path} ends in {ending!r}, must end in {', '.join(_ENDINGS)}; or one of these and .gz"
        )
    try:
        if ending not in _DELIMITERS:
            return ds.dataset(path, format=PARQUET if ending == ".parquet" else "json")
        delimited = pc.ParseOptions(delimiter=_DELIMITERS[ending])
        names = ds.dataset(path, format=ds.CsvFileFormat(delimited)).schema.names
        as_text = pc.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
        return ds.dataset(path, format=ds.CsvFileFormat(delimited, convert_options=as_text))
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"--with: {path} cannot be read: {error}") from error
