"""Tensors are mapped as they were written; a header that lies about them is refused before anything is allocated."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import rehash

from data_contracts.contracts import NEIGHBOURS
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from data_contracts.store.files import tensors_header
from data_contracts.store.store import Store
from model.compute.mapped_tensors import check_tensors, open_tensors

NAME = "rows/union.safetensors"
HEADER = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "I64", "shape": [2], "data_offsets": [24, 40]},
    "none": {"dtype": "I32", "shape": [0, 7], "data_offsets": [40, 40]},
}
DATA = np.arange(6, dtype="<f4").tobytes() + np.array([7, 2**40], "<i8").tobytes()


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    def write(draft: Draft) -> None:
        (draft.folder / "rows").mkdir()
        sizes = {"a": ("F32", (2, 3), 24), "b": ("I64", (2,), 16), "none": ("I32", (0, 7), 0)}
        (draft.folder / NAME).write_bytes(tensors_header(sizes) + DATA)

    return Store(tmp_path).make(NEIGHBOURS, {}, {}, write)


def test_tensors_are_what_was_written(artifact):
    tensors = open_tensors(artifact, NAME)
    assert {name: (tensor.dtype.name, tensor.tolist()) for name, tensor in tensors.items()} == {
        "a": ("float32", [[0, 1, 2], [3, 4, 5]]),
        "b": ("int64", [7, 2**40]),
        "none": ("int32", []),
    }
    assert check_tensors(artifact, NAME) == artifact.path / NAME


@pytest.mark.parametrize(
    ("shapes", "problem"),
    [
        ({"a": (2, 3), "c": (None,)}, "tensor 'c' has shape None, must have [None]"),
        ({"a": (2, 4)}, "tensor 'a' has shape [2, 3], must have [2, 4]"),
        ({"a": (None,)}, "tensor 'a' has shape [2, 3], must have [None]"),
        ({"b": (2, None)}, "tensor 'b' has shape [2], must have [2, None]"),
    ],
)
def test_tensors_of_other_shapes_than_expected_are_refused(artifact, shapes, problem):
    assert open_tensors(artifact, NAME, {"a": (None, 3), "b": (2,)})["a"].shape == (2, 3)
    with pytest.raises(OSError, match=re.escape(problem)) as error:
        open_tensors(artifact, NAME, shapes)
    assert str(error.value).startswith(str(artifact.folder / NAME))


def _with(name: str, **changes: Any) -> dict[str, Any]:
    return {**HEADER, name: {**HEADER[name], **changes}}


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ({**HEADER, "b": {**HEADER["b"], "data_offsets": [16, 32]}}, "'b' is at bytes 16 to 32, must be at 24 to 40"),
        (_with("b", data_offsets=[32, 48]), "'b' is at bytes 32 to 48, must be at 24 to 40"),
        (_with("a", data_offsets=[24, 0]), "'a' is at bytes 24 to 0, must be at 0 to 24"),
        (_with("a", shape=[2, 4]), "'a' is at bytes 0 to 24, must be at 0 to 32"),
        (_with("a", shape=[2**40, 2**40]), "'a' is at bytes 0 to 24, must be at 0 to 4835703278458516698824704"),
        (_with("a", shape=[-2, -3]), "-2 must be a whole number from 0"),
        (_with("a", shape=[2.0, 3]), "2.0 must be a whole number from 0"),
        (_with("a", dtype="F64"), "'a' is F64, must be one of F32, I32, I64"),
        (_with("a", data_offsets=[0]), "not enough values"),
        ({**HEADER, "a": {"dtype": "F32", "shape": [2, 3]}}, "data_offsets"),
        ({"a": HEADER["a"]}, "tensors have 24 bytes, must fill the 40 behind the header"),
        ({**HEADER, "c": HEADER["b"]}, "'c' is at bytes 24 to 40, must be at 40 to 56"),
        ([], "header is [], must be an object"),
        ({"a": 3}, "not subscriptable"),
        (b"{", "Expecting property name"),
        (b"[" * 100_000, "recursion"),
        (b"\x80abc", "codec can't decode"),
        (2**63, "header has 9,223,372,036,854,775,808 bytes, must fit into the file's"),
        (41, "header has 41 bytes, must fit into the file's 48"),
        (None, "header has 7 bytes, must fit into the file's 3"),
    ],
)
def test_a_header_that_lies_is_refused_in_one_line(artifact, header, problem):
    if header is None:
        content = b"\x07\x00\x00"
    elif isinstance(header, int):
        content = header.to_bytes(8, "little") + DATA
    else:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        content = len(text).to_bytes(8, "little") + text + DATA
    (artifact.folder / NAME).write_bytes(content)
    wrong = rehash(artifact)
    for read in (open_tensors, check_tensors):
        with pytest.raises(OSError, match=f"^{artifact.folder / NAME} is damaged: safetensors: ") as refused:
            read(wrong, NAME)
        assert problem in str(refused.value)
        assert str(refused.value).endswith(f"; delete {artifact.folder} to make it again")
        assert "\n" not in str(refused.value)
