"""Adapter of Ali-CCP as published."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.store.files import single_array
from pipeline.logs.cleaning import RejectCollector
from pipeline.logs.records import Records
from pipeline.published.blocks import AdaptedBlock, adapt_block, is_missing, keep_clicks, read_csv


def adapt_ali_ccp(folder: Path) -> Iterator[AdaptedBlock]:
    """Clicks. The common features of a line's session have its user, the features of the line its item and scenario."""
    for split in ("train", "test"):
        path = folder / f"common_features_{split}.csv"
        sessions, users = [], []
        for records in read_csv(path, {"session": 0, "features": 2}):
            fields = {**records.fields, "user": _feature(records.fields["features"], 101)}
            rejects = RejectCollector(len(records.lines))
            rejects.reject("missing", is_missing(fields, "session", "user"), fields["features"])
            accepted = rejects.keep_accepted(pa.table([fields["session"], fields["user"]], ["session", "user"]))
            sessions += accepted["session"].chunks
            users += accepted["user"].chunks
            yield adapt_block(path, records, rejects, None)
        user_of_session = pa.chunked_array(sessions, pa.string()), pa.chunked_array(users, pa.string())
        path = folder / f"sample_skeleton_{split}.csv"
        for records in read_csv(path, {"click": 1, "session": 3, "features": 5}):
            yield _adapt_clicks(path, records, *user_of_session)


def _adapt_clicks(path: Path, records: Records, sessions: pa.ChunkedArray, users: pa.ChunkedArray) -> AdaptedBlock:
    clicks = keep_clicks(records)
    fields = clicks.fields
    features = fields["features"]
    item, scenario = _feature(features, 205), _feature(features, 301)
    user = users.take(pc.index_in(fields["session"], value_set=sessions))
    rejects = RejectCollector(len(clicks.lines))
    rejects.reject("number", pc.not_equal(fields["click"], "1"), fields["click"])
    rejects.reject("missing", is_missing({"item": item, "scenario": scenario}, "item", "scenario"), features)
    rejects.reject("unknown", pc.is_null(single_array(user)), fields["session"])
    rows = pa.table([user, item, scenario], ["user_id", "item_id", "scenario"])
    return adapt_block(path, clicks, rejects, rows, len(records.lines))


def _feature(features: pa.Array, field: int) -> pa.Array:
    """The id of a line's feature of a field; a feature is field, \\x02, id, \\x03, value, and \\x01 separates them."""
    feature = pc.extract_regex(features, rf"(?:^|\x01){field}\x02(?P<id>[^\x01-\x03]+)\x03")
    return pc.struct_field(feature, "id")
