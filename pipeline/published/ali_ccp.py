"""Ali-CCP, as published, made logs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.logs.cleaning import Sorter
from pipeline.logs.records import Records
from pipeline.published.blocks import Part, clicked_of, delimited, is_missing, part_of


def _ali_ccp(folder: Path) -> Iterator[Part]:
    """Clicks; a line's session leads to its user in the common features, its own features to item and scenario."""
    for split in ("train", "test"):
        path = folder / f"common_features_{split}.csv"
        sessions, users = [], []
        for records in delimited(path, {"session": 0, "features": 2}):
            fields = {**records.fields, "user": _feature(records.fields["features"], 101)}
            sorter = Sorter(len(records.lines))
            sorter.reject("missing", is_missing(fields, "session", "user"), fields["features"])
            good = sorter.of_good(pa.table([fields["session"], fields["user"]], ["session", "user"]))
            sessions += good["session"].chunks
            users += good["user"].chunks
            yield part_of(path, records, sorter, None)
        known, names = pa.chunked_array(sessions, pa.string()), pa.chunked_array(users, pa.string())
        path = folder / f"sample_skeleton_{split}.csv"
        for records in delimited(path, {"click": 1, "session": 3, "features": 5}):
            yield _ali_ccp_clicks(path, records, known, names)


def _ali_ccp_clicks(path: Path, records: Records, sessions: pa.ChunkedArray, users: pa.ChunkedArray) -> Part:
    clicked = clicked_of(records)
    fields = clicked.fields
    features = fields["features"]
    item, scenario = _feature(features, 205), _feature(features, 301)
    user = users.take(pc.index_in(fields["session"], value_set=sessions))
    sorter = Sorter(len(clicked.lines))
    sorter.reject("number", pc.not_equal(fields["click"], "1"), fields["click"])
    sorter.reject("missing", is_missing({"item": item, "scenario": scenario}, "item", "scenario"), features)
    sorter.reject("unknown", pc.is_null(user.combine_chunks()), fields["session"])
    rows = pa.table([user, item, scenario], ["user_id", "item_id", "scenario"])
    return part_of(path, clicked, sorter, rows, len(records.lines))


def _feature(features: pa.Array, field: int) -> pa.Array:
    """The id of a line's feature of a field; features stand as field, \\x02, id, \\x03, value, with \\x01 between."""
    found = pc.extract_regex(features, rf"(?:^|\x01){field}\x02(?P<id>[^\x01-\x03]+)\x03")
    return pc.struct_field(found, "id")
