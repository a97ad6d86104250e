"""Locks on a run's name in a remote store: while one machine works on it, the next waits.

Object storage has no locks. So the machine that works on a name creates a file, by a put that fails if there is one
already, and changes it every few seconds, as a heartbeat. A machine that waits takes over when the file has stopped
changing, or at once if a killed process of the same machine has left it. No clocks are compared. Two machines may still
work at the same time, if one loses its connection for a minute or both take over at the same moment; that costs work
but no result, because of several writers of an artifact one wins.
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

SECONDS_BETWEEN_HEARTBEATS = 10.0
SECONDS_UNTIL_STALE = 60.0
SECONDS_BETWEEN_POLLS = 1.0


@contextmanager
def hold_run_lock(remote: Remote, name: str, memory: Path) -> Iterator[None]:
    """Keep other machines from working on a run's name; waits for one that does.

    Args:
        remote: the store's folder on object storage.
        name: the run's name.
        memory: a local file with this machine's last token; only one process at a time may use it.
    """
    file = f"runs/{name}/working"
    last_token = memory.read_bytes() if memory.exists() else b"nobody"
    token = f"{socket.gethostname()}, process {os.getpid()}\n{uuid.uuid4().hex}\n".encode()
    write_atomically({memory: token})
    _acquire(remote, file, token, last_token)
    ended = threading.Event()
    heartbeats = threading.Thread(target=_send_heartbeats, args=(remote, file, token, ended), daemon=True)
    heartbeats.start()
    try:
        yield
    finally:
        ended.set()
        heartbeats.join()
        with suppress(OSError):  # other machines take over once the file is stale
            if _belongs_to(token, remote.read(file)):
                remote.delete([file])


def _acquire(remote: Remote, file: str, token: bytes, last_token: bytes) -> None:
    last_content, changed = b"", 0.0
    while not remote.create(file, token):
        content = remote.read(file)
        if content is None:  # deleted just now
            continue
        if not last_content and not _belongs_to(last_token, content):
            log.info("waiting for another machine (%s), see %s/%s", _owner_name(content), remote.address, file)
        if content != last_content:
            last_content, changed = content, time.monotonic()
        if _belongs_to(last_token, content) or time.monotonic() - changed > SECONDS_UNTIL_STALE:
            log.info("taking over from %s, which does not respond any more", _owner_name(content))
            remote.delete([file])
        else:
            time.sleep(SECONDS_BETWEEN_POLLS)


def _send_heartbeats(remote: Remote, file: str, token: bytes, ended: threading.Event) -> None:
    for number in count(1):
        if ended.wait(SECONDS_BETWEEN_HEARTBEATS):
            return
        with suppress(OSError):  # the connection may come back
            if not _belongs_to(token, remote.read(file)):
                log.warning("%s/%s: another machine has taken over and works too", remote.address, file)
                return
            remote.write(file, token + str(number).encode())


def _belongs_to(token: bytes, content: bytes | None) -> bool:
    return content is not None and content.startswith(token)


def _owner_name(content: bytes) -> str:
    return content.decode(errors="replace").partition("\n")[0]
