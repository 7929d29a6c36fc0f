# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""An OpenAI-compatible endpoint that answers as a test wants it, and notes what it was asked."""

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    number: int
    """From 0, over all connections; lists of models do not count."""
    connection: int
    path: str
    key: str | None
    body: dict[str, object]


Part = bytes | float
"""Bytes, or seconds of silence. A last part of no bytes closes the connection."""
FOR_EVER = 3600.0
Reply = Callable[[Asked], Sequence[Part]]


def event(text: str | None = None, more: Mapping[str, object] | None = None) -> bytes:
    delta = {} if text is None else {"content": text}
    data = {"choices": [{"index": 0, "delta": delta}], **(more or {})}
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def usage(completion: int, prompt: int = 5) -> dict[str, object]:
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": completion}}


def response(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} Some\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n"


def stream(*events: bytes, ends: bool = True) -> list[Part]:
    """Return a streamed answer, an event a chunk."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [head, *map(chunk, events), *([b"0\r\n\r\n"] if ends else [b""])]


def refusal(status: int, code: str, message: str) -> list[Part]:
    error = {"error": {"message": message, "type": "t", "code": code}}
    return [response(status, json.dumps(error).encode())]


def answered(asked: Asked) -> list[Part]:
    """Return three tokens, streamed or whole as it was asked for."""
    if asked.body.get("stream"):
        return stream(event("a"), event("b"), event("c"), event(more=usage(3)), DONE)
    whole = {"choices": [{"message": {"content": "abc"}}], **usage(3)}
    return [response(200, json.dumps(whole).encode())]


@dataclass(slots=True)
class Fake:
    """A running endpoint."""

    reply: Reply
    models: tuple[str, ...] = ("tiny",)
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    scheme: str = "http"
    loop: asyncio.AbstractEventLoop | None = None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def until_asked(self, times: int, within_s: float = 30.0) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.asked) >= times, within_s)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.connections
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._answer(reader, writer, number):
                pass
        writer.close()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int
    ) -> bool:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value for name, _, value in (e.partition(": ") for e in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if method == "GET":
            listed = {"data": [{"id": name} for name in self.models]}
            parts: Sequence[Part] = [response(200, json.dumps(listed).encode())]
        else:
            key = headers.get("authorization")
            asked = Asked(len(self.asked), connection, path, key, json.loads(body))
            with self.arrived:
                self.asked.append(asked)
                self.arrived.notify_all()
            parts = self.reply(asked)
        for part in parts:
            if isinstance(part, float):
                await asyncio.sleep(part)
            else:
                writer.write(part)
                await writer.drain()
        return parts[-1] != b""

    async def run(self, ready: threading.Event, tls: ssl.SSLContext | None) -> None:
        self.loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self.stop.wait()
        server.close()


@contextlib.contextmanager
def fake_endpoint(reply: Reply = answered, *, tls: ssl.SSLContext | None = None) -> Iterator[Fake]:
    """Run an endpoint in a thread of its own."""
    fake = Fake(reply, scheme="http" if tls is None else "https")
    ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(fake.run(ready, tls)))
    thread.start()
    try:
        assert ready.wait(30)
        yield fake
    finally:
        assert fake.loop is not None
        fake.loop.call_soon_threadsafe(fake.stop.set)
        thread.join()
