"""Failures of runs: exit statuses, whether a retry may help, and one line with place, cause and remedy."""

from __future__ import annotations

import errno

from flows.output.characters import escape

FAILURE, USAGE, INTERRUPTED = 1, 2, 130
"""Exit statuses; 0 is success."""

_TRANSIENT_ERRNOS = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.EINTR,
    errno.EIO,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.ESTALE,
}

_SHORT_WRITE = " requested and "
"""Part of NumPy's message if fewer values were written than requested; the error has no errno and no reason."""


def is_transient(error: BaseException) -> bool:
    """The error may not occur on the next try: a lost connection, a time-out, an interrupted or busy file system."""
    return isinstance(error, ConnectionError | TimeoutError) or (
        isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS
    )


def is_system_error(error: BaseException) -> bool:
    """The error is the operating system's, or NumPy's of a full disk; its message names neither stage nor remedy."""
    return isinstance(error, OSError) and (error.errno is not None or _SHORT_WRITE in str(error))


def format_failure(error: BaseException) -> str:
    """One line: where the run stopped, if a stage had started; the error's message; how to continue."""
    stage_note = [*getattr(error, "__notes__", [])][-1:]
    message = str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"
    message += " (is the disk full?)" if is_system_error(error) and _SHORT_WRITE in message else ""
    remedy = "this may pass: start it again" if is_transient(error) else "fix the cause and start it again"
    line = escape(": ".join([*stage_note, "; ".join(message.splitlines())]))
    return f"{line} — {remedy}; what was finished is kept"
