"""Settings of `edda serve` that belong to a run: what its items are called."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from data_contracts.settings.base import Settings


class ServeSettings(Settings):
    """What the service shows besides the logs' ids; no result depends on it."""

    items: Annotated[str, Field(min_length=1)] | None = None
    """File of items with a column id and perhaps title, picture and others: CSV, TSV or Parquet."""
