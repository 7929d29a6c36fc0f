# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Requests of direct routes behave on the wire as all others do, down to the odd ones."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from email.utils import parsedate_to_datetime

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from tests.process.wire import LIMIT_S, Wire, post, wire

from helexa.process import connection
from helexa.process.direct import Answering, DirectRequest
from helexa.process.http import Listening, serve_http
from helexa.process.settings import SocketAddress

ANY = SocketAddress(host="127.0.0.1", port=0)
PATH = "/direct"
LIMIT = 1_000_000
KIND = b"content-type: text/plain\r\n"


async def other(request: Request) -> Response:
    body = await request.body()
    return PlainTextResponse(f"asgi {request.method} {request.url.path} {len(body)}")


OTHER = Starlette(
    routes=[Route("/{path:path}", other, methods=["GET", "POST", "PUT", "DELETE", "OPTIONS"])]
)


async def echo(request: DirectRequest) -> None:
    data = await request.body(LIMIT)
    request.start(200, KIND, len(data))
    await request.write(data, more=False)


async def stream(request: DirectRequest) -> None:
    data = await request.body(LIMIT)
    request.start(200, KIND)
    for at in range(0, len(data), 3):
        await request.write(data[at : at + 3], more=True)
    await request.write(b"", more=False)


@contextlib.asynccontextmanager
async def served(answering: Answering) -> AsyncIterator[Listening]:
    async with serve_http(OTHER, ANY, direct={PATH.encode(): answering}) as listening:
        yield listening


@contextlib.asynccontextmanager
async def connected(answering: Answering) -> AsyncIterator[Wire]:
    async with served(answering) as listening, wire(listening.url) as made:
        yield made


async def soon(awaitable: Awaitable[object]) -> None:
    await asyncio.wait_for(awaitable, LIMIT_S)


async def test_a_connection_is_used_again_and_again() -> None:
    async with connected(echo) as client:
        for text in (b"one", b"", b"three"):
            await client.send(post(PATH, text))
            answer = await client.answer()

            assert (answer.status, answer.version, answer.body) == (200, "HTTP/1.1", text)
            assert set(answer.headers) == {"date", "content-type", "content-length"}
            assert parsedate_to_datetime(answer.headers["date"]).tzinfo is not None


async def test_an_answer_of_unknown_length_comes_in_chunks() -> None:
    async with connected(stream) as client:
        for _ in range(2):
            await client.send(post(PATH, b"12345678"))
            answer = await client.answer()

            assert answer.headers["transfer-encoding"] == "chunked"
            assert answer.body == b"12345678"


async def test_a_head_and_a_short_body_leave_in_one_piece() -> None:
    async with connected(echo) as client:
        await client.send(post(PATH, b"x" * 1000))

        whole = await asyncio.wait_for(client.reader.read(65536), LIMIT_S)

    assert whole.startswith(b"HTTP/1.1 200 OK\r\n")
    assert whole.endswith(b"\r\n\r\n" + b"x" * 1000)


async def test_other_methods_and_paths_on_the_connection_are_served_by_the_application() -> None:
    async with connected(echo) as client:
        for request, body in (
            (post(PATH, b"1"), b"1"),
            (b"GET /direct HTTP/1.1\r\nHost: x\r\n\r\n", b"asgi GET /direct 0"),
            (post("/other", b"12"), b"asgi POST /other 2"),
            (post("/direct?a=b", b"12"), b"asgi POST /direct 2"),
            (post("/dire%63t", b"12"), b"asgi POST /direct 2"),
            (b"PUT /direct HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", b"asgi PUT /direct 1"),
            (post(PATH, b"2"), b"2"),
        ):
            await client.send(request)
            assert (await client.answer()).body == body
        await client.send(b"HEAD /direct HTTP/1.1\r\nHost: x\r\n\r\n")

        assert (await client.head()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    may_answer = asyncio.Event()
    began: list[bytes] = []

    async def hold(request: DirectRequest) -> None:
        began.append(await request.body(LIMIT))
        await may_answer.wait()
        request.start(200, KIND, len(began[-1]))
        await request.write(began[-1], more=False)

    async with connected(hold) as client:
        get = b"GET /direct HTTP/1.1\r\nHost: x\r\n\r\n"
        await client.send(post(PATH, b"1") + get + post(PATH, b"2") + post(PATH, b"3"))
        while not began:
            await asyncio.sleep(0)
        before = list(began)
        may_answer.set()
        answers = [(await client.answer()).body for _ in range(4)]
        await client.send(post(PATH, b"4"))
        answers.append((await client.answer()).body)

    assert before == [b"1"]
    assert answers == [b"1", b"asgi GET /direct 0", b"2", b"3", b"4"]


@pytest.mark.parametrize("size", [1, 7, 100])
async def test_a_request_may_come_in_the_smallest_pieces(size: int) -> None:
    async with connected(echo) as client:
        whole = post(PATH, b"some text", "X-Long: " + "y" * 50)
        for at in range(0, len(whole), size):
            await client.send(whole[at : at + size])
            await asyncio.sleep(0)

        assert (await client.answer()).body == b"some text"


async def test_a_body_may_come_in_chunks() -> None:
    async with connected(echo) as client:
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        await client.send(head.encode() + b"4\r\nsome\r\n5;ext=1\r\n text\r\n")
        await client.send(b"0\r\nTrailer: x\r\n\r\n")

        assert (await client.answer()).body == b"some text"
        await client.send(post(PATH, b"next"))
        assert (await client.answer()).body == b"next"


async def test_a_large_body_comes_whole() -> None:
    async with connected(echo) as client:
        sent = bytes(range(256)) * 3900

        await client.send(post(PATH, sent))

        assert (await client.answer()).body == sent


async def test_a_client_that_waits_to_be_told_sends_its_body() -> None:
    async with connected(echo) as client:
        await client.send(post(PATH, b"text", "Expect: 100-continue")[:-4])
        told = await client.head()
        await client.send(b"text")

        assert told == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await client.answer()).body == b"text"


async def test_a_client_is_not_told_to_send_what_nobody_reads() -> None:
    async def refuse(request: DirectRequest) -> None:
        request.keep_alive = False
        request.start(413, KIND, 3)
        await request.write(b"no\n", more=False)

    async with connected(refuse) as client:
        await client.send(post(PATH, b"text", "Expect: 100-continue")[:-4])
        answer = await client.answer()

        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert await client.rest() == b""


async def test_of_a_body_that_is_too_large_not_all_is_read() -> None:
    read: list[int] = []
    asked, may_go_on = asyncio.Event(), asyncio.Event()

    async def bounded(request: DirectRequest) -> None:
        read.append(len(await request.body(100_000)))
        asked.set()
        await may_go_on.wait()
        request.keep_alive = False
        request.start(413, KIND, 0)
        await request.write(b"", more=False)

    async with connected(bounded) as client:
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n".encode()
        client.writer.write(head)
        sent = 0
        with contextlib.suppress(TimeoutError):
            # The buffers of both ends of the connection take some megabytes.
            while sent < 200_000_000:
                client.writer.write(b"x" * 1_000_000)
                sent += 1_000_000
                await asyncio.wait_for(client.writer.drain(), 0.5)
        await soon(asked.wait())
        may_go_on.set()
        with contextlib.suppress(ConnectionError):
            assert (await client.answer()).status == 413

    assert 100_000 < read[0] < 1_000_000
    assert sent < 200_000_000


async def test_a_request_that_nobody_reads_does_not_fill_the_memory() -> None:
    asked, may_go_on = asyncio.Event(), asyncio.Event()
    sizes: list[int] = []

    async def wait(request: DirectRequest) -> None:
        asked.set()
        await may_go_on.wait()
        sizes.append(sum(map(len, request._parts)))  # noqa: SLF001 - what is held is asked for
        body = await request.body(100_000_000)
        request.start(200, KIND, 0)
        sizes.append(len(body))
        await request.write(b"", more=False)

    async with connected(wait) as client:
        sending = asyncio.create_task(client.send(post(PATH, b"x" * 50_000_000)))
        await soon(asked.wait())
        done, _ = await asyncio.wait({sending}, timeout=0.5)
        assert not done
        may_go_on.set()
        assert (await client.answer()).status == 200
        await sending

    assert sizes[0] < 2_000_000
    assert sizes[1] == 50_000_000


async def test_a_slow_client_holds_the_answer_up() -> None:
    written: list[int] = []
    is_stuck = asyncio.Event()

    async def flood(request: DirectRequest) -> None:
        await request.body(LIMIT)
        request.start(200, KIND)
        for k in range(400):
            asyncio.get_running_loop().call_later(0.5, look, k)
            await request.write(b"x" * 100_000, more=True)
            written.append(k)
        await request.write(b"", more=False)

    def look(k: int) -> None:
        if len(written) <= k:
            is_stuck.set()

    async with served(flood) as at, wire(at.url, receive_buffer=4096) as client:
        await client.send(post(PATH, b""))
        await soon(is_stuck.wait())
        before = len(written)
        answer = await client.answer()

    assert before < 390
    assert len(answer.body) == 40_000_000


async def gone(request: DirectRequest) -> None:
    """Return when the client has closed the connection."""
    left = asyncio.Event()
    request.watch(left.set)
    await left.wait()


async def test_a_client_that_leaves_is_noticed_while_its_answer_is_awaited() -> None:
    has_left = asyncio.Event()

    async def wait(request: DirectRequest) -> None:
        await request.body(LIMIT)
        await gone(request)
        has_left.set()
        request.start(200, KIND, 1)
        await request.write(b"x", more=False)

    async with served(wait) as listening:
        async with wire(listening.url) as client:
            await client.send(post(PATH, b"x"))
        await soon(has_left.wait())


async def test_a_client_that_ends_its_side_has_left() -> None:
    has_left = asyncio.Event()

    async def wait(request: DirectRequest) -> None:
        await request.body(LIMIT)
        await gone(request)
        has_left.set()

    async with connected(wait) as client:
        await client.send(post(PATH, b"x"))
        client.writer.write_eof()
        await soon(has_left.wait())


async def test_a_client_that_leaves_is_noticed_though_it_has_pipelined_more() -> None:
    has_left = asyncio.Event()

    async def wait(request: DirectRequest) -> None:
        await request.body(LIMIT)
        request.start(200, KIND)
        left = asyncio.Event()
        request.watch(left.set)
        while not left.is_set():
            await request.write(b"x" * 1000, more=True)
            await asyncio.sleep(0)
        has_left.set()

    async with served(wait) as listening:
        async with wire(listening.url) as client:
            await client.send(post(PATH, b"x") + post(PATH, b"y"))
            await client.head()
        await soon(has_left.wait())


async def test_a_client_that_leaves_within_its_body_is_noticed() -> None:
    seen: asyncio.Queue[bool] = asyncio.Queue()

    async def read(request: DirectRequest) -> None:
        await request.body(LIMIT)
        await seen.put(request.disconnected)

    async with served(read) as listening:
        async with wire(listening.url) as client:
            await client.send(post(PATH, b"text")[:-1])

        assert await asyncio.wait_for(seen.get(), LIMIT_S)


async def test_a_client_that_left_a_slow_stream_does_not_hold_its_task() -> None:
    ended = asyncio.Event()

    async def flood(request: DirectRequest) -> None:
        await request.body(LIMIT)
        request.start(200, KIND)
        while not request.disconnected:
            await request.write(b"x" * 100_000, more=True)
        ended.set()

    async with served(flood) as listening:
        async with wire(listening.url, receive_buffer=4096) as client:
            await client.send(post(PATH, b""))
            await client.head()
        await soon(ended.wait())


async def test_an_old_client_gets_a_body_that_ends_with_the_connection() -> None:
    for line in ("X: y", "Connection: keep-alive"):
        async with connected(stream) as client:
            await client.send(post(PATH, b"12345678", line, version="1.0"))
            answer = await client.answer()

        assert answer.headers["connection"] == "close"
        assert "transfer-encoding" not in answer.headers
        assert answer.body == b"12345678"


async def test_a_client_that_asks_for_it_has_its_connection_closed() -> None:
    async with connected(echo) as client:
        await client.send(post(PATH, b"1", "Connection: close"))
        answer = await client.answer()

        assert (answer.headers["connection"], answer.body) == ("close", b"1")
        assert await client.rest() == b""


@pytest.mark.parametrize("path", [PATH, "/other"])
@pytest.mark.parametrize("how", ["many lines", "one line", "the request line"])
async def test_headers_have_a_bound(path: str, how: str) -> None:
    begin = f"POST {path}" if how == "the request line" else f"POST {path} HTTP/1.1\r\nHost: x\r\n"
    part = "X-Header: y\r\n" * 1000 if how == "many lines" else "y" * 13000
    if how == "one line":
        begin += "X-Header: "
    async with connected(echo) as client:
        await client.send(begin.encode())
        for _ in range(10):
            client.writer.write(part.encode())
        head = await client.head()

    assert head.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert b"\r\nconnection: close\r\n" in head


async def test_what_is_not_http_is_refused() -> None:
    async with connected(echo) as client:
        await client.send(b"\x16\x03\x01 hello\r\n\r\n")

        assert (await client.answer()).status == 400
        assert await client.rest() == b""


async def test_two_lengths_of_one_body_are_refused() -> None:
    async with connected(echo) as client:
        await client.send(post(PATH, b"text", "Transfer-Encoding: chunked"))

        assert (await client.answer()).status == 400


async def test_a_handler_that_fails_costs_its_own_connection_alone() -> None:
    failures: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context.get("exception")))

    async def fail(request: DirectRequest) -> None:
        begun = await request.body(LIMIT)
        if begun:
            request.start(200, KIND)
            await request.write(begun, more=True)
        raise LookupError("a defect")

    async with served(fail) as listening:
        async with wire(listening.url) as client:
            await client.send(post(PATH, b""))
            answer = await client.answer()
            assert (answer.status, answer.body) == (500, b"")
            assert await client.rest() == b""
        async with wire(listening.url) as client:
            await client.send(post(PATH, b"begun"))
            await client.head()
            # No last chunk: the client sees that it is not all.
            assert await client.rest() == b"5\r\nbegun\r\n"
        async with wire(listening.url) as client:
            await client.send(post("/other", b"1"))
            assert (await client.answer()).status == 200


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[connection.Connection] = []
    before = connection.Connection.connection_made

    def note(self: connection.Connection, transport: asyncio.Transport) -> None:
        self.timeout_keep_alive = 0.3  # type: ignore[assignment]
        made.append(self)
        before(self, transport)

    monkeypatch.setattr(connection.Connection, "connection_made", note)
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def hold(request: DirectRequest) -> None:
        if await request.body(LIMIT) == b"wait":
            asked.set()
            await may_answer.wait()
        request.start(200, KIND, 0)
        await request.write(b"", more=False)

    async with connected(hold) as client:
        loop = asyncio.get_running_loop()
        await client.send(post(PATH, b"x"))
        await client.answer()
        await client.send(post(PATH, b"wait"))
        await soon(asked.wait())
        await asyncio.sleep(0.5)
        may_answer.set()
        assert (await client.answer()).status == 200
        answered_at = loop.time()
        assert await client.rest() == b""

        assert loop.time() - answered_at > 0.25

    assert len(made) == 1


async def test_a_server_that_leaves_says_so_in_each_answer() -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()
    owed: list[bool] = []

    async def hold(request: DirectRequest) -> None:
        owed.append(request.is_owed)
        if await request.body(LIMIT) == b"wait":
            asked.set()
            await may_answer.wait()
        request.start(200, KIND, 0)
        await request.write(b"", more=False)

    async with (
        served(hold) as listening,
        wire(listening.url) as idle,
        wire(listening.url) as busy,
        wire(listening.url) as late,
    ):
        await idle.send(post(PATH, b""))
        kept = await idle.answer()
        await busy.send(post(PATH, b"wait"))
        await soon(asked.wait())
        listening.close_when_answered()
        may_answer.set()
        answers = [await busy.answer()]
        await idle.send(post(PATH, b""))
        answers.append(await idle.answer())
        await late.send(post(PATH, b""))
        answers.append(await late.answer())
        ends = [await each.rest() for each in (busy, idle, late)]

    assert "connection" not in kept.headers
    assert [each.headers.get("connection") for each in answers] == ["close"] * 3
    assert ends == [b""] * 3
    # Only a connection whose client could not know is owed an answer.
    assert owed == [False, False, True, True]


async def test_a_running_direct_answer_finishes_while_the_socket_closes() -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def slow(request: DirectRequest) -> None:
        await request.body(LIMIT)
        asked.set()
        await may_answer.wait()
        request.start(200, KIND, 5)
        await request.write(b"whole", more=False)

    server = served(slow)
    listening = await server.__aenter__()
    async with wire(listening.url) as client:
        await client.send(post(PATH, b""))
        await soon(asked.wait())
        leaving = asyncio.create_task(server.__aexit__(None, None, None))
        may_answer.set()
        await soon(leaving)
        answer = await client.answer()

    assert answer.body == b"whole"


async def test_an_answer_that_takes_too_long_at_the_end_is_cut() -> None:
    asked, was_cut = asyncio.Event(), asyncio.Event()

    async def hang(request: DirectRequest) -> None:
        await request.body(LIMIT)
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            was_cut.set()

    server = serve_http(OTHER, ANY, direct={PATH.encode(): hang}, grace_s=1)
    listening = await server.__aenter__()
    async with wire(listening.url) as client:
        await client.send(post(PATH, b""))
        await soon(asked.wait())
        await soon(server.__aexit__(None, None, None))

        assert was_cut.is_set()
        assert (await client.answer()).status == 500
