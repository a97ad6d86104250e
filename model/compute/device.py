"""The device that a stage computes on, and how the process keeps freed memory."""

from __future__ import annotations

import ctypes
from typing import Literal

import torch

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENAS = -1, -2, -3, -8
"""Options of mallopt(3), as malloc.h has them."""

DeviceName = Literal["auto", "cpu", "cuda"]


def require_device(name: DeviceName) -> None:
    """Check a setting, without a CUDA context.

    Raises:
        ValueError: the setting is "cuda" and torch finds no CUDA device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("train.device is 'cuda', but this torch finds no CUDA device; set it to 'auto' or 'cpu'")


def choose_device(name: DeviceName) -> torch.device:
    """The device that a setting names; auto takes CUDA if there is one.

    Raises:
        ValueError: as in `require_device`.
    """
    require_device(name)
    chosen = name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(chosen, torch.cuda.current_device()) if chosen == "cuda" else torch.device(chosen)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for later requests, until the process ends; does nothing without glibc.

    A training step asks for the same tens of megabytes as the step before. By default they go back to the kernel in
    between, which fills them with zeros again: a fifth to a third of a step's time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for option, value in ((_TRIM_THRESHOLD, 2**31 - 1), (_MMAP_THRESHOLD, 2**25), (_TOP_PAD, 2**26), (_ARENAS, 1)):
        mallopt(option, value)
