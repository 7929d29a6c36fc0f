# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Where requests come from: any path by ASGI, and the few that are hot without it."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from helexa.gateway.http import (
    JSON,
    OPENAI_VERSION,
    ClientGoneError,
    Headers,
    Incoming,
    too_large,
)
from helexa.process.direct import DirectRequest
from helexa.process.http import Receive, Scope, Send, is_owed


@dataclass(slots=True, kw_only=True)
class AsgiIncoming(Incoming):
    """A request as ASGI gives it."""

    receive: Receive
    send: Send
    watching: asyncio.Task[None] | None = None

    @classmethod
    def read(cls, scope: Scope, receive: Receive, send: Send, request_id: str) -> "AsgiIncoming":
        """Return the request in an ASGI scope."""
        return cls(
            method=scope["method"],
            path=scope["path"],
            query_string=scope["query_string"],
            request_id=request_id,
            headers=dict(scope["headers"]),
            is_owed=is_owed(scope),
            receive=receive,
            send=send,
        )

    @override
    async def body(self, limit: int) -> bytes:
        self.check_announced(limit)
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise too_large(limit)
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)

    @override
    def watch(self, on_left: Callable[[], object]) -> None:
        self.watching = asyncio.ensure_future(self._left())
        self.watching.add_done_callback(lambda task: task.cancelled() or on_left())

    @override
    def unwatch(self) -> None:
        if self.watching is not None:
            self.watching.cancel()

    async def _left(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    @override
    async def begin(
        self, status: int, content_type: bytes, extra: Headers, length: int | None
    ) -> None:
        self.began = True
        self.report.status = status
        headers = [
            (b"content-type", content_type),
            (b"x-request-id", self.request_id.encode()),
            (b"openai-version", OPENAI_VERSION),
            (b"openai-processing-ms", str(round(self.elapsed_s * 1000)).encode()),
            *extra,
            *self.rate_headers,
        ]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        if client_id := self.client_id:
            headers.append((b"x-client-request-id", client_id))
        if self.is_last:
            headers.append((b"connection", b"close"))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    @override
    async def write(self, data: bytes, *, more: bool) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": more})


@dataclass(slots=True, kw_only=True)
class DirectIncoming(Incoming):
    """A request of a direct route."""

    request: DirectRequest

    @classmethod
    def read(cls, request: DirectRequest, request_id: str) -> "DirectIncoming":
        """Return `request` under this id."""
        return cls(
            method="POST",
            path=request.path.decode(),
            request_id=request_id,
            headers=request.headers,
            is_owed=request.is_owed,
            request=request,
        )

    @override
    async def body(self, limit: int) -> bytes:
        if not self.request.is_whole:
            self.check_announced(limit)
        data = await self.request.body(limit)
        if self.request.disconnected:
            raise ClientGoneError
        if len(data) > limit:
            raise too_large(limit)
        return data

    @override
    def watch(self, on_left: Callable[[], object]) -> None:
        self.request.watch(on_left)

    @override
    def unwatch(self) -> None:
        self.request.watch(None)

    @override
    async def begin(
        self, status: int, content_type: bytes, extra: Headers, length: int | None
    ) -> None:
        self._begin(status, content_type, extra, length)

    @override
    def write(self, data: bytes, *, more: bool) -> Coroutine[Any, Any, None]:
        return self.request.write(data, more=more)

    @override
    def write_now(self, data: bytes) -> bool:
        return self.request.write_now(data)

    @override
    def respond(
        self, status: int, data: bytes, extra: Headers, kind: bytes = JSON
    ) -> Coroutine[Any, Any, None]:
        self._begin(status, kind, extra, len(data))
        return self.request.write(data, more=False)

    def _begin(self, status: int, content_type: bytes, extra: Headers, length: int | None) -> None:
        lines = self._lines(content_type, extra)
        self.began = True
        self.report.status = status
        if self.is_last:
            self.request.keep_alive = False
        self.request.start(status, lines, length)

    def _lines(self, content_type: bytes, extra: Headers) -> bytes:
        elapsed_ms = (time.monotonic() - self.arrived) * 1000
        lines = [
            b"content-type: %b\r\nx-request-id: %b\r\nopenai-version: %b\r\n"
            b"openai-processing-ms: %.0f\r\n"
            % (content_type, self.request_id.encode(), OPENAI_VERSION, elapsed_ms),
            *[b"%b: %b\r\n" % each for each in (*extra, *self.rate_headers)],
        ]
        if b"x-client-request-id" in self.headers and (client_id := self.client_id):
            lines.append(b"x-client-request-id: %b\r\n" % client_id)
        made = b"".join(lines)
        if not made.count(b"\r") == made.count(b"\n") == len(lines) + 3:
            raise ValueError("a header has a line end in it")
        return made
