# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The paced engine does what other tests count on."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import psutil
import pytest
from tests.faults.engine import PacedEngine, paced_engine
from tests.faults.order import Order

CHAT = "/v1/chat/completions"
Json = dict[str, object]


@pytest.fixture
async def engine() -> AsyncIterator[PacedEngine]:
    async with paced_engine() as running:
        yield running


def asked(order: Order, *, said: str | None = None, **more: object) -> Json:
    messages: list[Json] = [{"role": "user", "content": f"Please: {order.prompt()} thank you"}]
    if said is not None:
        messages.append({"role": "assistant", "content": said})
    return {"model": "paced", "messages": messages, "stream": True, **more}


def texts(body: str) -> str:
    events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    return "".join(delta.get("content", "") for delta in deltas)


async def test_an_answer_is_what_the_order_says(engine: PacedEngine) -> None:
    order = Order(tokens=200, seed="a")
    async with httpx.AsyncClient(base_url=engine.url) as http:
        streamed = await http.post(CHAT, json=asked(order, stream_options={"include_usage": True}))
        whole = await http.post(CHAT, json=asked(order) | {"stream": False})
        short = await http.post(CHAT, json=asked(order, max_tokens=3))
    assert texts(streamed.text) == order.text()
    assert '"completion_tokens":200' in streamed.text
    assert streamed.text.endswith("data: [DONE]\n\n")
    assert whole.json()["choices"][0]["message"]["content"] == order.text()
    assert texts(short.text) == order.text(3)
    assert '"finish_reason":"length"' in short.text


async def test_a_beginning_is_continued(engine: PacedEngine) -> None:
    order = Order(tokens=9, seed="a")
    async with httpx.AsyncClient(base_url=engine.url) as http:
        rest = await http.post(CHAT, json=asked(order, said=order.text(4)))
        wrong = await http.post(CHAT, json=asked(order, said="a.0 a.2 "))
    assert order.text(4) + texts(rest.text) == order.text()
    assert wrong.status_code == 400


@pytest.mark.parametrize("kind", ["cut", "reset"])
async def test_a_connection_breaks_off_as_ordered(engine: PacedEngine, kind: str) -> None:
    order = Order(tokens=9, seed="a", fail=f"{kind}@4", times=1)
    async with httpx.AsyncClient(base_url=engine.url) as http:
        with pytest.raises(httpx.TransportError):
            await http.post(CHAT, json=asked(order))
        again = await http.post(CHAT, json=asked(order))
    assert texts(again.text) == order.text()
    assert (await engine.counters())["failed"] == 1


async def test_an_error_comes_as_ordered(engine: PacedEngine) -> None:
    async with httpx.AsyncClient(base_url=engine.url) as http:
        refused = await http.post(CHAT, json=asked(Order(fail="status@503")))
        garbage = await http.post(CHAT, json=asked(Order(fail="garbage@2")))
    assert refused.status_code == 503
    assert "data: {garbage\n\n" in garbage.text


async def test_the_engine_tells_what_it_does(engine: PacedEngine) -> None:
    orders = (Order(pace=1, tokens=99), Order(delay=60), Order(fail="stall@3"))
    async with httpx.AsyncClient(base_url=engine.url, timeout=30) as http:
        asking = [asyncio.create_task(http.post(CHAT, json=asked(order))) for order in orders]
        await engine.until(lambda now: (now["prefilling"], now["decoding"]) == (1, 2), 10)
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        assert await engine.idle(10) < 1
        assert (await engine.counters())["cancelled"] == 3


async def test_a_thousand_streams_cost_little(engine: PacedEngine) -> None:
    process = psutil.Process(engine.pid)
    prompt = json.dumps(asked(Order(tokens=50, pace=5))).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(prompt)}\r\n\r\n".encode()

    async def one() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", engine.port)
        writer.write(head + prompt)
        body = await reader.readuntil(b"[DONE]\n\n")
        writer.close()
        return body.count(b'"content":"t.')

    before, loop = process.cpu_times(), asyncio.get_running_loop()
    began_s = loop.time()
    counts = await asyncio.gather(*(one() for _ in range(1000)))
    after = process.cpu_times()
    used_s = after.user + after.system - before.user - before.system
    assert set(counts) == {50}
    # A tenth of a core where nothing else runs.
    assert used_s < 0.3 * (loop.time() - began_s)
