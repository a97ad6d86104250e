"""Characters that must not reach a terminal or a page as they are: ids and domains of logs may hold any."""

from __future__ import annotations

import codecs
import sys
from functools import cache
from io import TextIOWrapper
from unicodedata import category

_JOINERS = "\u200c\u200d"
"""Format characters that words of several scripts, and emoji, are written with."""
_KINDS = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Control, format (also bidirectional), surrogate, line and paragraph separator."""


def escape(text: str, keep: str = "") -> str:
    """Text with control and bidirectional characters as JSON writes them, `\\u001b`; all others are unchanged.

    JSON stays JSON, of the same value.

    Args:
        text: any.
        keep: characters to leave as they are, e.g. those between lines that are printed at once.
    """
    if text.isprintable():
        return text
    return "".join(_escaped(character) if character not in keep else character for character in text)


@cache
def _escaped(character: str) -> str:
    if category(character) not in _KINDS or character in _JOINERS:
        return character
    if character in "\n\t\r":
        return repr(character)[1:-1]
    number = ord(character)
    if number <= 0xFFFF:
        return f"\\u{number:04x}"
    return f"\\u{0xD800 + (number - 0x10000 >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"


_SUBSTITUTES = {
    "–": "-", "—": "-", "−": "-", "…": "...", "→": "->", "≥": ">=", "≤": "<=", "×": "x", "·": "|", "±": "+-",
    "━": "-", "╸": "-", "╺": "-", "“": '"', "”": '"', "’": "'",
}  # fmt: skip
"""What we print ourselves → what looks like it in ASCII."""

_HANDLER = "edda-substitute"


def show_what_can_be_shown() -> None:
    """Let standard output and error replace what their encoding lacks, e.g. on a Latin-1 terminal, instead of failing.

    What looks like it in ASCII stands in for our own punctuation, an escape sequence for all else.
    """
    codecs.register_error(_HANDLER, _substitute)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _substitute(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    shown = (_SUBSTITUTES.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text)
    return "".join(shown), error.end
