# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Waiting in the task that serves a client, until what is awaited or the client ends the wait."""

import asyncio
from collections.abc import Coroutine

from helexa.gateway.answer import Answer
from helexa.gateway.http import ClientGoneError
from helexa.gateway.sinks import Sink


class Beats:
    """Shows a client that the gateway is alive, while something else goes on.

    A wait that is over before the first beat is due costs a timer, and no task.
    """

    def __init__(self, sink: Sink, first_s: float, every_s: float) -> None:
        """Let `sink` beat after `first_s`, and every `every_s` from then on."""
        self._sink = sink
        self._first_s = first_s
        self._every_s = every_s
        self._timer: asyncio.TimerHandle | None = None
        self._beating: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begin to wait for the first beat."""
        self._timer = asyncio.get_running_loop().call_later(self._first_s, self._begin)

    def end(self) -> asyncio.Task[None] | None:
        """Beat no more. When what is returned is done, nothing is being written."""
        if self._timer is not None:
            self._timer.cancel()
        if self._beating is not None:
            self._beating.cancel()
        return self._beating

    def _begin(self) -> None:
        self._beating = asyncio.create_task(self._beat(), name="beats")

    async def _beat(self) -> None:
        while True:
            await self._sink.beat()
            await asyncio.sleep(self._every_s)


async def cut_short(work: Coroutine[None, None, None], answer: Answer, beats: Beats) -> None:
    """Return when `work` has ended.

    Raises:
        ClientGoneError: the client of `answer` left first.
        HelexaError: what ended the reading of `answer` first, or what `work` raises.
    """
    _raise_reason(answer, work)
    task = asyncio.current_task()
    answer.interrupt = task.cancel if task is not None else None
    beats.begin()
    try:
        await work
    except asyncio.CancelledError:
        # Somebody else may want this task to end too.
        if answer.has_reason_to_stop and (task is None or not task.uncancel()):
            _raise_reason(answer, None)
        raise
    finally:
        answer.interrupt = None
        beating = beats.end()
        if beating is not None:
            await asyncio.wait({beating})


def _raise_reason(answer: Answer, work: Coroutine[None, None, None] | None) -> None:
    if not answer.has_reason_to_stop:
        return
    if work is not None:
        work.close()
    if answer.failure is not None and not answer.client_gone:
        raise answer.failure
    raise ClientGoneError
