# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The mock backend and the load generator, at each other."""

import asyncio
import contextlib
import json
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.benchmarks.phases import TOKENS, Phase
from tests.benchmarks.programs import (
    CHAT_PATH,
    Address,
    MockBackend,
    Timing,
    compiled,
    generate,
    mock_backend,
)
from tests.benchmarks.targets import TEXT, until_right
from tests.ports import free_port

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler")
SHORT = Timing(warm_up_s=0.05, duration_s=0.3)
ASKED = {"max_tokens": 3, "messages": [{"role": "user", "content": 'one two "three"'}]}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.fixture
async def backend(cache: Path) -> AsyncIterator[MockBackend]:
    async with mock_backend(compiled("mock_backend", cache), free_port()) as backend:
        yield backend


async def ask(backend: MockBackend, **more: object) -> str:
    async with httpx.AsyncClient() as http:
        return (await http.post(f"{backend.url}{CHAT_PATH}", json=ASKED | more)).text


def events_of(text: str) -> list[dict[str, object]]:
    found = re.findall(r"^data: (\{.*)$", text, re.MULTILINE)
    return [json.loads(each) for each in found]


async def test_a_stream_has_the_text_of_the_whole_answer(backend: MockBackend) -> None:
    whole = json.loads(await ask(backend))
    streamed = await ask(backend, stream=True)
    text = whole["choices"][0]["message"]["content"]
    parts = re.findall(r'"content":"([^"]*)"', streamed)
    assert text == "".join(parts) == TEXT[: 3 * 7]
    assert streamed.endswith("data: [DONE]\n\n")


async def test_usage_comes_with_a_stream_only_where_it_is_asked_for(backend: MockBackend) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert json.loads(await ask(backend))["usage"] == usage
    assert "usage" not in await ask(backend, stream=True)
    wanted = await ask(backend, stream=True, stream_options={"include_usage": True})
    assert events_of(wanted)[-1]["usage"] == usage


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_the_load_finds_every_answer_right(
    backend: MockBackend, cache: Path, is_streamed: bool
) -> None:
    borders: list[None] = []
    phase = Phase("some", 4, is_streamed=is_streamed)
    address = Address((backend.port,))
    load = await generate(
        compiled("load_generator", cache), address, phase, SHORT, lambda: borders.append(None)
    )
    assert load["answers"] > 10
    assert (load["failed"], load["wrong"], len(borders)) == (0, 0, 2)
    assert (load["tokens"] > 10 * TOKENS) is is_streamed
    assert load["latency_p50_ms"] <= load["latency_p99_ms"] <= load["latency_max_ms"]
    assert (load["first_token_p50_ms"] >= 0) is is_streamed


async def test_paced_streams_keep_their_pace_and_end_with_their_clients(
    backend: MockBackend, cache: Path
) -> None:
    phase = Phase("paced", 8, is_streamed=True, pace_ms=20)
    load = await generate(
        compiled("load_generator", cache), Address((backend.port,)), phase, SHORT, lambda: None
    )
    assert 15 < load["between_tokens_p50_ms"] < 200
    await backend.until_idle()


async def test_answers_that_are_not_the_backends_are_counted_as_wrong(cache: Path) -> None:
    async with garbler() as port:
        load = await generate(
            compiled("load_generator", cache),
            Address((port,)),
            Phase("some", 1),
            SHORT,
            lambda: None,
        )
    assert load["wrong"] > 0
    assert load["answers"] == 0


async def test_a_program_is_compiled_once(cache: Path) -> None:
    first = compiled("mock_backend", cache)
    made = first.stat().st_mtime_ns
    assert compiled("mock_backend", cache) == first
    assert first.stat().st_mtime_ns == made


async def test_a_target_is_right_when_it_answers_as_the_backend(backend: MockBackend) -> None:
    await until_right(Address((backend.port,)))


@contextlib.asynccontextmanager
async def garbler() -> AsyncIterator[int]:
    """Serve answers whose second token is missing."""
    body = (TEXT[:7] + TEXT[14:]).encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                found = re.search(rb"Content-Length: (\d+)", head)
                await reader.readexactly(int(found.group(1)) if found else 0)
                writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield int(server.sockets[0].getsockname()[1])
