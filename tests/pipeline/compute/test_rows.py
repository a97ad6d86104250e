import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.compute.rows import ragged_arrays, ragged_tables


@given(st.lists(st.integers(0, 7), max_size=30), st.integers(1, 12))
def test_ragged_arrays_survive_any_division_into_tables(lengths, elements_per_file):
    indptr = np.concatenate([[0], np.cumsum(np.array(lengths, np.int64))]).astype(np.int64)
    values = np.arange(indptr[-1], dtype=np.int32)
    weights = values.astype(np.float32) / 2
    tables = list(ragged_tables(5, indptr, {"v": values, "w": weights}, elements_per_file))
    found, (found_values, found_weights) = ragged_arrays(pa.concat_tables(tables), ["v", "w"])
    np.testing.assert_array_equal(found, indptr)
    np.testing.assert_array_equal(found_values, values)
    np.testing.assert_array_equal(found_weights, weights)
    assert pa.concat_tables(tables)["node"].to_pylist() == list(range(5, 5 + len(lengths)))


@given(st.lists(st.integers(0, 7), max_size=30), st.integers(1, 12))
def test_no_table_is_larger_than_asked_unless_one_row_is(lengths, elements_per_file):
    indptr = np.concatenate([[0], np.cumsum(np.array(lengths, np.int64))]).astype(np.int64)
    for table in ragged_tables(0, indptr, {"v": np.zeros(indptr[-1], np.int32)}, elements_per_file):
        elements = sum(len(row) for row in table["v"].to_pylist())
        assert elements <= elements_per_file or table.num_rows == 1
