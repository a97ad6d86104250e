"""What went wrong in a run: whether trying again may help, and one line that says what, where and how to go on."""

from __future__ import annotations

import errno

_PASSING = {errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ESTALE}

_CUT_SHORT = " requested and "
"""NumPy's words where a file takes fewer values than were to be written: no errno, no reason."""


def is_passing(error: BaseException) -> bool:
    """An error that may be gone on the next try: a connection, a time-out, an interrupted or busy file system."""
    return isinstance(error, ConnectionError | TimeoutError) or (isinstance(error, OSError) and error.errno in _PASSING)


def is_the_machines(error: BaseException) -> bool:
    """An error of the operating system, whose words name neither stage nor remedy; NumPy's of a full disk too."""
    return isinstance(error, OSError) and (error.errno is not None or _CUT_SHORT in str(error))


def in_one_line(error: BaseException) -> str:
    """Where it stopped, if a stage had begun; the error's own words; how to go on."""
    where = [*getattr(error, "__notes__", [])][-1:]
    words = str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"
    words += " (is the disk full?)" if is_the_machines(error) and _CUT_SHORT in words else ""
    remedy = "it may have passed: start it again" if is_passing(error) else "put that right and start it again"
    return f"{': '.join([*where, '; '.join(words.splitlines())])} — {remedy}, what was finished is kept"
