# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A stream to which one writer at a time appends, and of which nothing is ever lost or removed."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator

import nats.errors
import nats.js.errors

from helexa.bus import headers
from helexa.bus.batches import Kept, read_batch
from helexa.bus.client import Bus
from helexa.protocol.errors import ConflictError, UnavailableError
from helexa.protocol.resources import Stream

APPEND_S = 2.0
READ_BYTES = 4 * 1024 * 1024
LOOK_S = 1.0
"""How often a reader looks for news that nobody has told of."""
WRONG_LAST_SEQUENCE = 10071


class Journal:
    """Reads and extends one append-only stream."""

    def __init__(self, bus: Bus, stream: Stream) -> None:
        """Use `stream`, which exists and has one subject."""
        self._bus = bus
        self._stream = stream.name
        self._subject = stream.subjects[0]
        self._news = asyncio.Event()

    async def last(self) -> int:
        """Return the place of the newest message, as the stream's leader has it.

        Raises:
            UnavailableError: the stream cannot be reached.
        """
        try:
            found = await self._bus.jetstream.stream_info(self._stream)
        except (TimeoutError, nats.errors.Error) as error:
            raise self._unavailable() from error
        return found.state.last_seq

    async def read(self, first: int) -> AsyncIterator[Kept]:
        """Yield what the journal has from place `first` on, oldest first.

        A copy of the stream may answer, which lacks the newest: compare with `last`.

        Raises:
            UnavailableError: the stream cannot be reached.
        """
        pending = True
        while pending:
            batch, pending = await read_batch(
                self._bus, self._stream, self._subject, first, max_bytes=READ_BYTES
            )
            for kept in batch:
                yield kept
                first = kept.sequence + 1

    async def append(self, data: bytes, *, after: int, deadline_s: float = APPEND_S) -> None:
        """Store `data` if the newest message is at place `after`; then it is at the next one.

        Returns when as many servers have it on disk as the stream asks for.

        Raises:
            ConflictError: another writer was first; `data` is not stored.
            UnavailableError: it is not known whether `data` is or will be stored.
        """
        block = headers.encode(
            {
                headers.EXPECTED_STREAM_SEQUENCE_HEADER: str(after),
                headers.EXPECTED_STREAM_HEADER: self._stream,
            }
        )
        try:
            reply, _ = await self._bus.client.exchange(
                self._subject, data, block, time.monotonic() + deadline_s
            )
        except nats.errors.Error as error:
            raise self._unavailable() from error
        told = json.loads(reply)
        failure = told.get("error")
        if failure is not None:
            if failure.get("err_code") == WRONG_LAST_SEQUENCE:
                raise ConflictError("another writer has extended the journal")
            raise UnavailableError(str(failure.get("description", "not stored")))
        if told.get("seq") != after + 1:
            raise ConflictError("the journal has put a message at another place")

    @contextlib.asynccontextmanager
    async def heard(self) -> AsyncIterator[None]:
        """Hear of news, as long as this lasts."""
        await self._bus.wait_connected()
        # What is heard is not what is stored: refused messages are heard too.
        subscription = await self._bus.client.listen(self._subject, lambda *_: self._news.set())
        try:
            yield
        finally:
            if not self._bus.closed.is_set():
                with contextlib.suppress(nats.errors.Error):
                    await subscription.unsubscribe()

    async def wait_news(self) -> None:
        """Return when there may be more than before."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._news.wait()
        self._news.clear()

    def _unavailable(self) -> UnavailableError:
        return UnavailableError(f"the journal {self._stream} cannot be reached")
