"""Records of runs are what was written, or refused."""

import json
import random

import pytest
from damage import DAMAGES

from data_contracts.store.runs import Attempt, RunRecord

RECORD = RunRecord(
    name="r",
    artifacts={"nodes": ("nodes", "0" * 20)},
    config={"train": {"rate": 0.01}},
    seconds={"nodes": 1.25},
    attempt=Attempt(command="edda run r", at="now", config={"name": "ä"}, planned={"a": ("graph", "1" * 20)}, costs={}),
    later=[1, {"x": 2}],
)


def test_a_record_reads_as_it_was_written_with_keys_that_are_not_known():
    assert RunRecord.parse(RECORD.as_json(), "run.json") == RECORD
    assert RunRecord.parse(RECORD.as_json(), "run.json").as_json() == RECORD.as_json()


def test_a_record_without_a_digest_is_of_an_earlier_version():
    record = json.loads(RECORD.as_json())
    del record["sha256"]
    assert RunRecord.parse(json.dumps(record).encode(), "run.json") == RECORD


@pytest.mark.parametrize("damage", [*DAMAGES, lambda content: b"[" * 100_000, lambda content: b"[]"])
def test_a_damaged_record_is_refused_in_one_line(damage):
    with pytest.raises(
        ValueError, match=r"^s/runs/r/run\.json is damaged: .*; delete s/runs/r, what it refers"
    ) as error:
        RunRecord.parse(damage(RECORD.as_json()), "s/runs/r/run.json")
    assert "\n" not in str(error.value)


def test_no_flipped_bit_gives_another_record():
    content, draw, read = RECORD.as_json(), random.Random(1), 0
    for _ in range(1000):
        changed = bytearray(content)
        changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        try:
            record = RunRecord.parse(bytes(changed), "run.json")
        except ValueError:
            continue
        # white space between values, or the name of the digest, without which the record is of an earlier version
        known = set(RECORD.model_dump())
        assert {name: value for name, value in record.model_dump().items() if name in known} == RECORD.model_dump()
        read += 1
    assert read < 200
