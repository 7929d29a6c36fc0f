# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Servers that say exactly what a test tells them, and models that really run."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import pytest
import uvloop

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
# What touches sockets and processes directly must work on both.
ON_BOTH_LOOPS = {"test_backend_client.py", "test_child.py"}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    del config
    if item.path.name in ON_BOTH_LOOPS:
        return LOOPS | {"asyncio": asyncio.new_event_loop}
    return LOOPS


@dataclass
class Exchange:
    """One connection to the server, as its script sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> tuple[str, bytes]:
        """Return the head and the body of the next request; an empty head at the end."""
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            return "", b""
        length = 0
        for line in head.splitlines():
            name, _, value = line.partition(":")
            if name.lower() == "content-length":
                length = int(value)
        return head, await self.reader.readexactly(length)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes, *, status: int = 200, extra: str = "") -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        await self.send(head.encode() + body)

    async def stream(self, *pieces: bytes, ends: bool = True) -> None:
        """Send server-sent events as chunks."""
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        await self.send(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        for piece in pieces:
            await self.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        if ends:
            await self.send(b"0\r\n\r\n")


Script = Callable[[Exchange], Awaitable[None]]


@dataclass
class Scripted:
    """A server whose every connection is handled by the script."""

    url: str = ""
    connections: int = 0
    open_connections: int = 0
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[Scripted]]]:
    """Start a server with a script; keyword arguments go to the socket."""
    running: list[asyncio.Server] = []
    handling: set[asyncio.Task[None]] = set()

    async def start(script: Script, **options: object) -> Scripted:
        scripted = Scripted()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            handling.add(task)
            scripted.connections += 1
            scripted.open_connections += 1
            try:
                await script(Exchange(reader, writer))
            except (ConnectionError, asyncio.CancelledError):
                pass
            finally:
                scripted.open_connections -= 1
                handling.discard(task)
                writer.transport.abort()

        server = await asyncio.start_server(handle, "127.0.0.1", 0, **options)  # type: ignore[arg-type]
        running.append(server)
        scheme = "https" if "ssl" in options else "http"
        scripted.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return scripted

    yield start
    for server in running:
        server.close()
    for task in tuple(handling):
        task.cancel()
    await asyncio.gather(*handling, return_exceptions=True)


@pytest.fixture
def chat() -> Callable[..., bytes]:
    """Make the body of a streamed chat with one user message, at temperature 0."""

    def body(content: object, **options: object) -> bytes:
        messages = [{"role": "user", "content": content}]
        request = {"messages": messages, "temperature": 0, "stream": True, **options}
        return json.dumps(request).encode()

    return body
