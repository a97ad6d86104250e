"""Tables of text: as wide as need be for a pipe, within the width of a terminal else."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from flows.output.tables import Table

METRICS = Table(
    "Test metrics by domain",
    ("domain", "auc", "Δ  ", "recall@1", "Δ  ", "full_ndcg@20", "Δ  "),
    (
        ("north", "0.7426 ±0.0303", "", "0.4140 ±0.0436", "", "0.2329 ±0.0423", ""),
        ("南北", "0.6600 ±0.0277", "-0.0826† ", "0.2718 ±0.0409", "-0.1422  ", "0.1351 ±0.0251", "+0.0121*†"),
    ),
    together=2,
)
REASON = "store/neighbours/dadf94b177ee80f16dde/part-00000.parquet: size is 133128, must be 133126; delete it"
STATES = Table(
    "What is missing", ("artifact", "state", "why"), (("graph", "exists", ""), ("pairs", "damaged", REASON)), left=True
)


def test_without_a_width_every_row_is_one_line_and_columns_are_aligned() -> None:
    assert METRICS.plain().splitlines() == [
        "Test metrics by domain",
        "domain             auc        Δ          recall@1        Δ      full_ndcg@20        Δ",
        "north   0.7426 ±0.0303             0.4140 ±0.0436             0.2329 ±0.0423",
        "南北    0.6600 ±0.0277  -0.0826†   0.2718 ±0.0409  -0.1422    0.1351 ±0.0251  +0.0121*†",
    ]
    assert STATES.plain().splitlines()[-1] == f"pairs     damaged  {REASON}"


def test_a_terminal_that_is_wide_enough_shows_what_a_pipe_gets() -> None:
    assert METRICS.plain(200) == METRICS.plain()
    assert STATES.plain(200) == STATES.plain()


@pytest.mark.parametrize("width", [40, 60, 80])
@pytest.mark.parametrize("table", [METRICS, STATES])
def test_a_table_fits_any_terminal_and_loses_nothing(table: Table, width: int) -> None:
    text = table.plain(width)
    assert max(map(cell_len, text.splitlines())) <= width
    shown = "".join(text.split())
    for cell in (cell for row in (table.header, *table.rows) for cell in row):
        wrapped = "".join(cell.split())
        assert wrapped in shown or all(word in text for word in cell.split())


def test_columns_that_do_not_fit_follow_after_the_first_one_a_difference_beside_its_value() -> None:
    first, second = METRICS.plain(60).split("\n\n")
    assert first.splitlines()[1].split() == ["domain", "auc", "Δ", "recall@1", "Δ"]
    assert second.splitlines()[0].split() == ["domain", "full_ndcg@20", "Δ"]
    assert second.splitlines()[2].split() == ["南北", "0.1351", "±0.0251", "+0.0121*†"]


def test_long_cells_are_wrapped_in_their_column() -> None:
    lines = STATES.plain(60).splitlines()
    assert lines[1] == "artifact  state    why"
    assert lines[3].startswith("pairs     damaged  store/neighbours/")
    assert all(line.startswith(" " * 19) for line in lines[4:])
    assert "".join(line[19:].strip() for line in lines[3:]).replace(" ", "") == REASON.replace(" ", "")


def test_a_table_without_rows_is_its_header() -> None:
    assert Table("none", ("a", "b"), ()).plain(60) == Table("none", ("a", "b"), ()).plain() == "none\na  b"
