"""The machine a stage runs on: its device and its memory."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENAS = -1, -2, -3, -8
"""Options of mallopt(3), as malloc.h has them."""


def device_of(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device a setting names; auto takes CUDA where there is one.

    Raises:
        RuntimeError: CUDA is asked for and not there.
    """
    import torch  # noqa: PLC0415 - whoever only watches memory shall not carry torch in it

    if name == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("device 'cuda': no CUDA device is available to this torch; set device to 'auto' or 'cpu'")
    chosen = name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(chosen, torch.cuda.current_device()) if chosen == "cuda" else torch.device(chosen)


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next request, for as long as the process lives; elsewhere nothing happens.

    A training step asks for the same tens of megabytes as the step before. By default they go back to the kernel in
    between, which fills them with zeros again: a fifth to a third of a step's time.
    """
    try:
        tune = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for option, value in ((_TRIM_THRESHOLD, 2**31 - 1), (_MMAP_THRESHOLD, 2**25), (_TOP_PAD, 2**26), (_ARENAS, 1)):
        tune(option, value)
