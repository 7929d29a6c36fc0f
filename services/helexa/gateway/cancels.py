# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Telling neurons to stop, also those that cannot hear it at the time."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Coroutine
from dataclasses import dataclass

from helexa.bus.client import Bus
from helexa.protocol import subjects
from helexa.protocol.errors import DeadlineExceededError, HelexaError, UnavailableError
from helexa.protocol.messages.execution import CancelRequest
from helexa.protocol.naming import encode_token

CANCEL_DEADLINE_S = 2.0
OWED_FOR_S = 600.0
"""A neuron that is back after longer has ended the work by itself, or is another process."""
MAX_OWED = 4096
"""Cancellations kept for one neuron."""


@dataclass(frozen=True, slots=True)
class _Owed:
    asked: CancelRequest
    since_s: float


class Cancels:
    """Cancellations under way. A frozen neuron gets them when it reports again."""

    def __init__(self, bus: Bus) -> None:
        """Send over `bus`."""
        self._bus = bus
        self._tasks: set[asyncio.Task[None]] = set()
        self._owed: defaultdict[str, list[_Owed]] = defaultdict(list)

    def send(self, asked: CancelRequest, author: str) -> None:
        """Tell the neuron whose encoded id is `author`; returns at once."""
        self._begin(self._send(_Owed(asked, time.monotonic()), author))

    def heard(self, neuron_id: str) -> None:
        """Note that a neuron has reported, and so hears again."""
        if not self._owed:
            return
        author = encode_token(neuron_id)
        now_s = time.monotonic()
        for owed in self._owed.pop(author, ()):
            if now_s - owed.since_s < OWED_FOR_S:
                self._begin(self._send(owed, author))

    async def finish(self) -> None:
        """Return when every cancellation under way has been sent."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CANCEL_DEADLINE_S)

    async def _send(self, owed: _Owed, author: str) -> None:
        try:
            await self._bus.request(
                subjects.CANCEL, owed.asked, deadline_s=CANCEL_DEADLINE_S, neuron=author
            )
        except (DeadlineExceededError, UnavailableError):
            self._forget(time.monotonic())
            if len(self._owed[author]) < MAX_OWED:
                self._owed[author].append(owed)
        except HelexaError:
            return

    def _forget(self, now_s: float) -> None:
        for author, owed in list(self._owed.items()):
            if now_s - owed[-1].since_s >= OWED_FOR_S:
                del self._owed[author]

    def _begin(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
