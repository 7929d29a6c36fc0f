# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A response as it arrives from a backend."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import httptools

from helexa.bus.deadlines import Deadlines
from helexa.neuron.backends.limits import Timeouts
from helexa.protocol.errors import BackendError

_PAUSE_ABOVE_BYTES = 256 * 1024
_MAX_HEADER_BYTES = 64 * 1024
_DISCARD_S = 2.0

Sink = Callable[[bytes], bool]
"""Takes a piece of a body, and returns whether it takes more now. It is called from the socket."""


class Link(Protocol):
    """What a response asks of its connection."""

    def finish(self, *, reusable: bool) -> None:
        """End the exchange."""

    def pause(self) -> None:
        """Stop reading from the socket."""

    def resume(self) -> None:
        """Read from the socket again."""

    def abort(self) -> None:
        """Close the socket now."""


class Response:
    """A response as it arrives: its head, then its body in pieces.

    Reading from the socket pauses while more than 256 KiB wait here to be read.
    """

    def __init__(
        self, connection: Link, timeouts: Timeouts, deadlines: "Deadlines[Response]"
    ) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        """By lower-case name; of a repeated header the last."""
        self.has_received = False
        """Whether any byte came, so that the backend surely got the request."""
        self.was_cut = False
        """Whether the backend closed the connection before the end."""
        self._timeouts = timeouts
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._chunks: list[bytes] = []
        self.on_body = self._chunks.append
        """Called by the parser."""
        self._parser = httptools.HttpResponseParser(self)
        self._size = 0
        self._header_bytes = 0
        self._has_head = False
        self._is_complete = False
        self._is_discarded = False
        self._failure: BackendError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Sink | None = None
        self._deadlines = deadlines
        self._deadline_s = 0.0

    async def head(self) -> None:
        """Wait for the status and the headers.

        Raises:
            BackendError: the connection broke, or nothing came in time; it is closed then.
        """
        try:
            while not self._has_head:
                await self._wait(self._timeouts.first_byte_s)
        except BaseException:
            self.close()
            raise

    async def read(self) -> bytes:
        """Return what has come of the body since the last call, b"" at its end.

        Raises:
            BackendError: the connection broke, or nothing came in time.
        """
        while not self._chunks and not self._is_complete:
            await self._wait(self._timeouts.idle_s)
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        self._resume()
        return data

    async def pour(self, sink: Sink) -> bool:
        """Give `sink` what has come and what comes, as it comes, until the end or its refusal.

        Returns:
            Whether the body has ended. If not, nothing more is read until the next call.

        Raises:
            BackendError: as `read`.
        """
        self._sink = sink
        try:
            self._size = 0
            self._give()
            if self._is_pouring:
                self._resume()
            while self._is_pouring and not self._is_complete:
                await self._wait(self._timeouts.idle_s)
        finally:
            self._sink = None
        return self._is_complete and not self._chunks

    async def read_all(self, limit_bytes: int) -> bytes:
        """Return the whole body.

        Raises:
            BackendError: as `read`; or the body is longer than the limit.
        """
        parts: list[bytes] = []
        length = 0
        while self._chunks or not self._is_complete:
            data = await self.read()
            parts.append(data)
            length += len(data)
            if length > limit_bytes:
                self.close()
                raise BackendError("the backend's answer is too long")
        return b"".join(parts)

    def discard(self) -> None:
        """Drop the little that is still to come, so that the connection can be used again."""
        self._is_discarded = True
        self._chunks.clear()
        if not self._is_complete:
            self._deadlines.set(self, time.monotonic() + _DISCARD_S)
            self._resume()

    def close(self) -> None:
        """Close the connection unless the response is complete; the backend sees it and stops."""
        self._deadlines.call_off(self)
        if not self._is_complete:
            self._connection.abort()

    @property
    def _is_pouring(self) -> bool:
        return self._sink is not None

    async def _wait(self, limit_s: float) -> None:
        self._check()
        self._deadline_s = time.monotonic() + limit_s
        self._deadlines.set(self, self._deadline_s)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        # Data that came before the break is handed out first.
        if not self._chunks:
            self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def on_deadline(self) -> None:
        """Give up, unless something came meanwhile: a deadline is not moved at each read."""
        if self._is_discarded:
            self.close()
            return
        if self._waiter is None:
            return
        if time.monotonic() < self._deadline_s:
            self._deadlines.set(self, self._deadline_s)
            return
        limit_s = self._timeouts.idle_s if self._has_head else self._timeouts.first_byte_s
        self._fail(BackendError(f"the backend sent nothing for {limit_s:g} s"))
        self._connection.abort()

    def feed(self, data: bytes) -> None:
        """Take what the socket delivered."""
        self.has_received = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(BackendError("the backend does not speak HTTP"))
            self._connection.abort()
        if self._sink is not None:
            self._deadline_s = time.monotonic() + self._timeouts.idle_s
            self._give()
        elif self._is_discarded:
            self._chunks.clear()
        elif self._chunks:
            self._hold(len(data))

    def feed_end(self) -> None:
        """Take the end of the connection."""
        if self._is_complete:
            return
        framed = "content-length" in self.headers or "transfer-encoding" in self.headers
        if self._has_head and not framed:
            self._complete(reusable=False)
            return
        self.was_cut = True
        self._fail(BackendError("the backend closed the connection"))

    def _hold(self, size: int) -> None:
        """Keep what has come for whoever reads."""
        self._wake()
        self._size += size
        if self._size > _PAUSE_ABOVE_BYTES:
            self._pause()

    def _give(self) -> None:
        """Hand what has come to the sink."""
        data = b"".join(self._chunks)
        if not data or self._sink is None:
            return
        self._chunks.clear()
        if not self._sink(data):
            self._sink = None
            self._pause()
            self._wake()

    def _pause(self) -> None:
        # A response that is complete has no connection any more: it may carry the next one.
        if not self._is_complete:
            self._connection.pause()

    def _resume(self) -> None:
        if not self._is_complete:
            self._connection.resume()

    def _fail(self, error: BackendError) -> None:
        self._deadlines.call_off(self)
        if self._failure is None:
            self._failure = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _complete(self, *, reusable: bool) -> None:
        self._is_complete = True
        self._deadlines.call_off(self)
        # We know each other: only the garbage collector would find the two.
        del self._parser
        self._connection.finish(reusable=reusable)
        self._wake()

    def on_message_begin(self) -> None:
        """Called by the parser."""
        if self._is_complete:
            # What would be read next could not be trusted.
            raise httptools.HttpParserError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > _MAX_HEADER_BYTES:
            raise httptools.HttpParserError("headers too long")
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        if self._is_complete:
            return
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self.headers.clear()
            return
        self._has_head = True
        self._wake()

    def on_message_complete(self) -> None:
        """Called by the parser, also for an interim response such as 100."""
        if self._has_head and not self._is_complete:
            self._complete(reusable=self._parser.should_keep_alive())
