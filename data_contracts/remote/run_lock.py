"""Claims on a run's name in a remote store: while one machine works on it, the next waits.

Object storage has no locks. So whoever works on a name has put a file there, by a put that fails where there is one,
and changes it every few seconds. Who waits takes over when it has stopped changing, and at once where it is what a
killed process of the same machine has left. No clocks are compared. Two machines may still work at once, if one loses
its connection for a minute or both take over in one moment; that costs work and no result, as of several writers of an
artifact one wins.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from data_contracts.remote.client import Remote
from data_contracts.store.files import write_atomically

log = logging.getLogger(__name__)

SECONDS_BETWEEN_SIGNS = 10.0
SECONDS_UNTIL_GONE = 60.0
SECONDS_BETWEEN_LOOKS = 1.0


@contextmanager
def claimed(remote: Remote, name: str, memory: Path) -> Iterator[None]:
    """Work on a run's name while no other machine does; waits for one that does.

    Args:
        remote: the store's folder on object storage.
        name: the run's.
        memory: a file of this machine that remembers its last claim; one process at a time may come here with it.
    """
    file = f"runs/{name}/working"
    before = memory.read_bytes() if memory.exists() else b"nobody"
    own = f"{socket.gethostname()}, process {os.getpid()}\n{uuid.uuid4().hex}\n".encode()
    write_atomically({memory: own})
    _take(remote, file, own, before)
    ended = threading.Event()
    signs = threading.Thread(target=_give_signs, args=(remote, file, own, ended), daemon=True)
    signs.start()
    try:
        yield
    finally:
        ended.set()
        signs.join()
        with suppress(OSError):  # then it is gone for the others when its time has passed
            if _is_of(own, remote.read(file)):
                remote.delete([file])


def _take(remote: Remote, file: str, own: bytes, before: bytes) -> None:
    seen, changed = b"", 0.0
    while not remote.create(file, own):
        found = remote.read(file)
        if found is None:  # just withdrawn
            continue
        if not seen and not _is_of(before, found):
            log.info("waiting for another machine (%s), see %s/%s", _who(found), remote.address, file)
        if found != seen:
            seen, changed = found, time.monotonic()
        if _is_of(before, found) or time.monotonic() - changed > SECONDS_UNTIL_GONE:
            log.info("going on in place of %s, which gives no sign any more", _who(found))
            remote.delete([file])
        else:
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _give_signs(remote: Remote, file: str, own: bytes, ended: threading.Event) -> None:
    for number in count(1):
        if ended.wait(SECONDS_BETWEEN_SIGNS):
            return
        with suppress(OSError):  # the connection may come back
            if not _is_of(own, remote.read(file)):
                log.warning("%s/%s: another machine has taken over and works too", remote.address, file)
                return
            remote.write(file, own + str(number).encode())


def _is_of(owner: bytes, found: bytes | None) -> bool:
    return found is not None and found.startswith(owner)


def _who(found: bytes) -> str:
    return found.decode(errors="replace").partition("\n")[0]
