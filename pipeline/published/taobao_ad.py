"""Taobao display advertising, as published, made logs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.logs.cleaning import Sorter
from pipeline.published.blocks import Part, clicked_of, delimited, is_missing, part_of

_CATEGORIES = 16


def _taobao_ad(folder: Path) -> Iterator[Part]:
    """Clicks with the ad's product category: the largest by clicks, else `other`."""
    path = folder / "ad_feature.csv"
    ads, categories = [], []
    for records in delimited(path, {"item": "adgroup_id", "category": "cate_id"}):
        ads.append(records.fields["item"])
        categories.append(records.fields["category"])
        yield part_of(path, records, Sorter(len(records.lines)), None)
    known, of_ad = pa.chunked_array(ads, pa.string()), pa.chunked_array(categories, pa.string())
    path = folder / "raw_sample.csv"
    largest = _largest(path, known, of_ad)
    columns = {"user": "user", "item": "adgroup_id", "pid": "pid", "timestamp": "time_stamp", "click": "clk"}
    for records in delimited(path, columns):
        clicked = clicked_of(records)
        fields = clicked.fields
        category = of_ad.take(pc.index_in(fields["item"], value_set=known)).combine_chunks()
        sorter = Sorter(len(clicked.lines))
        sorter.reject("number", pc.not_equal(fields["click"], "1"), fields["click"])
        sorter.reject("missing", is_missing(fields, "user", "item", "pid", "timestamp"), None)
        sorter.reject("unknown", pc.is_null(category), fields["item"])
        category = pc.if_else(pc.is_in(category, value_set=largest), category, "other")
        rows = pa.table(
            [fields["user"], fields["item"], fields["pid"], category, fields["timestamp"]],
            ["user_id", "item_id", "pid", "category", "timestamp"],
        )
        yield part_of(path, clicked, sorter, rows, len(records.lines))


def _largest(path: Path, ads: pa.ChunkedArray, categories: pa.ChunkedArray) -> pa.Array:
    clicks: Counter[str] = Counter()
    for records in delimited(path, {"item": "adgroup_id", "click": "clk"}):
        items = records.fields["item"].filter(pc.equal(records.fields["click"], "1"))
        found = categories.take(pc.index_in(items, value_set=ads)).drop_null()
        clicks.update({count["values"]: count["counts"] for count in found.value_counts().to_pylist()})
    return pa.array(sorted(clicks, key=lambda category: (-clicks[category], category))[:_CATEGORIES], pa.string())
