"""Wrong usage of a command is one line that says what was found, and what is right."""

from __future__ import annotations

import pytest
from fake_stages import edda, here

__all__ = ["here"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["run"], 'Command "run" parameter RUN requires an argument. (see: edda help run)'),
        (["run", "r.toml", "--st", "x"], "Unknown option: --st. Did you mean --set? (see: edda help run)"),
        (
            ["run", "r.toml", "s.toml"],
            "run: found 's.toml' after its last argument, must be left out (see: edda help run)",
        ),
        (
            ["recommend", "r", "--domain", "d"],
            "recommend: found none of --user, --like, --new-user, must be exactly one (see: edda help recommend)",
        ),
        (
            ["recommend", "r", "--domain", "d", "--user", "u", "--like", "i"],
            "recommend: found --user and --like, must be exactly one of --user, --like, --new-user (see: edda help",
        ),
        (["rnu"], 'Unknown command "rnu". Did you mean "run"?'),
    ],
)
def test_wrong_usage_is_one_line_like_any_other_error(here, capsys, arguments: list[str], problem: str) -> None:
    assert edda(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"edda: {problem}")
    assert err.count("\n") == 1
