"""Which items a list may contain: the service's allow and deny lists, those of a request, values of the items file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flows.serve.items_file import ItemsFile
from model.serving.catalogue import Catalogue
from model.serving.ids import item_numbers
from model.serving.scorer import ItemMask
from model.sparse.rows import Longs


class FilterError(ValueError):
    """A request filters by what the service does not have."""


@dataclass(frozen=True)
class RequestFilters:
    """The filters of one request; all must hold.

    Attributes:
        allow: ids of the items that may be listed; None: all.
        deny: ids of items that may not.
        where: column of the items file → the values of which an item must have one.
    """

    allow: Sequence[str] | None = None
    deny: Sequence[str] = ()
    where: Mapping[str, Sequence[str]] = field(default_factory=dict)


class ItemFilters:
    """Masks of the items of each domain that may be listed. Ids that a domain does not have mean nothing there.

    Args:
        catalogues: by domain.
        items: the items file, if there is one.
        allow: ids of the only items that are ever listed; None: all.
        deny: ids of items that are never listed.
    """

    def __init__(
        self,
        catalogues: Mapping[str, Catalogue],
        items: ItemsFile | None = None,
        allow: Sequence[str] | None = None,
        deny: Sequence[str] = (),
    ) -> None:
        self._catalogues, self._items = catalogues, items
        self._always = {name: _always_allowed(catalogue, allow, deny) for name, catalogue in catalogues.items()}
        self._rows = {name: items.rows(catalogue.item_ids) for name, catalogue in catalogues.items()} if items else {}

    def mask(self, domain: str, wanted: RequestFilters) -> ItemMask | None:
        """The items of a domain that a request may get; None: all of them, or there is no such domain.

        Raises:
            FilterError: the items file has no such column, or there is no items file.
        """
        masks = [self._column_mask(domain, column, values) for column, values in wanted.where.items()]
        if domain not in self._catalogues:
            return None
        if wanted.allow is not None:
            masks.append(self._listed(domain, wanted.allow))
        if wanted.deny:
            masks.append(~self._listed(domain, wanted.deny))
        if (always := self._always[domain]) is not None:
            masks.append(always)
        return np.logical_and.reduce(masks) if masks else None

    def _listed(self, domain: str, names: Sequence[str]) -> ItemMask:
        catalogue = self._catalogues[domain]
        listed = np.zeros(len(catalogue.item_ids), np.bool_)
        numbers = item_numbers(catalogue, names)
        listed[numbers[numbers >= 0]] = True
        return listed

    def _column_mask(self, domain: str, column: str, values: Sequence[str]) -> ItemMask:
        if self._items is None:
            raise FilterError(f"where: {column!r} is a column of an items file, and the service has none (--items)")
        if column not in self._items.columns:
            raise FilterError(f"where: no column {column!r}, must be one of {', '.join(self._items.columns)}")
        rows: Longs = self._rows.get(domain, np.zeros(0, np.int64))
        has_value = self._items.has_value(column, values)
        return (rows >= 0) & has_value[rows] if has_value.size else rows >= 0


def _always_allowed(catalogue: Catalogue, allow: Sequence[str] | None, deny: Sequence[str]) -> ItemMask | None:
    if allow is None and not deny:
        return None
    mask = np.ones(len(catalogue.item_ids), np.bool_)
    if allow is not None:
        mask &= _is_in(catalogue.item_ids, allow)
    return mask & ~_is_in(catalogue.item_ids, deny)


def _is_in(ids: pa.LargeStringArray, names: Sequence[str]) -> ItemMask:
    listed: ItemMask = pc.is_in(ids, pa.array(names, pa.large_string())).to_numpy(zero_copy_only=False)
    return listed


def read_id_list(path: Path) -> list[str]:
    """Ids of items from a text file, one a line; empty lines mean nothing.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8.
    """
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is not UTF-8, must be; one item's id a line") from None
    return [name for line in text.split("\n") if (name := line.removesuffix("\r"))]
