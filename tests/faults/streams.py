# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A lean client of many event streams, which notes what came and can go on elsewhere.

Each stream is one socket and costs a few microseconds an event, so that a thousand of them leave
the processor to those who are measured.

    stream = Stream(gateway, Order(tokens=300, pace=5).prompt(), key)
    await stream.ask()                            # until its end, or until the connection breaks
    if not stream.is_complete:
        await stream.resume(other_gateway)
    assert stream.text == order.text() and not stream.faults
"""

import asyncio
import json
import re
import time
from collections.abc import Mapping
from typing import Literal, cast
from urllib.parse import urlsplit

from typing_extensions import override

Json = dict[str, object]
Dialect = Literal["from", "last-event-id"]
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
_NAME = re.compile(rb"\r\nx-request-id: ([^\r]+)", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)


class Stream:
    """One answer, over as many connections as it takes."""

    def __init__(
        self,
        url: str,
        prompt: str,
        key: str = "none",
        *,
        model: str = "paced",
        extra: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.url = url
        self.name = ""
        """What the gateway calls the answer, by which the rest of it is asked for."""
        self.status = 0
        self.began = asyncio.Event()
        """Set when the first event has come."""
        self.parts: list[str] = []
        self.ids: list[int] = []
        self.error: Json | None = None
        """The event or body that says why there is no more."""
        self.is_complete = False
        """Whether the end mark has come."""
        self.broke = False
        """Whether a connection ended before its answer did."""
        self.resumed = 0
        self.first_event_s: float | None = None
        self.longest_wait_s = 0.0
        """Longest time between two events, of one connection or of two in a row."""
        self.ended_at_s = 0.0
        self._key = key
        self._headers = dict(headers or {})
        message = {"role": "user", "content": prompt}
        asked = {"model": model, "messages": [message], "stream": True, **(extra or {})}
        self._body = json.dumps(asked).encode()
        self._began_s = 0.0
        self._event_at_s = 0.0
        self._connection: _Connection | None = None

    @property
    def text(self) -> str:
        return "".join(self.parts)

    @property
    def next_event(self) -> int:
        """The number of the first event that has not come."""
        return self.ids[-1] + 1 if self.ids else 0

    @property
    def faults(self) -> list[tuple[int, int]]:
        """Each place where an event's number was not the next one: the one due, the one that came.

        A higher number is a gap, a lower one a duplicate.
        """
        due = [0, *(number + 1 for number in self.ids)]
        return [pair for pair in zip(due, self.ids, strict=False) if pair[0] != pair[1]]

    async def ask(self) -> None:
        """Ask, and read until the answer or the connection ends."""
        await self._exchange(self.url, "POST", "/v1/chat/completions", {}, self._body)

    async def resume(self, url: str, dialect: Dialect = "from") -> None:
        """Ask the gateway at `url` for the rest, and read it."""
        self.resumed += 1
        self.broke = False
        path, more = f"/v1/streams/{self.name}", {}
        if dialect == "from":
            path += f"?from={self.next_event}"
        elif self.ids:
            more["last-event-id"] = str(self.ids[-1])
        await self._exchange(url, "GET", path, more, b"")

    def leave(self) -> None:
        """Close the connection, as a client does that has enough."""
        if self._connection is not None:
            self._connection.abort()

    def take(self, event: bytes) -> None:
        """Take in one event, without the empty line after it."""
        fields = [line for line in event.split(b"\n") if not line.startswith(b":")]
        if not fields:
            return
        now_s = time.monotonic()
        lines = dict(line.split(b": ", 1) for line in fields)
        if lines[b"data"] == b"[DONE]":
            self.is_complete = True
            return
        data = cast("Json", json.loads(lines[b"data"]))
        if "error" in data:
            self.error = data
            return
        if self.first_event_s is None:
            self.first_event_s = now_s - self._began_s
            self.began.set()
        else:
            self.longest_wait_s = max(self.longest_wait_s, now_s - self._event_at_s)
        self._event_at_s = now_s
        self.ids.append(int(lines[b"id"]))
        for choice in cast("list[Json]", data["choices"]):
            self.parts.append(str(cast("Json", choice["delta"]).get("content") or ""))

    async def _exchange(
        self, url: str, method: str, path: str, more: Mapping[str, str], body: bytes
    ) -> None:
        place = urlsplit(url)
        fields = {
            "host": place.netloc,
            "authorization": f"Bearer {self._key}",
            "content-type": "application/json",
            "content-length": str(len(body)),
            **self._headers,
            **more,
        }
        lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items()), "", ""]
        self._began_s = self._began_s or time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            _, self._connection = await loop.create_connection(
                lambda: _Connection(self), place.hostname or "", place.port or 80
            )
        except OSError:
            self.broke = True
            return
        self._connection.send("\r\n".join(lines).encode() + body)
        await self._connection.ended.wait()
        self.broke = not self._connection.is_whole
        self.ended_at_s = time.monotonic()


class _Connection(asyncio.Protocol):
    """One response, chunked or of a known length."""

    def __init__(self, stream: Stream) -> None:
        self.ended = asyncio.Event()
        self.is_whole = False
        self._stream = stream
        self._transport: asyncio.Transport | None = None
        self._data = b""
        self._rest = b""
        self._length: int | None = None
        self._has_head = False

    def send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.ended.set()

    @override
    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._has_head:
            head, mark, rest = self._data.partition(b"\r\n\r\n")
            if not mark:
                return
            self._data = rest
            self._read_head(head)
        if self._length is None:
            self._read_chunks()
        elif len(self._data) >= self._length:
            self._stream.error = json.loads(self._data)
            self._end()

    def _read_head(self, head: bytes) -> None:
        self._has_head = True
        status, name, length = _STATUS.match(head), _NAME.search(head), _LENGTH.search(head)
        self._stream.status = int(status[1]) if status else 0
        if name and not self._stream.name:
            self._stream.name = name[1].decode()
        self._length = int(length[1]) if length else None

    def _read_chunks(self) -> None:
        start = 0
        while (end := self._data.find(b"\r\n", start)) >= 0:
            size = int(self._data[start:end], 16)
            if len(self._data) < end + size + 4:
                break
            if size == 0:
                self._end()
                return
            *events, self._rest = (self._rest + self._data[end + 2 : end + 2 + size]).split(b"\n\n")
            for event in events:
                self._stream.take(event)
            start = end + size + 4
        self._data = self._data[start:]

    def _end(self) -> None:
        self.is_whole = True
        if self._transport is not None:
            self._transport.close()
