"""Say when Numba compiles kernels, which takes seconds in which a stage shows no progress."""

from __future__ import annotations

import logging
import sys
from functools import cache
from typing import Any

log = logging.getLogger(__name__)


def announce_compilation() -> None:
    """Log one line when the first kernel is compiled in this process; none where all of them are in Numba's cache.

    To be called when a stage's modules are imported: nothing imports Numba for this.
    """
    if "numba.core.event" in sys.modules:
        _register()


@cache
def _register() -> Any:
    """The listener that hears of this process's compilations."""
    from numba.core import event

    class FirstCompilation(event.Listener):
        """Hears of the compilation of each function, also of those that kernels call."""

        is_announced = False

        def on_start(self, event: event.Event) -> None:  # noqa: ARG002
            """A function is about to be compiled, because no cache has it."""
            if not self.is_announced:
                self.is_announced = True
                log.info("compiling kernels for this machine; they are kept, so that later runs start at once")

        def on_end(self, event: event.Event) -> None:
            """Nothing is left to say."""

    listener = FirstCompilation()
    event.register("numba:compile", listener)  # type: ignore[no-untyped-call]
    return listener
