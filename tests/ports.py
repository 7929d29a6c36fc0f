# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Ports for what tests start, which nobody else takes before it listens or while it restarts."""

import contextlib
import fcntl
import functools
import os
import random
import socket
import tempfile
from pathlib import Path

LOOPBACK = "127.0.0.1"
LOWEST = 10_000
_USUAL_EPHEMERAL = 32_768
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_given: set[int] = set()


def free_port() -> int:
    """Return a port of the loopback address that is this run's until it ends.

    The kernel gives it to no outgoing connection and to nobody who asks for any port; this run does
    not get it again; and of several runs one at a time has it.
    """
    while True:
        port = random.randrange(LOWEST, _lowest_ephemeral())  # noqa: S311 - no secret
        if port in _given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            fcntl.lockf(_shared_file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            _given.add(port)
            return port


@functools.cache
def _lowest_ephemeral() -> int:
    with contextlib.suppress(OSError):
        return int(_EPHEMERAL.read_text().split()[0])
    return _USUAL_EPHEMERAL


@functools.cache
def _shared_file() -> int:
    """Return a file of which each run locks the bytes whose places are its ports."""
    path = Path(tempfile.gettempdir()) / f"helexa-test-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
