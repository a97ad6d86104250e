"""Adapter of Taobao display advertising as published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.store.files import single_array
from pipeline.logs.cleaning import RejectCollector
from pipeline.published.blocks import AdaptedBlock, adapt_block, is_missing, keep_clicks, read_csv

_CATEGORIES = 16


def adapt_taobao_ad(folder: Path) -> Iterator[AdaptedBlock]:
    """Clicks with the ad's product category; all but the categories with most clicks are `other`."""
    path = folder / "ad_feature.csv"
    ads, categories = [], []
    for records in read_csv(path, {"item": "adgroup_id", "category": "cate_id"}):
        ads.append(records.fields["item"])
        categories.append(records.fields["category"])
        yield adapt_block(path, records, RejectCollector(len(records.lines)), None)
    ad_ids, category_of_ad = pa.chunked_array(ads, pa.string()), pa.chunked_array(categories, pa.string())
    path = folder / "raw_sample.csv"
    largest = _find_largest(path, ad_ids, category_of_ad)
    columns = {"user": "user", "item": "adgroup_id", "pid": "pid", "timestamp": "time_stamp", "click": "clk"}
    for records in read_csv(path, columns):
        clicks = keep_clicks(records)
        fields = clicks.fields
        category = single_array(category_of_ad.take(pc.index_in(fields["item"], value_set=ad_ids)))
        rejects = RejectCollector(len(clicks.lines))
        rejects.reject("number", pc.not_equal(fields["click"], "1"), fields["click"])
        rejects.reject("missing", is_missing(fields, "user", "item", "pid", "timestamp"), None)
        rejects.reject("unknown", pc.is_null(category), fields["item"])
        category = pc.if_else(pc.is_in(category, value_set=largest), category, "other")
        rows = pa.table(
            [fields["user"], fields["item"], fields["pid"], category, fields["timestamp"]],
            ["user_id", "item_id", "pid", "category", "timestamp"],
        )
        yield adapt_block(path, clicks, rejects, rows, len(records.lines))


def _find_largest(path: Path, ads: pa.ChunkedArray, categories: pa.ChunkedArray) -> pa.Array:
    clicks: Counter[str] = Counter()
    for records in read_csv(path, {"item": "adgroup_id", "click": "clk"}):
        items = records.fields["item"].filter(pc.equal(records.fields["click"], "1"))
        clicked = categories.take(pc.index_in(items, value_set=ads)).drop_null()
        clicks.update({count["values"]: count["counts"] for count in clicked.value_counts().to_pylist()})
    return pa.array(sorted(clicks, key=lambda category: (-clicks[category], category))[:_CATEGORIES], pa.string())
