# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A connection of our HTTP server: uvicorn's, with direct routes, and a bound for headers."""

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeAlias

import uvicorn
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from helexa.process.direct import Answering, DefaultHeaders, DirectRequest, DirectRoutes

OWED = "owed"
"""In the state of a connection whose client has not been told that we leave."""
MOST_HEAD_BYTES = 64 * 1024
"""Request line and headers together; as h11 has it."""
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


Served: TypeAlias = RequestResponseCycle | DirectRequest


class Config(uvicorn.Config):
    """What the connections of one server share."""

    direct: DirectRoutes
    defaults: DefaultHeaders


class Connection(HttpToolsProtocol):
    """One connection. Requests of a direct route leave uvicorn's way once their headers are read.

    What uvicorn does with a request that it serves itself (it calls it a cycle), it does with a
    `DirectRequest` too: keeps the order of pipelined ones, and lets them finish at the end.
    """

    config: Config
    cycle: Served | None  # type: ignore[assignment]
    pipeline: deque[tuple[Served, Any]]  # type: ignore[assignment]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Serve one client."""
        super().__init__(config, server_state, app_state, _loop)
        self._direct = config.direct
        self._defaults = config.defaults
        self._running: DirectRequest | None = None
        self._head_bytes = 0
        self._is_in_head = False
        self._idle_since: float | None = None

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(_TOO_LARGE)
                self.transport.close()

    @override
    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._is_in_head = True
        self._head_bytes = 0

    @override
    def on_headers_complete(self) -> None:
        self._is_in_head = False
        answering = self._direct.get(self.url)
        if answering is not None and self.parser.get_method() == b"POST":
            self._take(answering)
            return
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expects
        self.scope["headers"] = headers
        super().on_headers_complete()

    @override
    def on_body(self, body: bytes) -> None:
        if type(self.cycle) is DirectRequest:
            self.cycle.feed(body)
        else:
            super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        if type(self.cycle) is DirectRequest:
            self.cycle.feed_end()
        else:
            super().on_message_complete()

    @override
    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start(cycle, cycle.run_asgi(app))
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_again_at(self._idle_since + self.timeout_keep_alive)

    @override
    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return
        end = self._idle_since + self.timeout_keep_alive
        if self.loop.time() >= end:
            super().timeout_keep_alive_handler()
        else:
            self._look_again_at(end)

    @override
    def _unset_keepalive_if_required(self) -> None:
        # A timer that is set and unset for each request costs more than one that looks again.
        self._idle_since = None

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        super().connection_lost(exc)
        if self._running is not None:
            self._running.lose()
            self._running = None

    def _take(self, answering: Answering) -> None:
        self._defaults.follow(self.server_state.default_headers)
        request = DirectRequest(
            self.url,
            dict(self.headers),
            self.transport,
            self.flow,
            self._defaults,
            self.on_response_complete,
        )
        request.set_terms(
            keep_alive=self.parser.should_keep_alive(),
            is_old=self.parser.get_http_version() == "1.0",
            expects=self.expect_100_continue,
            is_owed=OWED in self.app_state,
        )
        before, self.cycle = self.cycle, request
        if before is None or before.response_complete:
            self._start(request, request.run_asgi(answering))
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((request, answering))

    def _start(self, cycle: Served, work: Coroutine[Any, Any, None]) -> None:
        self._running = cycle if type(cycle) is DirectRequest else None
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _look_again_at(self, when: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_at(when, self.timeout_keep_alive_handler)
