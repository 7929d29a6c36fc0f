# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One HTTP/1.1 connection to a backend.

A small client of our own, because this lies on the hot path: with httpx in its place a neuron
served a tenth of the requests per second, with aiohttp two thirds.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from typing_extensions import override

from helexa.bus.deadlines import Deadlines
from helexa.neuron.backends.limits import Timeouts
from helexa.neuron.backends.response import Response


class Connection(asyncio.Protocol):
    """A socket that carries one exchange at a time.

    Args:
        deadlines: calls `on_deadline` of the responses whose time has come.
        on_free: called when an exchange has ended and another one may begin.
        on_lost: called once when the socket is closed, by whichever side.
    """

    def __init__(
        self,
        deadlines: Deadlines[Response],
        on_free: Callable[["Connection"], None],
        on_lost: Callable[["Connection"], None],
    ) -> None:
        self._deadlines = deadlines
        self._on_free = on_free
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._response: Response | None = None
        self._is_paused = False

    @property
    def is_usable(self) -> bool:
        """Whether a request can be sent: it is open and no exchange is under way."""
        open_transport = self._transport is not None and not self._transport.is_closing()
        return open_transport and self._response is None

    def send(self, request: bytes, timeouts: Timeouts) -> Response:
        """Send a request as it goes on the wire and return its response to come."""
        response = Response(self, timeouts, self._deadlines)
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
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read from the socket again."""
        if not self._is_paused:
            return
        self._is_paused = False
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
