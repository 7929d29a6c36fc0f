# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Stopping: the first signal asks, a later one kills."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_log = logging.getLogger(__name__)

SAME_SIGNAL_S = 0.3


class Stop:
    """Somebody wants this process to end."""

    def __init__(self) -> None:
        """Nobody does yet."""
        self._asked = asyncio.Event()
        self.reason = ""
        self.exit_code = 0

    @property
    def is_asked(self) -> bool:
        """Whether the process shall end."""
        return self._asked.is_set()

    def ask(self, reason: str, *, exit_code: int = 0) -> None:
        """End the process. The first reason stays."""
        if not self._asked.is_set():
            self.reason = reason
            self.exit_code = exit_code
            self._asked.set()

    async def wait(self) -> None:
        """Return when the process shall end."""
        await self._asked.wait()


@asynccontextmanager
async def stop_on_signals() -> AsyncIterator[Stop]:
    """Yield a `Stop` that SIGTERM and SIGINT trigger; a second signal then kills the process.

    Some senders signal a process and its whole group, so what follows within `SAME_SIGNAL_S` is
    taken for the first signal.
    """
    loop = asyncio.get_running_loop()
    stop = Stop()
    asked_at_s = 0.0

    def on_signal(number: signal.Signals) -> None:
        nonlocal asked_at_s
        if not stop.is_asked:
            asked_at_s = loop.time()
            _log.info("stopping", extra={"signal": number.name})
            stop.ask(number.name)
        elif loop.time() - asked_at_s >= SAME_SIGNAL_S:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
