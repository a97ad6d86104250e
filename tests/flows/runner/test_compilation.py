"""One line says that kernels are compiled, and none is written where they are not."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from numba import njit
from numba.core import event

from flows.runner import compilation


def test_the_first_compilation_is_announced_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    event.unregister("numba:compile", compilation._register())  # an earlier test may have begun to listen
    compilation._register.cache_clear()
    compilation.announce_compilation()
    compilation.announce_compilation()
    twice, thrice = njit(lambda values: values * 2), njit(lambda values: values * 3)
    assert caplog.messages == []
    assert list(twice(np.arange(3))) == [0, 2, 4]
    assert list(thrice(np.arange(3))) == [0, 3, 6]
    assert caplog.messages == ["compiling kernels for this machine; they are kept, so that later runs start at once"]
    assert list(twice(np.arange(2))) == [0, 2]
    assert len(caplog.messages) == 1
