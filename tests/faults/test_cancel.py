# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""However a client goes, and whenever: the backend is idle within a second, by its own counters."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio
from tests.faults.conftest import Record
from tests.faults.faults import leaks
from tests.faults.order import Order
from tests.faults.site import Site, running_site

pytestmark = pytest.mark.asyncio(loop_scope="module")

NARROW = "narrow"
"""A model with one slot on one neuron."""
IDLE_WITHIN_S = 1.0
SOON_S = 20.0
LOOK_S = 0.02
FOREVER = Order(tokens=100_000, pace=20)
SLOW_READER = Order(tokens=10, delay=60)
CLIENT = """
import socket, sys
host, port, request = sys.argv[1:]
with socket.create_connection((host, int(port))) as client:
    client.sendall(request.encode())
    while client.recv(65536):
        pass
"""
"""A program that asks and reads; the test kills it."""
Json = dict[str, object]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with running_site(tmp_path_factory.mktemp("site")) as running:
        await running.add_model(NARROW, slots=1, neurons=("n1",))
        for gateway in running.gateways:
            await until(lambda: running.answers(gateway, NARROW))  # noqa: B023 - used at once
        yield running


def body_of(order: Order, *, streamed: bool) -> Json:
    message = {"role": "user", "content": order.prompt()}
    return {"model": NARROW, "messages": [message], "stream": streamed}


async def until(holds: Callable[[], Awaitable[bool]], within_s: float = SOON_S) -> float:
    """Return after how many seconds it held."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(within_s):
        while not await holds():
            await asyncio.sleep(LOOK_S)
    return loop.time() - began


async def ask(url: str, body: Json, timeout_s: float = SOON_S) -> None:
    """Ask and read until the end, or until the client has waited long enough."""
    async with (
        asyncio.timeout(timeout_s),
        httpx.AsyncClient(timeout=SOON_S) as http,
        http.stream("POST", url, json=body) as answer,
    ):
        async for _ in answer.aiter_bytes():
            pass


@contextlib.asynccontextmanager
async def client_that_closes(url: str, body: Json) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    asking = asyncio.create_task(ask(url, body))

    async def go() -> None:
        asking.cancel()
        await asyncio.wait([asking])

    yield go


@contextlib.asynccontextmanager
async def client_that_times_out(
    url: str, body: Json
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    asking = asyncio.create_task(ask(url, body, timeout_s=1.5))

    async def go() -> None:
        await asyncio.wait([asking])
        assert isinstance(asking.exception(), TimeoutError)

    yield go


@contextlib.asynccontextmanager
async def client_that_is_killed(
    url: str, body: Json
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    place = urlsplit(url)
    content = json.dumps(body)
    request = (
        f"POST {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n{content}"
    )
    words = (place.hostname or "", str(place.port), request)
    process = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", "-c", CLIENT, *words)

    async def go() -> None:
        process.kill()
        await process.wait()

    try:
        yield go
    finally:
        if process.returncode is None:
            await go()


WAYS = {
    "closes": client_that_closes,
    "times out": client_that_times_out,
    "is killed": client_that_is_killed,
}
PHASES = {"prefill": "prefilling", "decoding": "decoding"}


@pytest.mark.accepts("PORT-6")
@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("phase", PHASES)
async def test_the_backend_stops_with_its_client(
    site: Site, record: Record, phase: str, way: str, *, streamed: bool
) -> None:
    order = SLOW_READER if phase == "prefill" else FOREVER
    url = f"{site.gateways[streamed]}/v1/chat/completions"

    async def is_there() -> bool:
        return (await site.counters())[PHASES[phase]] == 1

    async def is_idle() -> bool:
        return (await site.counters())["in_flight"] == 0

    async with WAYS[way](url, body_of(order, streamed=streamed)) as go:
        await until(is_there)
        await go()
        idle_s = await until(is_idle)
    record(
        case=f"{'stream' if streamed else 'whole'} {phase}, client {way}",
        requests=1,
        hung=0,
        leaked=len(leaked := await leaks(site)),
        idle_after_s=f"{idle_s:.2f}",
    )
    assert leaked == []
    assert idle_s <= IDLE_WITHIN_S


@pytest.mark.accepts("PORT-6")
@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("way", WAYS)
async def test_who_leaves_the_line_never_reaches_the_backend(
    site: Site, record: Record, way: str, *, streamed: bool
) -> None:
    gateway = site.gateways[streamed]
    url = f"{gateway}/v1/chat/completions"
    before = await site.counters()

    async def is_taken() -> bool:
        return (await site.counters())["decoding"] == 1

    async def is_queued() -> bool:
        return (await site.metrics(gateway)).get("helexa_queue_depth") == 1

    async def is_left() -> bool:
        numbers = await site.metrics(gateway)
        return not numbers.get("helexa_queue_depth") and numbers["helexa_inflight_requests"] == 1

    async with client_that_closes(url, body_of(FOREVER, streamed=True)) as end:
        await until(is_taken)
        async with WAYS[way](url, body_of(FOREVER, streamed=streamed)) as go:
            await until(is_queued)
            await go()
            left_s = await until(is_left)
        await end()
    leaked = await leaks(site)
    after = await site.counters()
    record(
        case=f"{'stream' if streamed else 'whole'} queued, client {way}",
        requests=1,
        hung=0,
        leaked=len(leaked),
        idle_after_s=f"{left_s:.2f}",
    )
    assert leaked == []
    assert after["started"] == before["started"] + 1
    # The line is shown once a second.
    assert left_s <= 2 * IDLE_WITHIN_S
