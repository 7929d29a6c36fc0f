# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One connection to an endpoint, which carries one exchange at a time."""

import asyncio
from collections.abc import Callable
from typing import cast

import httptools
from typing_extensions import override

from helexa.cli.bench import trouble
from helexa.cli.bench.answer import Answer
from helexa.cli.bench.trouble import Trouble

Clock = Callable[[], float]


class Connection(asyncio.Protocol):
    """A socket, and the answer that comes over it now."""

    def __init__(self, clock: Clock) -> None:
        """Begin without an exchange."""
        self.heard_s = clock()
        """When something came, or was sent, last."""
        self.has_received = False
        """Whether any byte of the present answer has come."""
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []
        # Several chunks of a body come in one read: the parser only collects them, in C.
        self.on_body = self._parts.append
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._ended: asyncio.Future[None] | None = None
        self._has_head = False
        self._is_framed = False
        self._is_whole = False
        self._keeps_alive = False

    @property
    def is_busy(self) -> bool:
        """Whether an exchange is under way."""
        return self._answer is not None

    @property
    def is_usable(self) -> bool:
        """Whether it is open and free."""
        transport = self._transport
        return transport is not None and not transport.is_closing() and self._answer is None

    async def exchange(self, request: bytes, answer: Answer) -> None:
        """Send a request and return when its answer has ended, for better or worse."""
        self.heard_s = self._clock()
        self.has_received = False
        if self._transport is None or self._transport.is_closing():
            answer.fail(trouble.CLOSED, self.heard_s)
            return
        self._answer = answer
        self._ended = self._loop.create_future()
        self._transport.write(request)
        try:
            await self._ended
        finally:
            if self._answer is not None:
                self._answer = None
                self.close()

    def give_up(self, reason: Trouble) -> None:
        """End the exchange, and the connection with it."""
        answer = self._answer
        if answer is not None:
            answer.fail(reason, self._clock())
            self._leave()
        self.close()

    def close(self) -> None:
        """Close the socket now."""
        if self._transport is not None:
            self._transport.abort()

    def _leave(self) -> None:
        self._answer = None
        self._has_head = self._is_framed = self._is_whole = False
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked: those of uvloop have the methods without being of the class.
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self.close()
            return
        self.heard_s = self._clock()
        self.has_received = True
        is_http = self._parse(data)
        if self._parts:
            self._answer.feed(b"".join(self._parts), self.heard_s)
            self._parts.clear()
        if not is_http:
            self.give_up(trouble.NOT_HTTP)
        elif self._is_whole:
            self._answer.end(self.heard_s)
            self._leave()
            if not self._keeps_alive:
                self.close()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        answer = self._answer
        if answer is None:
            return
        if self._has_head and not self._is_framed and exc is None:
            answer.end(self._clock())
            self._leave()
        else:
            self.give_up(trouble.CLOSED)

    def on_header(self, name: bytes, _: bytes) -> None:
        """Called by the parser."""
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._is_framed = True

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        if self._is_whole:
            raise httptools.HttpParserError("a second answer to one request")
        status = self._parser.get_status_code()
        if status < 200:
            self._is_framed = False
        elif self._answer is not None:
            self._has_head = True
            self._answer.head(status)

    def on_message_complete(self) -> None:
        """Called by the parser, also for an interim response such as 100."""
        self._is_whole = self._has_head
        # Asked here, because the parser forgets it with the message.
        self._keeps_alive = self._parser.should_keep_alive()

    def _parse(self, data: bytes) -> bool:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return False
        return True
