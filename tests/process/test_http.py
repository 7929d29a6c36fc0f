# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Sockets are bound or refused clearly; status routes tell the truth; running answers finish."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from helexa.process.health import Readiness
from helexa.process.http import bind, serve_http
from helexa.process.metrics import Metrics
from helexa.process.settings import SettingsError, SocketAddress
from helexa.process.status import status_routes

ANY = SocketAddress(host="127.0.0.1", port=0)


@pytest.mark.accepts("CFG-2")
def test_a_taken_port_is_refused_by_its_address() -> None:
    with bind(ANY) as listener:
        taken = SocketAddress(host="127.0.0.1", port=listener.getsockname()[1])

        with pytest.raises(SettingsError) as refused:
            bind(taken)

    assert str(refused.value) == (
        f"cannot listen on {taken}: Address already in use; choose another address"
    )


@pytest.mark.accepts("CFG-2")
def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"cannot listen on 192\.0\.2\.1:8080: "):
        bind(SocketAddress(host="192.0.2.1", port=8080))


def test_a_socket_on_all_addresses_is_reached_by_loopback() -> None:
    everywhere = SocketAddress(host="0.0.0.0", port=0)

    async def url() -> str:
        async with serve_http(Starlette(), everywhere) as listening:
            return listening.url

    assert asyncio.run(url()).startswith("http://127.0.0.1:")


@pytest.mark.accepts("CX-27")
async def test_a_running_answer_finishes_while_the_socket_closes() -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def slow(_: Request) -> Response:
        asked.set()
        await may_answer.wait()
        return PlainTextResponse("whole")

    async with httpx.AsyncClient() as client:
        server = serve_http(Starlette(routes=[Route("/", slow)]), ANY)
        listening = await server.__aenter__()
        answer = asyncio.create_task(client.get(listening.url))
        await asked.wait()
        leaving = asyncio.create_task(server.__aexit__(None, None, None))
        may_answer.set()
        await leaving

        assert (await answer).text == "whole"
        with pytest.raises(httpx.ConnectError):
            await client.get(listening.url)


async def test_readiness_follows_its_conditions_and_liveness_does_not() -> None:
    readiness, is_connected = Readiness(), False
    readiness.require("bus", lambda: is_connected)
    app = Starlette(routes=status_routes(readiness, Metrics("portal", "i1")))

    async with serve_http(app, ANY) as listening, httpx.AsyncClient() as client:
        before = await client.get(f"{listening.url}/readyz")
        alive = await client.get(f"{listening.url}/livez")
        is_connected = True
        after = await client.get(f"{listening.url}/health/readiness")
        readiness.stop()
        stopping = await client.get(f"{listening.url}/readyz")

    assert before.status_code == 503
    assert before.json() == {"status": "not ready", "missing": ["bus"]}
    assert before.headers["retry-after"] == "1"
    assert alive.status_code == 200
    assert after.status_code == 200
    assert stopping.json()["missing"] == ["shutting_down"]


@pytest.mark.accepts("UTL-2")
async def test_numbers_are_scraped_over_http() -> None:
    metrics = Metrics("portal", "i1")
    metrics.counter("pages", "Pages.", "page").labels("status").inc(2)
    app = Starlette(routes=status_routes(Readiness(), metrics))

    async with serve_http(app, ANY) as listening, httpx.AsyncClient() as client:
        answer = await client.get(f"{listening.url}/metrics")

    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'helexa_pages_total{page="status"} 2.0' in answer.text
