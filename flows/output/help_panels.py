"""How help is laid out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cyclopts.help import DefaultFormatter, InlineText
from rich.text import Text

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions


class ReflowedPanels(DefaultFormatter):
    """Panels whose texts begin with a capital, and are broken where the terminal ends, not as a docstring is."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print a panel."""
        for entry in panel.entries:
            description = entry.description
            text = description.primary_renderable if isinstance(description, InlineText) else None
            if isinstance(text, Text):
                reflowed = re.sub(r"\s*\n\s*", " ", text.plain)
                text.plain = reflowed[:1].upper() + reflowed[1:]
        super().__call__(console, options, panel)
