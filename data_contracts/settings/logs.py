"""Where raw logs are, and how they are read."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from data_contracts.settings.base import Settings

_VARIABLE = re.compile(r"\$\{(\w+)\}")


def expand_variables(path: str, environment: Mapping[str, str]) -> tuple[str, list[str]]:
    """Replace `${NAME}` in a path by environment variables.

    Returns:
        The path, in which unset variables are left as they are, and the names of those.
    """
    unset = [name for name in _VARIABLE.findall(path) if name not in environment]
    return _VARIABLE.sub(lambda match: environment.get(match[1], match[0]), path), unset


class Columns(Settings):
    """Where a log keeps its fields: a column's name or, without a header, its position from 0."""

    user: str | int = "user_id"
    """Column of user ids."""
    item: str | int = "item_id"
    """Column of item ids."""
    domain: str | int | None = None
    """Column of domain names; else `domain` or `path_pattern` names the domain."""
    split: str | int | None = None
    """Column of splits (train, valid or val, test)."""
    rating: str | int | None = None
    """Column of ratings, numbers or true and false; needed by `rating_at_least`."""
    timestamp: str | int | None = None
    """Column of times: numbers, or ISO 8601 as microseconds since 1970; docs/data/logs.md."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.user == self.item:
            raise ValueError(f"user and item are both {self.user!r}, must be two columns")
        if self.domain in (self.user, self.item):
            other = "user" if self.domain == self.user else "item"
            raise ValueError(f"domain and {other} are both {self.domain!r}, must be two columns")
        return self


class LogSource(Settings):
    """One set of raw log files of one format."""

    path: Annotated[str, Field(min_length=1)]
    """Path or glob, relative to the run's file, or s3://, gs://, abfs://; `${NAME}` is taken from the environment."""
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet"] = "auto"
    """File format; `auto` goes by the name's ending, before .gz or .zst. Only CSV has quotes."""
    delimiter: str | None = None
    """Text between the fields of CSV (else a comma) or TSV (else a tab); where it is several characters, quotes have no
    meaning."""
    encoding: str = "utf-8"
    """Encoding of text formats, as Python names it: latin-1, cp1252, utf-16, shift_jis, …"""
    quoted_newlines: bool = True
    """Quoted fields of CSV may have line breaks, if they are not read; false: such a record is an error."""
    timestamp_format: Annotated[str, Field(min_length=1)] | None = None
    """Unit of times that are numbers (s, ms, us, ns), which then become microseconds, or a format of strptime
    (%d.%m.%Y %H:%M)."""
    header: bool = True
    """The first line of each CSV or TSV file names the columns."""
    columns: Columns = Columns()
    """Where the fields are."""
    domain: Annotated[str, Field(min_length=1)] | None = None
    """The domain of every row of these files."""
    path_pattern: str | None = None
    """Regular expression searched in each file's path from the first folder with a * on; its groups `domain` and
    `split` give the rows' domain and split."""
    rating_at_least: float | None = None
    """Rows rated lower are not positives: they go to the rejects, with reason `rating`."""

    @field_validator("delimiter")
    @classmethod
    def _is_delimiter(cls, delimiter: str | None) -> str | None:
        if delimiter is not None and (not delimiter or any(character in '"\r\n\0' for character in delimiter)):
            raise ValueError(f"{delimiter!r} must have at least one character, and no quote, line end or NUL")
        return delimiter

    @field_validator("encoding")
    @classmethod
    def _is_encoding(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
            codecs.getincrementaldecoder(encoding)
        except (LookupError, ValueError):
            raise ValueError(f"{encoding!r} must be an encoding that Python knows, e.g. latin-1 or utf-16") from None
        return codecs.lookup(encoding).name

    @field_validator("timestamp_format")
    @classmethod
    def _is_time_format(cls, value: str | None) -> str | None:
        if value is not None and "%" not in value and value not in ("s", "ms", "us", "ns"):
            raise ValueError(f"{value!r} must be s, ms, us or ns, or a format such as %d.%m.%Y %H:%M")
        return value
