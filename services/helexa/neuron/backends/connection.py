# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One HTTP/1.1 connection to a backend, and the response that is being read from it.

A small client of our own, because this lies on the hot path: with httpx in its place a neuron
served a tenth of the requests per second, with aiohttp two thirds.
"""

import asyncio
from collections.abc import Callable
from typing import cast

import httptools
from typing_extensions import override

from helexa.neuron.backends.limits import Timeouts
from helexa.protocol.errors import BackendError

_PAUSE_ABOVE_BYTES = 256 * 1024
_MAX_HEADER_BYTES = 64 * 1024
_DISCARD_S = 2.0


class Response:
    """A response as it arrives: its head, then its body in pieces.

    Reading from the socket pauses while more than 256 KiB wait here to be read.
    """

    def __init__(self, connection: "Connection", timeouts: Timeouts) -> None:
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
        self._parser = httptools.HttpResponseParser(self)
        self._chunks: list[bytes] = []
        self._size = 0
        self._header_bytes = 0
        self._has_head = False
        self._is_complete = False
        self._is_discarded = False
        self._failure: BackendError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._deadline_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def head(self) -> None:
        """Wait for the status and the headers.

        Raises:
            BackendError: the connection broke, or nothing came in time.
        """
        while not self._has_head:
            await self._wait(self._timeouts.first_byte_s)

    async def read(self) -> bytes:
        """Return what has come of the body since the last call, b"" at its end.

        Raises:
            BackendError: the connection broke, or nothing came in time.
        """
        while not self._chunks and not self._is_complete:
            await self._wait(self._timeouts.idle_s)
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        if self._size > _PAUSE_ABOVE_BYTES:
            self._connection.resume()
        self._size = 0
        return data

    async def read_all(self, limit_bytes: int) -> bytes:
        """Return the whole body.

        Raises:
            BackendError: as `read`; or the body is longer than the limit.
        """
        parts: list[bytes] = []
        length = 0
        while data := await self.read():
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
            self._disarm()
            self._timer = self._loop.call_later(_DISCARD_S, self.close)

    def close(self) -> None:
        """Close the connection unless the response is complete; the backend sees it and stops."""
        self._disarm()
        if not self._is_complete:
            self._connection.abort()

    async def _wait(self, limit_s: float) -> None:
        self._check()
        self._deadline_s = self._loop.time() + limit_s
        self._arm()
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

    def _arm(self) -> None:
        # One timer serves many reads: it is moved on when it fires, not at each read.
        if self._timer is not None and self._timer.when() > self._deadline_s:
            self._disarm()
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline_s, self._on_timer)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        if self._waiter is None:
            return
        if self._loop.time() < self._deadline_s:
            self._arm()
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
        if self._size > _PAUSE_ABOVE_BYTES and not self._is_complete:
            self._connection.pause()

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

    def _fail(self, error: BackendError) -> None:
        self._disarm()
        if self._failure is None:
            self._failure = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _complete(self, *, reusable: bool) -> None:
        self._is_complete = True
        self._disarm()
        self._connection.finish(reusable=reusable)
        self._wake()

    def on_message_begin(self) -> None:
        """Called by the parser."""
        if self._is_complete:
            # A second answer to one request: what would be read next could not be trusted.
            self._connection.abort()

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

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        if self._is_discarded or self._is_complete:
            return
        self._chunks.append(data)
        self._size += len(data)
        self._wake()

    def on_message_complete(self) -> None:
        """Called by the parser, also for an interim response such as 100."""
        if self._has_head and not self._is_complete:
            self._complete(reusable=self._parser.should_keep_alive())


class Connection(asyncio.Protocol):
    """A socket that carries one exchange at a time.

    Args:
        on_free: called when an exchange has ended and another one may begin.
        on_lost: called once when the socket is closed, by whichever side.
    """

    def __init__(
        self, on_free: Callable[["Connection"], None], on_lost: Callable[["Connection"], None]
    ) -> None:
        self._on_free = on_free
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._response: Response | None = None

    @property
    def is_usable(self) -> bool:
        """Whether a request can be sent: it is open and no exchange is under way."""
        open_transport = self._transport is not None and not self._transport.is_closing()
        return open_transport and self._response is None

    def send(self, request: bytes, timeouts: Timeouts) -> Response:
        """Send a request as it goes on the wire and return its response to come."""
        response = Response(self, timeouts)
        self._response = response
        if self._transport is None or self._transport.is_closing():
            response.feed_end()
        else:
            self._transport.write(request)
        return response

    def finish(self, *, reusable: bool) -> None:
        """End the exchange; called by its response."""
        self._response = None
        if reusable:
            self.resume()
            self._on_free(self)
        else:
            self.abort()

    def pause(self) -> None:
        """Stop reading from the socket."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read from the socket again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close the socket now."""
        if self._transport is not None:
            self._transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked: those of uvloop have the methods without being of the class.
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        if self._response is None:
            self.abort()
            return
        self._response.feed(data)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        response, self._response = self._response, None
        self._on_lost(self)
        if response is not None:
            response.feed_end()
