"""What `main` reads of a command line before the command is parsed and imported."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Self

from cyclopts import Group, Parameter

MESSAGES = Group("Messages", sort_key=100)


@Parameter(name="*")
@dataclass(frozen=True)
class Messages:
    """What a command prints to standard error; `main` reads these options before the command is parsed."""

    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"), negative="", show_default=False, group=MESSAGES)] = False
    """Print only warnings and errors, no progress."""
    verbose: Annotated[bool, Parameter(name=("--verbose", "-v"), negative="", show_default=False, group=MESSAGES)] = (
        False
    )
    """Also print each stage's key, settings and cost, and where each message comes from."""
    log_json: Annotated[bool, Parameter(negative="", show_default=False, group=MESSAGES)] = False
    """Print messages as JSON, one a line: time, level, logger, message."""
    debug: Annotated[bool, Parameter(negative="", show_default=False, group=MESSAGES)] = False
    """As --verbose, and show the traceback of an error."""

    @classmethod
    def given(cls, arguments: Sequence[str]) -> Self:
        """The options among a command's arguments, wherever they stand."""
        words = set(arguments)
        return cls(
            quiet=bool(words & {"--quiet", "-q"}),
            verbose=bool(words & {"--verbose", "-v"}),
            log_json="--log-json" in words,
            debug="--debug" in words,
        )

    def level(self, *, is_first: bool) -> int:
        """The lowest level of messages that are printed.

        Args:
            is_first: this is the only process, or the one of several that speaks for all.
        """
        if self.debug or self.verbose:
            return logging.DEBUG
        return logging.WARNING if self.quiet or not is_first else logging.INFO


BASELINES_OPTION = "--baselines"


def fill_in_baselines(arguments: Sequence[str]) -> list[str]:
    """Give `--baselines` without a list the value `all`, because the parser has no options with optional values."""
    followers = [*arguments[1:], "-"]
    return [
        f"{BASELINES_OPTION}=all"
        if argument == BASELINES_OPTION and (follower.startswith("-") or follower.endswith(".toml"))
        else argument
        for argument, follower in zip(arguments, followers, strict=False)
    ]
