# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Servers that already run and are not ours."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import pytest

from helexa.neuron.backends.limits import Timeouts
from helexa.neuron.backends.openai_proxy import OpenAiProxyBackend
from helexa.protocol.errors import BackendError, ModelFailedError
from helexa.protocol.messages.models import ModelConfig

MODELS = {"data": [{"id": "their-model", "max_model_len": 900}]}


class Exchange(Protocol):
    async def request(self) -> tuple[str, bytes]: ...
    async def answer(self, body: bytes, *, status: int = 200, extra: str = "") -> None: ...
    async def stream(self, *pieces: bytes, ends: bool = True) -> None: ...


class Server(Protocol):
    url: str


Serve = Callable[..., Awaitable[Server]]


def proxy(url: str | None, **options: object) -> OpenAiProxyBackend:
    config = {"model": "m", "backend_kind": "openai_proxy", "listen_endpoint": url, **options}
    return OpenAiProxyBackend(
        ModelConfig.model_validate(config), timeouts=Timeouts(first_byte_s=5, idle_s=5)
    )


async def start(backend: OpenAiProxyBackend) -> OpenAiProxyBackend:
    await backend.start(lambda _share: None)
    return backend


def listing(status: int, body: object = None) -> Callable[[Exchange], Awaitable[None]]:
    async def script(exchange: Exchange) -> None:
        while (await exchange.request())[0]:
            await exchange.answer(json.dumps(body).encode(), status=status)

    return script


async def test_it_is_asked_with_its_own_key_and_name_and_answers_with_ours(
    serve: Serve, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("their-key\n")
    seen: list[tuple[str, bytes]] = []
    event = rb'data: {"choices":[{"delta":{"content":"\"model\":\"x\""}}],"model":"their-0613"}'

    async def script(exchange: Exchange) -> None:
        while (request := await exchange.request())[0]:
            seen.append(request)
            if "GET" in request[0]:
                await exchange.answer(json.dumps(MODELS).encode())
            elif "embeddings" in request[0]:
                await exchange.answer(b'{"data":[],"model": "their-model"}')
            else:
                await exchange.stream(event + b"\n\ndata: [DONE]\n\n")

    url = (await serve(script)).url
    options = {"upstream_model": "their-model", "continuation": "continue_final_message"}
    backend = await start(proxy(url, api_key_file=str(key), **options))
    stream = await backend.chat(b'{"model":"m","messages":["\xc3\xa9"],"stream":true}')
    events = [json.loads(event) async for batch in stream for event in batch]
    embedded = json.loads(await backend.embed(b'{"model":"m","input":"x"}'))

    assert events == [{"choices": [{"delta": {"content": '"model":"x"'}}], "model": "m"}]
    assert embedded == {"data": [], "model": "m"}
    assert json.loads(seen[1][1]) == {"model": "their-model", "messages": ["é"], "stream": True}
    assert all("Authorization: Bearer their-key\r\n" in head for head, _ in seen)
    assert (backend.slots, backend.capability.max_context_tokens) == (16, 900)
    assert backend.capability.continues_partial
    await backend.stop(1)


async def test_a_server_with_the_same_name_gets_the_body_as_it_is(serve: Serve) -> None:
    bodies: list[bytes] = []

    async def script(exchange: Exchange) -> None:
        while (request := await exchange.request())[0]:
            bodies.append(request[1])
            if "GET" in request[0]:
                await exchange.answer(b"[]", status=404)
            else:
                await exchange.stream(b"data: [DONE]\n\n")

    backend = await start(proxy((await serve(script)).url))
    await backend.chat(b'{ "model" : "m" }')

    assert bodies[1:] == [b'{ "model" : "m" }']
    assert not backend.capability.continues_partial
    await backend.stop(1)


@pytest.mark.parametrize(
    ("status", "body"), [(200, MODELS), (200, "odd"), (404, None), (405, None), (429, None)]
)
async def test_a_server_that_answers_somehow_is_taken(
    serve: Serve, status: int, body: object
) -> None:
    backend = await start(proxy((await serve(listing(status, body))).url))

    await backend.probe()
    await backend.stop(1)


@pytest.mark.parametrize(
    ("status", "words"), [(401, "refused our key"), (403, "our key"), (500, "failed")]
)
async def test_a_server_that_refuses_is_not_taken(serve: Serve, status: int, words: str) -> None:
    with pytest.raises(ModelFailedError, match=words):
        await start(proxy((await serve(listing(status))).url))


async def test_what_is_wrong_with_a_configuration_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelFailedError, match="no listen_endpoint"):
        await start(proxy(None))
    with pytest.raises(ModelFailedError, match="http"):
        await start(proxy("gpu7:8000"))
    with pytest.raises(ModelFailedError, match=r"key .* cannot be read"):
        await start(proxy("http://127.0.0.1:1", api_key_file=str(tmp_path / "none")))
    with pytest.raises(ModelFailedError, match="cannot be reached"):
        await start(proxy("http://127.0.0.1:1"))


async def test_a_server_that_goes_and_comes_back_is_seen_by_probing(serve: Serve) -> None:
    alive = asyncio.Event()
    alive.set()

    async def script(exchange: Exchange) -> None:
        while alive.is_set() and (await exchange.request())[0]:
            if not alive.is_set():
                return
            await exchange.answer(json.dumps(MODELS).encode())

    backend = await start(proxy((await serve(script)).url))
    alive.clear()
    with pytest.raises(BackendError):
        await backend.probe()
    alive.set()
    await backend.probe()

    assert not backend.died.is_set()
    assert (backend.memory_bytes(), backend.last_words()) == (None, "")
    await backend.stop(1)
    with pytest.raises(BackendError, match="not running"):
        await backend.probe()


@pytest.mark.parametrize(
    ("owner", "said", "whole"),
    [
        ("vllm", None, True),
        (None, None, True),
        ("llamacpp", None, False),
        ("llamacpp", True, True),
        ("vllm", False, False),
    ],
)
async def test_a_server_is_asked_for_whole_answers_unless_it_goes_on_when_it_is_left(
    serve: Serve, owner: str | None, said: bool | None, *, whole: bool
) -> None:
    listed = {"data": [{"id": "m", "owned_by": owner}]}
    server = await serve(listing(200, listed))
    backend = await start(proxy(server.url, whole_answers=said))
    assert backend.stops_when_left == whole


async def test_a_server_that_knows_streams_only_is_asked_for_a_whole_answer_once(
    serve: Serve,
) -> None:
    async def script(exchange: Exchange) -> None:
        while (request := await exchange.request())[0]:
            if "GET" in request[0]:
                await exchange.answer(json.dumps(MODELS).encode())
            else:
                await exchange.stream(b"data: [DONE]\n\n")

    backend = await start(proxy((await serve(script)).url))
    assert backend.stops_when_left
    with pytest.raises(BackendError, match="streams only"):
        await backend.answer_chat(b"{}")
    assert not backend.stops_when_left
