# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A client that speaks HTTP byte by byte, so that it can do what no library would."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

LIMIT_S = 20


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it came."""

    status: int
    version: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Wire:
    """One connection to a server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await asyncio.wait_for(self.writer.drain(), LIMIT_S)

    async def head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), LIMIT_S)

    async def answer(self) -> Answer:
        """Return the next answer."""
        first, *lines = (await self.head()).decode().rstrip().split("\r\n")
        version, status, _ = first.split(" ", 2)
        headers = {n.lower(): v for n, v in (line.split(": ", 1) for line in lines)}
        assert len(headers) == len(lines), lines
        if "content-length" in headers:
            assert "transfer-encoding" not in headers
            body = await self.exactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            body = await self._chunks()
        else:
            body = await self.rest()
        return Answer(int(status), version, headers, body)

    async def exactly(self, count: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(count), LIMIT_S)

    async def rest(self) -> bytes:
        """Return all that comes until the server closes the connection."""
        return await asyncio.wait_for(self.reader.read(), LIMIT_S)

    async def _chunks(self) -> bytes:
        parts = []
        while True:
            line = await asyncio.wait_for(self.reader.readline(), LIMIT_S)
            parts.append(await self.exactly(int(line, 16)))
            assert await self.exactly(2) == b"\r\n"
            if not parts[-1]:
                return b"".join(parts)


@asynccontextmanager
async def wire(url: str, *, receive_buffer: int | None = None) -> AsyncIterator[Wire]:
    """Connect to the server at `url` inside the block."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    raw = socket.socket()
    raw.setblocking(False)
    if receive_buffer is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await asyncio.get_running_loop().sock_connect(raw, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=raw)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


def post(path: str, body: bytes = b"", *lines: str, version: str = "1.1") -> bytes:
    """Return a POST of `body`, with more header lines."""
    head = [f"POST {path} HTTP/{version}", "Host: x", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join([*head, "", ""]).encode() + body
