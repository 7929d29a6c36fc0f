# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The HTTP client against servers that say exactly what they are told."""

import asyncio
import gc
import shutil
import ssl
import subprocess
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import pytest

from helexa.neuron.backends.client import Address, HttpClient
from helexa.neuron.backends.limits import Timeouts
from helexa.protocol.errors import BackendError

PATIENCE_S = 10.0
MIB = 1 << 20


class Exchange(Protocol):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> tuple[str, bytes]: ...
    async def send(self, data: bytes) -> None: ...
    async def answer(self, body: bytes, *, status: int = 200, extra: str = "") -> None: ...
    async def stream(self, *pieces: bytes, ends: bool = True) -> None: ...


class Server(Protocol):
    url: str
    connections: int
    open_connections: int


Serve = Callable[..., Awaitable[Server]]


async def echo(exchange: Exchange) -> None:
    while (request := await exchange.request())[0]:
        await exchange.answer(request[1] or b"nothing")


async def post(client: HttpClient, body: bytes) -> bytes:
    response = await client.send("POST", "/x", body)
    return await response.read_all(64 * MIB)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0)


async def test_a_body_goes_and_comes_back(serve: Serve) -> None:
    client = HttpClient((await serve(echo)).url)

    assert await post(client, b"hello") == b"hello"
    assert await post(client, bytes(3 * MIB)) == bytes(3 * MIB)
    client.close()


async def test_a_response_that_has_been_read_needs_no_garbage_collector(serve: Serve) -> None:
    client = HttpClient((await serve(echo)).url)
    gc.disable()
    try:
        response = await client.send("POST", "/x", b"hello")
        await response.read_all(MIB)
        seen = weakref.ref(response)
        del response
        assert seen() is None
    finally:
        gc.enable()
        client.close()


async def test_the_request_says_what_a_server_needs(serve: Serve) -> None:
    async def tell(exchange: Exchange) -> None:
        head, _ = await exchange.request()
        await exchange.answer(head.encode())

    server = await serve(tell)
    client = HttpClient(f"{server.url}/api/v1/", headers={"Authorization": "Bearer k"})
    head = (await (await client.send("POST", "/v1/x", b"{}")).read_all(MIB)).decode()
    client.close()

    assert head.splitlines() == [
        "POST /api/v1/x HTTP/1.1",
        f"Host: {server.url.removeprefix('http://')}",
        "Accept-Encoding: identity",
        "Authorization: Bearer k",
        "Content-Type: application/json",
        "Content-Length: 2",
        "",
    ]


async def test_a_response_is_read_wherever_it_is_cut(serve: Serve) -> None:
    whole = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-A: 1\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n"
    )

    async def drip(exchange: Exchange) -> None:
        await exchange.request()
        for place in range(len(whole)):
            await exchange.send(whole[place : place + 1])
            await asyncio.sleep(0)
        await echo(exchange)

    server = await serve(drip)
    client = HttpClient(server.url)
    response = await client.send("GET", "/")

    assert (response.status, response.headers["x-a"]) == (200, "1")
    assert await response.read_all(MIB) == b"hello world"
    assert await post(client, b"again") == b"again"
    assert server.connections == 1
    client.close()


async def test_a_body_without_a_length_ends_with_the_connection(serve: Serve) -> None:
    async def old(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(b"HTTP/1.0 200 OK\r\n\r\nhello")

    client = HttpClient((await serve(old)).url)

    assert await post(client, b"") == b"hello"
    client.close()


async def test_a_connection_serves_one_request_after_another(serve: Serve) -> None:
    server = await serve(echo)
    client = HttpClient(server.url)
    for _ in range(5):
        await post(client, b"x")

    assert server.connections == 1
    client.close()


async def test_no_more_connections_are_kept_than_allowed(serve: Serve) -> None:
    met = asyncio.Barrier(6)

    async def together(exchange: Exchange) -> None:
        while (request := await exchange.request())[0]:
            await met.wait()
            await exchange.answer(request[1])

    server = await serve(together)
    client = HttpClient(server.url, max_idle=2)
    await asyncio.gather(*(post(client, b"x") for _ in range(6)))

    assert server.connections == 6
    await until(lambda: server.open_connections == 2)
    client.close()


async def test_a_kept_connection_that_the_server_has_closed_is_replaced(serve: Serve) -> None:
    async def once(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.answer(b"ok")
        # The next request is read, and the connection closed instead of an answer.
        await exchange.request()

    server = await serve(once)
    client = HttpClient(server.url)

    assert [await post(client, b"x") for _ in range(3)] == [b"ok"] * 3
    assert server.connections == 3
    client.close()


async def test_a_request_is_not_sent_again_once_an_answer_has_begun(serve: Serve) -> None:
    async def torn(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.answer(b"ok")
        await exchange.request()
        await exchange.send(b"HTTP/1.1 2")

    server = await serve(torn)
    client = HttpClient(server.url)
    await post(client, b"x")

    with pytest.raises(BackendError, match="closed the connection"):
        await post(client, b"x")
    assert server.connections == 1
    client.close()


async def test_a_fresh_connection_that_breaks_is_an_error_at_once(serve: Serve) -> None:
    async def shy(exchange: Exchange) -> None:
        await exchange.request()

    server = await serve(shy)
    client = HttpClient(server.url)

    with pytest.raises(BackendError, match="closed the connection"):
        await post(client, b"x")
    assert server.connections == 1
    client.close()


async def test_a_body_that_breaks_off_is_an_error_after_what_came(serve: Serve) -> None:
    async def torn(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.stream(b"half", ends=False)

    client = HttpClient((await serve(torn)).url)
    response = await client.send("GET", "/")

    assert await response.read() == b"half"
    with pytest.raises(BackendError):
        await response.read()
    assert response.was_cut
    client.close()


async def test_a_server_that_is_not_there_can_be_tried_elsewhere(serve: Serve) -> None:
    gone = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = gone.sockets[0].getsockname()[1]
    gone.close()
    await gone.wait_closed()
    del serve

    with pytest.raises(BackendError, match="cannot be reached") as failure:
        await HttpClient(f"http://127.0.0.1:{port}").fetch("/")
    assert failure.value.retryable


async def test_a_server_that_never_answers_is_given_up(serve: Serve) -> None:
    async def silent(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.request()

    server = await serve(silent)
    client = HttpClient(server.url, timeouts=Timeouts(first_byte_s=0.05))

    with pytest.raises(BackendError, match=r"nothing for 0\.05 s"):
        await client.fetch("/")
    await until(lambda: server.open_connections == 0)
    client.close()


async def test_a_body_that_stalls_is_given_up(serve: Serve) -> None:
    async def stall(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.stream(b"one", ends=False)
        await exchange.request()

    server = await serve(stall)
    client = HttpClient(server.url, timeouts=Timeouts(first_byte_s=60, idle_s=0.05))
    response = await client.send("GET", "/")
    assert await response.read() == b"one"

    with pytest.raises(BackendError, match=r"nothing for 0\.05 s"):
        await response.read()
    await until(lambda: server.open_connections == 0)
    client.close()


async def test_a_reader_that_takes_its_time_is_no_stall(serve: Serve) -> None:
    proceed = asyncio.Event()

    async def two(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.stream(b"one", ends=False)
        await proceed.wait()
        await exchange.send(b"3\r\ntwo\r\n0\r\n\r\n")
        await exchange.request()

    client = HttpClient((await serve(two)).url, timeouts=Timeouts(idle_s=0.05))
    response = await client.send("GET", "/")
    assert await response.read() == b"one"
    later = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.2, later.set_result, None)
    await later
    proceed.set()

    assert await response.read() == b"two"
    client.close()


async def test_a_server_is_slowed_down_to_the_pace_of_the_reader(serve: Serve) -> None:
    stalled = asyncio.Event()
    sent = 0
    total = 48 * MIB

    async def flood(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.request()
        await exchange.send(f"HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n".encode())
        while sent < total:
            exchange.writer.write(bytes(MIB))
            sent += MIB
            try:
                await asyncio.wait_for(asyncio.shield(exchange.writer.drain()), 0.3)
            except TimeoutError:
                stalled.set()
                await exchange.writer.drain()
        await exchange.request()

    client = HttpClient((await serve(flood)).url)
    response = await client.send("GET", "/")
    async with asyncio.timeout(PATIENCE_S):
        await stalled.wait()

    assert sent < 24 * MIB
    assert len(await response.read_all(total)) == total
    client.close()


async def test_closing_a_response_closes_the_connection(serve: Serve) -> None:
    ended = asyncio.Event()

    async def endless(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.stream(b"one", ends=False)
        assert await exchange.reader.read() == b""
        ended.set()

    client = HttpClient((await serve(endless)).url)
    response = await client.send("GET", "/")
    response.close()
    response.close()

    async with asyncio.timeout(PATIENCE_S):
        await ended.wait()
    client.close()


async def test_a_cancelled_request_closes_its_connection(serve: Serve) -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await exchange.request()
        asked.set()
        assert await exchange.reader.read() == b""
        ended.set()

    client = HttpClient((await serve(slow)).url)
    sending = asyncio.create_task(client.send("POST", "/", b"x"))
    await asked.wait()
    sending.cancel()

    async with asyncio.timeout(PATIENCE_S):
        await ended.wait()
    with pytest.raises(asyncio.CancelledError):
        await sending
    client.close()


async def test_the_end_of_a_dropped_response_frees_its_connection(serve: Serve) -> None:
    dropped = asyncio.Event()

    async def late(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.stream(b"most", ends=False)
        await dropped.wait()
        await exchange.send(b"4\r\nrest\r\n0\r\n\r\n")
        await echo(exchange)

    server = await serve(late)
    client = HttpClient(server.url)
    response = await client.send("GET", "/")
    assert await response.read() == b"most"
    response.discard()
    dropped.set()

    await until(lambda: client.idle_connections == 1)
    assert await post(client, b"next") == b"next"
    assert server.connections == 1
    client.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
)
async def test_what_is_not_an_http_answer_is_an_error(serve: Serve, answer: bytes) -> None:
    async def odd(exchange: Exchange) -> None:
        await exchange.request()
        await exchange.send(answer)
        await exchange.request()

    client = HttpClient((await serve(odd)).url)

    with pytest.raises(BackendError, match="does not speak HTTP"):
        await client.fetch("/")
    client.close()


async def test_an_answer_that_nobody_asked_for_is_never_taken_for_the_next(serve: Serve) -> None:
    async def eager(exchange: Exchange) -> None:
        await exchange.request()
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
        await exchange.send(answer + b"ok" + answer + b"no")
        await echo(exchange)

    server = await serve(eager)
    client = HttpClient(server.url)

    assert await post(client, b"x") == b"ok"
    assert await post(client, b"y") == b"ok"
    assert server.connections == 2
    client.close()


async def test_a_closed_client_ends_what_is_under_way_and_starts_nothing(serve: Serve) -> None:
    asked = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await exchange.request()
        asked.set()
        await exchange.request()

    client = HttpClient((await serve(slow)).url)
    sending = asyncio.create_task(client.fetch("/"))
    await asked.wait()
    client.close()

    with pytest.raises(BackendError):
        await sending
    with pytest.raises(BackendError, match="stopped"):
        await client.fetch("/")


async def test_a_body_over_the_limit_is_refused(serve: Serve) -> None:
    client = HttpClient((await serve(echo)).url)
    response = await client.send("POST", "/", bytes(MIB))

    with pytest.raises(BackendError, match="too long"):
        await response.read_all(MIB - 1)
    client.close()


async def test_a_server_with_a_certificate_is_reached_if_that_is_trusted(
    serve: Serve, tmp_path: Path
) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = f"req -x509 -newkey rsa:2048 -nodes -days 2 -keyout {key} -out {certificate}"
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    arguments = [openssl, *made.split(), *name]
    await asyncio.to_thread(subprocess.run, arguments, check=True, capture_output=True)
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_tls.load_cert_chain(certificate, key)
    server = await serve(echo, ssl=server_tls)

    trusting = HttpClient(server.url, tls=ssl.create_default_context(cafile=certificate))
    assert await post(trusting, b"hello") == b"hello"
    trusting.close()
    with pytest.raises(BackendError, match="certificate is not trusted"):
        await HttpClient(server.url).fetch("/")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8000", Address("127.0.0.1", 8000, is_secure=False, path="")),
        ("https://api.example.com/v1/", Address("api.example.com", 443, is_secure=True, path="")),
        ("http://h/openai/v1", Address("h", 80, is_secure=False, path="/openai")),
        ("http://[::1]:9", Address("::1", 9, is_secure=False, path="")),
    ],
)
def test_a_base_url_names_an_address(url: str, address: Address) -> None:
    assert Address.parse(url) == address


def test_a_host_header_has_the_port_unless_it_is_the_usual_one() -> None:
    assert Address.parse("https://h").host_header == "h"
    assert Address.parse("http://[::1]:9").host_header == "[::1]:9"


@pytest.mark.parametrize("url", ["", "h:80", "ftp://h", "http://", "http://h/a b", "http://h:x"])
def test_what_is_no_base_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|[Pp]ort"):
        Address.parse(url)


def test_a_key_with_a_line_end_cannot_add_a_header() -> None:
    with pytest.raises(ValueError, match="control characters"):
        HttpClient("http://h", headers={"Authorization": "Bearer k\r\nX-Evil: 1"})
