# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What the fault suite breaks is broken, and what it looks for it would see."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from tests.faults.engine import MODEL
from tests.faults.faults import CHECKS
from tests.faults.link import Link
from tests.faults.load import ClearError, Reading, WrongAnswerError
from tests.faults.order import Order
from tests.faults.site import running_site

SOON_S = 10.0
SHORT_S = 0.3


@asynccontextmanager
async def echo() -> AsyncIterator[Link]:
    """Relay to a server that sends back what it gets."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, Link(server.sockets[0].getsockname()[1]).relaying() as link:
        yield link


async def said(reader: asyncio.StreamReader, within_s: float = SOON_S) -> bytes:
    return await asyncio.wait_for(reader.read(1000), within_s)


async def test_a_cut_link_resets_what_is_open_and_what_comes() -> None:
    async with echo() as link:
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(b"one")
        assert await said(reader) == b"one"
        link.cut()
        with pytest.raises(ConnectionResetError):
            await said(reader)
        late, _ = await asyncio.open_connection("127.0.0.1", link.port)
        with pytest.raises(ConnectionResetError):
            await said(late)
        link.heal()
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(b"two")
        assert await said(reader) == b"two"
        writer.close()


async def test_a_silent_link_delivers_later_and_a_slow_one_slowly() -> None:
    async with echo() as link:
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(b"one")
        assert await said(reader) == b"one"
        link.silence()
        writer.write(b"two")
        with pytest.raises(TimeoutError):
            await said(reader, SHORT_S)
        link.heal()
        assert await said(reader) == b"two"
        link.slow(SHORT_S, 0)
        began = time.monotonic()
        writer.write(b"three")
        assert await said(reader) == b"three"
        assert time.monotonic() - began >= 2 * SHORT_S
        writer.close()


@pytest.mark.parametrize(
    "blocks",
    [
        ['id: 1\ndata: {"choices":[]}'],
        ['id: 0\ndata: {"choices":[]}', 'id: 0\ndata: {"choices":[]}'],
        ["data: [DONE]", "data: [DONE]"],
        ["data: [DONE]"],
        ['data: {"error":{"message":"no code"}}'],
    ],
    ids=["gap", "duplicate", "two ends", "other text", "no envelope"],
)
def test_a_wrong_stream_is_seen(blocks: list[str]) -> None:
    with pytest.raises(WrongAnswerError):
        read(blocks)


def read(blocks: list[str]) -> None:
    reading = Reading("text")
    for block in blocks:
        reading.take(block)
    reading.check()


def test_an_error_in_a_stream_is_no_answer() -> None:
    error = '{"message":"m","type":"t","param":null,"code":"backend_failed"}'
    with pytest.raises(ClearError, match="backend_failed"):
        Reading("text").take(f'data: {{"error":{error}}}')


async def test_what_is_left_is_seen(tmp_path: Path) -> None:
    message = {"role": "user", "content": Order(tokens=100_000, pace=20).prompt()}
    body = {"model": MODEL, "messages": [message], "stream": True}
    async with running_site(tmp_path / "site") as site, httpx.AsyncClient(timeout=SOON_S) as http:
        url = f"{site.gateways[0]}/v1/chat/completions"
        async with http.stream("POST", url, json=body) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            site.processes["portal"].signal(signal.SIGTERM)
            await site.processes["portal"].ended()
            found = "\n".join([leak for check in CHECKS for leak in await check(site)])
    for part in ("backend decoding 1", "slots busy", "inflight_requests 1.0", "connections to"):
        assert part in found
