# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The hot routes on the wire: what a client sees is what any other route would show it."""

import asyncio
import json

import pytest
from tests.gateway.conftest import MODEL, Site
from tests.gateway.roles import PATIENCE_S, Neuron, Run, RunningGateway
from tests.process.wire import Answer, post, wire

from helexa.gateway.ingress import DirectIncoming
from helexa.process.direct import DirectRequest
from helexa.process.http import Receive, Scope, Send, serve_http
from helexa.process.settings import SocketAddress

CHAT = "/v1/chat/completions"
ASK: dict[str, object] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
WHOLE = json.dumps(ASK).encode()
STREAM = json.dumps(ASK | {"stream": True}).encode()
MINE = "X-Client-Request-Id: mine-1"


async def ask(at: RunningGateway, request: bytes) -> Answer:
    async with wire(at.url) as client:
        await client.send(request)
        return await client.answer()


@pytest.mark.parametrize("body", [WHOLE, STREAM, b"{", b'{"model": "none", "messages": []}'])
async def test_a_hot_route_answers_as_it_does_by_asgi(running: RunningGateway, body: bytes) -> None:
    hot = await ask(running, post(CHAT, body, MINE))
    cool = await ask(running, post(CHAT + "?any=thing", body, MINE))

    changing = ("date", "x-request-id", "content-length", "openai-processing-ms")
    shown = [
        {name: value for name, value in each.headers.items() if name not in changing}
        for each in (hot, cool)
    ]
    assert hot.status == cool.status
    assert shown[0] == shown[1]
    assert hot.headers.keys() == cool.headers.keys()
    assert hot.headers["x-client-request-id"] == "mine-1"
    assert hot.headers["x-request-id"] != cool.headers["x-request-id"]


async def test_other_methods_are_told_which_one_it_takes(running: RunningGateway) -> None:
    async with wire(running.url) as client:
        await client.send(f"DELETE {CHAT} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = await client.answer()
        await client.send(f"HEAD {CHAT} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = await client.head()
        await client.send(post(CHAT, WHOLE))

        assert (answer.status, answer.headers["allow"]) == (405, "POST")
        assert head.startswith(b"HTTP/1.1 405 ")
        assert (await client.answer()).status == 200


async def test_pipelined_chats_are_answered_in_their_order(site: Site, neuron: Neuron) -> None:
    async def say(run: Run) -> None:
        await run.say(str(len(neuron.runs)))
        await run.done()

    neuron.script = say
    running = await site.gateway()
    async with wire(running.url) as client:
        models = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
        await client.send(post(CHAT, STREAM) + models + post(CHAT, STREAM))
        answers = [await client.answer() for _ in range(3)]

    assert b'"content": "1"' in answers[0].body
    assert json.loads(answers[1].body)["data"]
    assert b'"content": "2"' in answers[2].body


@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_body_over_the_limit_is_refused_before_it_is_read(
    site: Site, neuron: Neuron, *, is_announced: bool
) -> None:
    assert neuron in site.neurons
    running = await site.gateway(max_body_bytes=10_000)
    async with wire(running.url) as client:
        if is_announced:
            await client.send(post(CHAT, WHOLE.ljust(10_001))[:-10_001])
        else:
            head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            await client.send(head.encode() + b"2711\r\n" + WHOLE.ljust(10_001) + b"\r\n")
        answer = await client.answer()

        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert json.loads(answer.body)["error"]["code"] == "request_too_large"
        assert await client.rest() == b""


async def test_a_body_in_chunks_is_told_to_come_and_is_served(running: RunningGateway) -> None:
    async with wire(running.url) as client:
        lines = "Expect: 100-continue\r\nTransfer-Encoding: chunked"
        await client.send(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n".encode())
        assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        for part in (WHOLE[:20], WHOLE[20:], b""):
            await client.send(b"%x\r\n%b\r\n" % (len(part), part))

        assert json.loads((await client.answer()).body)["choices"]


async def test_a_caller_without_a_key_is_not_told_to_send_a_body(site: Site) -> None:
    running = await site.gateway(api_keys=("0" * 64,), open=None)
    async with wire(running.url) as client:
        await client.send(post(CHAT, WHOLE, "Expect: 100-continue")[: -len(WHOLE)])

        assert (await client.answer()).status == 401


async def test_an_old_client_gets_a_stream(running: RunningGateway) -> None:
    answer = await ask(running, post(CHAT, STREAM, version="1.0"))

    assert answer.headers["connection"] == "close"
    assert "transfer-encoding" not in answer.headers
    assert answer.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("body", [WHOLE, STREAM])
async def test_a_client_that_leaves_while_it_waits_has_its_request_cancelled(
    site: Site, neuron: Neuron, body: bytes
) -> None:
    async def wait(run: Run) -> None:
        await run.cancelled.wait()

    neuron.script = wait
    running = await site.gateway()
    async with wire(running.url) as client:
        await client.send(post(CHAT, body))
        await asyncio.wait_for(neuron.began.wait(), PATIENCE_S)
    cancel = await asyncio.wait_for(neuron.cancels.get(), PATIENCE_S)

    assert cancel.reason == "client_gone"


async def test_no_header_begins_another_line() -> None:
    async def split(request: DirectRequest) -> None:
        incoming = DirectIncoming.read(request, "gw.1")
        await incoming.body(1000)
        with pytest.raises(ValueError, match="line end"):
            await incoming.respond(200, b"{}", [(b"x-model", b"a\r\nset-cookie: b")])
        assert not incoming.began
        await incoming.respond(200, b"{}", [(b"x-model", b"a")])

    async def nothing(scope: Scope, _: Receive, __: Send) -> None:
        pytest.fail(f"{scope['path']} is direct")

    address = SocketAddress(host="127.0.0.1", port=0)
    async with (
        serve_http(nothing, address, direct={CHAT.encode(): split}) as listening,
        wire(listening.url) as client,
    ):
        await client.send(post(CHAT, b""))

        assert (await client.answer()).headers["x-model"] == "a"
