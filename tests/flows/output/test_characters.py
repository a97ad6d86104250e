"""Control and bidirectional characters are escaped, and what an encoding lacks is replaced."""

from __future__ import annotations

import io
import json
import sys

import pytest

from flows.output.characters import escape, show_what_can_be_shown
from flows.output.console import Pace, inform, print_result
from flows.output.tables import Table


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain café 漢字 🎬 a\u00a0b", "plain café 漢字 🎬 a\u00a0b"),
        ("\x1b[31mred\x07", "\\u001b[31mred\\u0007"),
        ("a\u202eb\u2066c\u200fd", "a\\u202eb\\u2066c\\u200fd"),
        ("\x9b31m\x7f\x00", "\\u009b31m\\u007f\\u0000"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("line\nend\r\u2028\ttab", "line\\nend\\r\\u2028\\ttab"),
        ("\ufeffmark \U000e0041tag", "\\ufeffmark \\udb40\\udc41tag"),
        ("\ud800", "\\ud800"),
        ("", ""),
    ],
)
def test_only_characters_that_steer_a_terminal_are_escaped(text, escaped):
    assert escape(text) == escaped


def test_kept_characters_are_unchanged():
    assert escape("a\nb\x1bc", keep="\n") == "a\nb\\u001bc"


def test_escaped_json_has_the_same_value():
    value = {"id": '\u202e\x1b\x9b\U000e0041\n"\\', "n": [1.5, None]}
    text = escape(json.dumps(value, ensure_ascii=False, indent=1), "\n")
    assert json.loads(text) == value
    assert "\x9b" not in text


def test_results_messages_tables_and_progress_are_escaped(capsys):
    print_result("a\x1b\n\tb")
    inform("c\u202e")
    assert capsys.readouterr() == ("a\\u001b\n\tb\n", "c\\u202e\n")
    table = Table("t\x07", ("x", "y\u202e"), (("1\n2", "3|4"),))
    assert table.plain() == "t\\u0007\nx     y\\u202e\n1\\n2      3|4"
    assert "| 1\\n2 | 3\\|4 |" in table.markdown()
    marked = Table("a* b*", ("run", "Δ"), (("one", ""), ("two", "+1*")))
    assert marked.plain().splitlines()[-1] == "two  +1*"
    quoted = "**a\\* b\\***\n\n| run | Δ |\n| --- | ---: |\n| **one** |  |\n| two | +1\\* |"
    assert marked.markdown(bold="one") == quoted
    assert Pace(lambda: 0.0).summary(1, 2, "rows", "in \x1b[31m") == "1 of 2 rows, in \\u001b[31m"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", "0.4–0.5 ≥ é 漢\n"),
        ("latin-1", "0.4-0.5 >= é \\u6f22\n"),
        ("ascii", "0.4-0.5 >= \\xe9 \\u6f22\n"),
    ],
)
def test_what_an_encoding_lacks_is_replaced(monkeypatch, encoding, shown):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, write_through=True))
    show_what_can_be_shown()
    print_result("0.4–0.5 ≥ é 漢")
    assert raw.getvalue().decode(encoding) == shown
