# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Streams and answers of backends that misbehave in every way that they do."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import pytest

from helexa.neuron.backends.client import HttpClient
from helexa.neuron.backends.inference import HttpInference, ResponseEvents
from helexa.protocol.errors import (
    BackendError,
    BackendRejectedError,
    HelexaError,
    ModelLoadingError,
    StreamInterruptedError,
)

PATIENCE_S = 10.0
ONE, TWO = b'data: {"n":1}\n\n', b'data: {"n":2}\n\n'
END = b"data: [DONE]\n\n"


class Exchange(Protocol):
    reader: asyncio.StreamReader

    async def request(self) -> tuple[str, bytes]: ...
    async def send(self, data: bytes) -> None: ...
    async def answer(self, body: bytes, *, status: int = 200, extra: str = "") -> None: ...
    async def stream(self, *pieces: bytes, ends: bool = True) -> None: ...


class Server(Protocol):
    url: str
    connections: int


Serve = Callable[..., Awaitable[Server]]


async def iterated(stream: ResponseEvents, events: list[bytes]) -> None:
    async for batch in stream:
        events += batch


async def pumped(stream: ResponseEvents, events: list[bytes], *, pauses: bool = False) -> None:
    def take(batch: list[bytes]) -> bool:
        events.extend(batch)
        return not pauses

    while not await stream.pump(take):
        assert pauses
        await asyncio.sleep(0)


async def pumped_with_pauses(stream: ResponseEvents, events: list[bytes]) -> None:
    await pumped(stream, events, pauses=True)


READERS: dict[str, Callable[[ResponseEvents, list[bytes]], Awaitable[None]]] = {
    "iterated": iterated,
    "pumped": pumped,
    "pumped with pauses": pumped_with_pauses,
}
READER = ["iterated"]


@pytest.fixture(params=READERS, autouse=True)
def _reader(request: pytest.FixtureRequest) -> None:
    """Read the streams of each test in every way that there is."""
    READER[0] = request.param


async def collect(stream: ResponseEvents) -> tuple[list[bytes], HelexaError | None]:
    """Return the events and the error that ended them."""
    events: list[bytes] = []
    try:
        await READERS[READER[0]](stream, events)
    except HelexaError as error:
        return events, error
    return events, None


async def chat(serve: Serve, *pieces: bytes, ends: bool) -> tuple[list[bytes], HelexaError | None]:
    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.stream(*pieces, ends=ends)

    backend = await connected(serve, script)
    try:
        return await collect(await backend.chat(b"{}"))
    finally:
        backend.disconnect()


async def connected(serve: Serve, script: Callable[[Exchange], Awaitable[None]]) -> HttpInference:
    backend = HttpInference()
    backend.connect(HttpClient((await serve(script)).url))
    return backend


async def test_each_route_is_asked_with_the_body_given(serve: Serve) -> None:
    seen: list[tuple[str, bytes]] = []

    async def script(exchange: Exchange) -> None:
        while (request := await exchange.request())[0]:
            seen.append((request[0].split()[1], request[1]))
            if "embeddings" in request[0]:
                await exchange.answer(b'{"data":[]}')
            else:
                await exchange.stream(ONE, END)

    backend = await connected(serve, script)
    for start in (backend.chat, backend.complete, backend.describe):
        assert await collect(await start(b"{}")) == ([b'{"n":1}'], None)
    assert await backend.embed(b"[]") == b'{"data":[]}'
    backend.disconnect()

    chats = ("/v1/chat/completions", b"{}")
    assert seen == [chats, ("/v1/completions", b"{}"), chats, ("/v1/embeddings", b"[]")]


async def test_a_finished_stream_leaves_its_connection_for_the_next(serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        while (await exchange.request())[0]:
            await exchange.stream(ONE + TWO, END)

    server = await serve(script)
    backend = HttpInference()
    backend.connect(HttpClient(server.url))
    for _ in range(3):
        assert await collect(await backend.chat(b"{}")) == ([b'{"n":1}', b'{"n":2}'], None)

    assert server.connections == 1
    backend.disconnect()


async def test_what_follows_the_end_mark_is_waited_for_aside(serve: Serve) -> None:
    read = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        while (await exchange.request())[0]:
            await exchange.stream(ONE, END, ends=False)
            await read.wait()
            await exchange.send(b"0\r\n\r\n")

    server = await serve(script)
    backend = HttpInference()
    backend.connect(HttpClient(server.url))
    assert await collect(await backend.chat(b"{}")) == ([b'{"n":1}'], None)
    read.set()
    async with asyncio.timeout(PATIENCE_S):
        while not backend.connected().idle_connections:
            await asyncio.sleep(0)

    await collect(await backend.chat(b"{}"))
    assert server.connections == 1
    backend.disconnect()


@pytest.mark.parametrize("ends", [True, False])
async def test_a_stream_without_its_end_mark_is_an_error(serve: Serve, *, ends: bool) -> None:
    events, error = await chat(serve, ONE, ends=ends)

    assert events == [b'{"n":1}']
    assert isinstance(error, StreamInterruptedError)
    assert error.message == "the backend closed without its end mark"


@pytest.mark.parametrize("ends", [True, False])
async def test_a_stream_that_ends_before_it_begins_is_no_interruption(
    serve: Serve, *, ends: bool
) -> None:
    events, error = await chat(serve, b": ping\n\n", ends=ends)

    assert (events, type(error)) == ([], BackendError)


async def test_an_event_cut_by_a_death_is_not_handed_out(serve: Serve) -> None:
    events, error = await chat(serve, ONE, b'data: {"n":', ends=False)

    assert events == [b'{"n":1}']
    assert isinstance(error, StreamInterruptedError)


async def test_an_error_in_mid_stream_comes_after_what_came_before_it(serve: Serve) -> None:
    failed = b'data: {"error":{"code":500,"message":"compute failed","type":"server_error"}}\n\n'
    events, error = await chat(serve, ONE + TWO + failed + ONE, END, ends=True)

    assert events == [b'{"n":1}', b'{"n":2}']
    assert type(error) is BackendError
    assert "compute failed" in error.message


async def test_an_error_that_comes_in_two_reads_is_still_an_error(serve: Serve) -> None:
    has_first = asyncio.Event()
    failed = b'data: {"error":{"code":500,"message":"compute failed","type":"server_error"}}\n\n'
    events: list[bytes] = []

    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.stream(ONE + failed[:20], ends=False)
        await has_first.wait()
        await exchange.send(b"%x\r\n%b\r\n" % (len(failed) - 20, failed[20:]))

    def take(batch: list[bytes]) -> bool:
        events.extend(batch)
        has_first.set()
        return True

    backend = await connected(serve, script)
    with pytest.raises(BackendError, match="compute failed"):
        await (await backend.chat(b"{}")).pump(take)
    backend.disconnect()
    assert events == [b'{"n":1}']


async def test_a_stream_that_has_failed_stays_failed(serve: Serve) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.stream(ONE)

    backend = await connected(serve, script)
    stream = await backend.chat(b"{}")
    assert [type((await collect(stream))[1]) for _ in range(2)] == [StreamInterruptedError] * 2
    backend.disconnect()


@pytest.mark.parametrize(
    ("status", "kind"), [(400, BackendRejectedError), (503, ModelLoadingError), (500, BackendError)]
)
async def test_a_refusal_is_raised_before_the_stream(
    serve: Serve, status: int, kind: type[HelexaError]
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.answer(b'{"error":{"message":"Loading model"}}', status=status)

    backend = await connected(serve, script)
    for start in (backend.chat, backend.embed):
        with pytest.raises(kind):
            await start(b"{}")
    backend.disconnect()


@pytest.mark.parametrize(
    ("body", "words"),
    [(b'{"choices":[]}', "does not stream"), (b'{"error":{"message":"no GPU"}}', "no GPU")],
)
async def test_an_answer_that_is_no_stream_is_an_error(
    serve: Serve, body: bytes, words: str
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.answer(body, extra="Content-Type: application/json\r\n")

    backend = await connected(serve, script)
    with pytest.raises(BackendError, match=words):
        await backend.chat(b"{}")
    backend.disconnect()


async def test_closing_a_stream_closes_the_connection(serve: Serve) -> None:
    ended = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.stream(ONE, ends=False)
        assert await exchange.reader.read() == b""
        ended.set()

    backend = await connected(serve, script)
    stream = await backend.chat(b"{}")
    assert await anext(stream) == [b'{"n":1}']
    await stream.aclose()
    await stream.aclose()

    async with asyncio.timeout(PATIENCE_S):
        await ended.wait()
    backend.disconnect()


async def test_a_backend_that_is_not_running_says_so() -> None:
    with pytest.raises(BackendError, match="not running"):
        await HttpInference().chat(b"{}")
