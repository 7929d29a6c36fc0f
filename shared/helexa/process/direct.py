# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A request that is served without ASGI: the few that a process serves thousands of a second.

It goes in at its connection, which parses it and keeps the order of pipelined ones, and its answer
leaves by the same transport in as few writes as it has pieces.
"""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import final

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl

Answering = Callable[["DirectRequest"], Awaitable[None]]
"""Serves one request of a direct route."""
DirectRoutes = dict[bytes, Answering]
"""What serves a POST to a path. Any other method, and any path with more to it, is ASGI's."""

_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_CLOSE = b"connection: close\r\n"


class DefaultHeaders:
    """The headers that each answer of a server has, as they are written."""

    __slots__ = ("_made_of", "data", "is_last")

    def __init__(self) -> None:
        """Begin without any."""
        self._made_of: list[tuple[bytes, bytes]] = []
        self.data = b""
        self.is_last = False
        """Whether they say that an answer is the last one of its connection."""

    def follow(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Be those in `headers`, a list that uvicorn makes anew when one of them changes."""
        if headers is self._made_of:
            return
        self._made_of = headers
        self.is_last = (b"connection", b"close") in headers
        self.data = b"".join(b"%b: %b\r\n" % each for each in headers if each[0] != b"connection")


@final
class DirectRequest:
    """One request of a direct route, and the way back to its client."""

    message_event = asyncio.Event()
    """uvicorn sets it at the end of a connection; nobody waits for it here."""

    __slots__ = (
        "_defaults", "_expects", "_flow", "_head", "_is_chunked", "_is_old",
        "_on_answered", "_on_left", "_parts", "_reader", "_room", "_size", "_transport",
        "disconnected", "headers", "is_owed", "is_whole", "keep_alive", "path", "response_complete",
        "response_started",
    )  # fmt: skip

    def __init__(
        self,
        path: bytes,
        headers: dict[bytes, bytes],
        transport: asyncio.Transport,
        flow: FlowControl,
        defaults: DefaultHeaders,
        on_answered: Callable[[], None],
    ) -> None:
        """Take the request with these headers from the connection of `transport`."""
        self.path = path
        self.headers = headers
        """By their names in lower case."""
        self.keep_alive = True
        """Whether the connection serves more requests after this one."""
        self.is_owed = False
        """Whether it came on a connection whose client has not been told that we leave."""
        self.disconnected = False
        """Whether the connection is gone."""
        self.response_started = False
        self.response_complete = False
        self._transport = transport
        self._flow = flow
        self._defaults = defaults
        self._on_answered = on_answered
        self._expects = False
        self._is_old = False
        self._head = b""
        self._is_chunked = False
        self._parts: list[bytes] = []
        self._size = 0
        self._room = HIGH_WATER_LIMIT
        self.is_whole = False
        """Whether all of the body has come."""
        self._reader: asyncio.Future[None] | None = None
        self._on_left: Callable[[], object] | None = None

    def set_terms(self, *, keep_alive: bool, is_old: bool, expects: bool, is_owed: bool) -> None:
        """Note what goes with the request.

        Args:
            keep_alive: The client wants to use the connection again.
            is_old: The client speaks HTTP/1.0: it knows neither chunks nor interim answers.
            expects: The client sends the body when it is told to.
            is_owed: See `is_owed`.
        """
        self.keep_alive = keep_alive and not is_old
        self._is_old = is_old
        self._expects = expects and not is_old
        self.is_owed = is_owed

    async def run_asgi(self, answering: Answering) -> None:
        """Serve the request; the name is what uvicorn's connection calls."""
        try:
            await answering(self)
        finally:
            if not self.response_complete and not self.disconnected:
                self._give_up()
            self._on_answered = _nothing

    def feed(self, data: bytes) -> None:
        """Take in a part of the body."""
        if self.response_complete:
            return
        self._parts.append(data)
        self._size += len(data)
        if self._size > self._room:
            self._flow.pause_reading()
            self._wake()

    def feed_end(self) -> None:
        """Note that the body is complete."""
        self.is_whole = True
        if self._reader is not None:
            self._wake()

    def lose(self) -> None:
        """Note that the connection is gone."""
        if not self.response_complete:
            self.disconnected = True
        self._wake()
        self._leave()

    async def body(self, limit: int) -> bytes:
        """Return the body, or what has come of it when that is more than `limit` bytes.

        It is not whole if the client is `disconnected`.
        """
        self._room = limit
        if not self.is_whole:
            if self._expects and not self.disconnected:
                self._expects = False
                self._transport.write(_CONTINUE)
            while not self._is_read(limit):
                self._flow.resume_reading()
                self._reader = asyncio.get_running_loop().create_future()
                await self._reader
        if self._size <= limit and self._flow.read_paused:
            # From here on the end of the connection is what is read.
            self._flow.resume_reading()
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _is_read(self, limit: int) -> bool:
        return self.is_whole or self._size > limit or self.disconnected

    def watch(self, on_left: Callable[[], object] | None) -> None:
        """Call `on_left` when the client closes the connection before its answer."""
        self._on_left = on_left
        if self.disconnected and on_left is not None:
            asyncio.get_running_loop().call_soon(self._leave)

    def start(self, status: int, headers: bytes, length: int | None = None) -> None:
        """Begin the answer; it leaves with the first piece.

        Args:
            status: HTTP status.
            headers: Whole lines, each with its end.
            length: Bytes of the body; `None`: it ends when there is no more.
        """
        self.response_started = True
        self._expects = False
        if length is not None:
            framing = b"content-length: %d\r\n" % length
        elif self._is_old:
            framing = b""
        else:
            self._is_chunked = True
            framing = b"transfer-encoding: chunked\r\n"
        if self._defaults.is_last:
            self.keep_alive = False
        close = b"" if self.keep_alive else _CLOSE
        self._head = b"".join(
            (_STATUS_LINES[status], self._defaults.data, headers, framing, close, b"\r\n")
        )

    async def write(self, data: bytes, *, more: bool) -> None:
        """Send a piece of the body; waits while the client is slow."""
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        if self.disconnected or self.response_complete:
            return
        if self._is_chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            if not more:
                data += _LAST_CHUNK
        if self._head:
            data = self._head + data
            self._head = b""
        if data:
            self._transport.write(data)
        if not more:
            self._end()

    def write_now(self, data: bytes) -> bool:
        """Send a piece that is not the first or the last; return whether that needed no wait."""
        if self._head or self._flow.write_paused or self.disconnected or self.response_complete:
            return False
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)
        return True

    def _end(self) -> None:
        self.response_complete = True
        if not self.keep_alive:
            self._transport.close()
        self._on_answered()

    def _give_up(self) -> None:
        """End an answer that nobody will end: the client must not wait for the rest."""
        self.keep_alive = False
        if not self.response_started:
            self.start(HTTPStatus.INTERNAL_SERVER_ERROR, b"", 0)
            self._transport.write(self._head)
        self._end()

    def _leave(self) -> None:
        on_left, self._on_left = self._on_left, None
        if on_left is not None:
            on_left()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


def _nothing() -> None:
    """Do nothing."""
