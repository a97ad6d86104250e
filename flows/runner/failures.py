"""Failures of runs: exit statuses, whether a retry may help, and one line with place, cause and remedy."""

from __future__ import annotations

import errno
from pathlib import Path

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


_REMEDIES = {
    errno.ENOSPC: "free space there, or choose another store with --store",
    errno.EDQUOT: "free space there, or choose another store with --store",
    errno.EMFILE: "let processes open more files, e.g.: ulimit -n 10240",
    errno.ENFILE: "let the system open more files",
    errno.EACCES: "do it as a user who may",
    errno.EPERM: "do it as a user who may",
    errno.EROFS: "choose a folder that can be written",
    errno.ENOENT: "make it again or name another; `edda run` makes what is missing of a run",
    errno.ENOTDIR: "name a folder, or move the file away",
    errno.EISDIR: "name a file, or move the folder away",
    errno.EEXIST: "move away what is there, or name another",
    errno.ELOOP: "correct the link",
    errno.EADDRINUSE: "choose another --port, or stop what listens there",
    errno.EADDRNOTAVAIL: "choose an address of this machine",
    errno.ENAMETOOLONG: "choose a shorter one",
}


def is_out_of_memory(error: BaseException) -> bool:
    """An allocation failed, in Python, NumPy, Arrow or torch."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in _NO_MEMORY)
    )


_NO_MEMORY = ("allocate memory", "out of memory", "not enough memory")
"""Phrases of torch and of the libraries below it."""


def _describe_memory(error: BaseException) -> str:
    from data_contracts.resources import free_memory, peak_memory_mib
    from data_contracts.store.files import one_line

    size = one_line(error).rstrip(".") or "of a size that the system does not say"
    free = f"{free_memory() >> 20:,} MiB are free now, the process had {peak_memory_mib():,} at most"
    remedy = "lower compute.memory_mib or compute.threads, or what makes it large (train.width, evaluate.candidates)"
    return f"not enough memory: {size}; {free}; {remedy}, or use a machine with more"


def describe_error(error: BaseException) -> str:
    """An error's message; one of the operating system names file, reason and remedy, without its number."""
    if is_out_of_memory(error):
        return _describe_memory(error)
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        names = " → ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        if not names and _is_current_folder_deleted():
            return "the current folder was deleted; change to another one"
        line = f"{names}: {error.strerror}" if names else error.strerror
        return f"{line}; {_REMEDIES[error.errno]}" if error.errno in _REMEDIES else line
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    return str(error)


def _is_current_folder_deleted() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def format_failure(error: BaseException) -> str:
    """One line: where the run stopped, if a stage had started; the error's message; how to continue."""
    stage_note = [*getattr(error, "__notes__", [])][-1:]
    is_expected = isinstance(error, ValueError | OSError) or is_out_of_memory(error)
    message = describe_error(error) if is_expected else f"{type(error).__name__}: {error}"
    message += " (is the disk full?)" if is_system_error(error) and _SHORT_WRITE in message else ""
    remedy = "this may pass: start it again" if is_transient(error) else "fix the cause and start it again"
    line = escape(": ".join([*stage_note, "; ".join(message.splitlines())]))
    return f"{line} — {remedy}; what was finished is kept"
