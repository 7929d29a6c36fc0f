# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A gateway that is asked to stop loses no request: it warns, serves, hands over, then goes."""

import asyncio
import re
import time

import httpx
import pytest
from tests.gateway.conftest import MODEL, Site
from tests.gateway.roles import PATIENCE_S, Neuron, Run, soon

from helexa.protocol.errors import NoCapacityError

CHAT = "/v1/chat/completions"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
STREAM = ASK | {"stream": True}


async def until(condition: asyncio.Event) -> None:
    await asyncio.wait_for(condition.wait(), PATIENCE_S)


async def until_not_ready(http: httpx.AsyncClient) -> None:
    while (await http.get("/readyz")).status_code == 200:
        pass


@pytest.mark.accepts("CX-27")
async def test_a_gateway_serves_on_until_its_balancer_has_looked(
    site: Site, neuron: Neuron
) -> None:
    running = await site.gateway(grace_s=30.0, drain_delay_s=2.0)
    go_on = asyncio.Event()

    async def in_two_halves(run: Run) -> None:
        await run.say("one")
        if len(neuron.runs) == 1:
            await go_on.wait()
        await run.done()

    neuron.script = in_two_halves
    http = site.http(running)
    begun = asyncio.create_task(http.post(CHAT, json=STREAM))
    await until(neuron.began)
    before = await http.post(CHAT, json=ASK)

    ending = asyncio.create_task(running.life.end())
    await soon(until_not_ready(site.http(running)))
    # The connection is one that was open before.
    during = await http.post(CHAT, json=ASK)
    new = await site.http(running).post(CHAT, json=STREAM)
    while (after := await site.http(running).post(CHAT, json=ASK)).status_code == 200:
        pass
    go_on.set()
    await soon(ending)

    assert "connection" not in before.headers
    assert (during.status_code, during.headers["connection"]) == (200, "close")
    assert (new.status_code, new.headers["connection"]) == (200, "close")
    assert new.text.endswith("data: [DONE]\n\n")
    assert (after.status_code, after.json()["error"]["code"]) == (503, "shutting_down")
    assert after.headers["connection"] == "close"
    assert (await begun).text.endswith("data: [DONE]\n\n")


@pytest.mark.accepts("CX-27")
async def test_a_client_that_was_not_told_is_answered_once_more(site: Site, neuron: Neuron) -> None:
    go_on = asyncio.Event()

    async def held(run: Run) -> None:
        await run.say("one")
        if len(neuron.runs) < 3:
            await go_on.wait()
        await run.done()

    neuron.script = held
    running = await site.gateway(grace_s=30.0)
    http = site.http(running)

    async def ask_twice() -> list[httpx.Response]:
        return [await http.post(CHAT, json=STREAM), await http.post(CHAT, json=STREAM)]

    asking = asyncio.create_task(ask_twice())
    await until(neuron.began)
    neuron.began.clear()
    other = asyncio.create_task(site.http(running).post(CHAT, json=STREAM))
    await until(neuron.began)
    ending = asyncio.create_task(running.life.end())
    await soon(until_not_ready(site.http(running)))
    refused = await site.http(running).post(CHAT, json=STREAM)
    go_on.set()
    first, second = await asyncio.wait_for(asking, PATIENCE_S)
    await soon(ending)

    assert refused.status_code == 503
    assert "connection" not in first.headers
    assert (second.status_code, second.headers["connection"]) == (200, "close")
    assert second.text.endswith("data: [DONE]\n\n")
    assert (await other).status_code == 200


@pytest.mark.accepts("CX-27")
async def test_who_waits_may_still_find_a_place_while_the_gateway_ends(
    site: Site, neuron: Neuron
) -> None:
    running = await site.gateway(grace_s=20.0)
    site.scheduler.error = NoCapacityError()
    waiting = asyncio.create_task(site.http(running).post(CHAT, json=ASK))
    await until(site.scheduler.was_asked)

    ending = asyncio.create_task(running.life.end())
    await soon(until_not_ready(site.http(running)))
    assert neuron.runs == []
    site.scheduler.error = None

    assert (await asyncio.wait_for(waiting, PATIENCE_S)).status_code == 200
    await soon(ending)


@pytest.mark.accepts("CX-27")
async def test_a_stream_that_outlasts_the_grace_goes_on_at_another_gateway(
    site: Site, neuron: Neuron
) -> None:
    go_on = asyncio.Event()

    async def in_two_halves(run: Run) -> None:
        await run.say("one", "two")
        await go_on.wait()
        await run.say("three")
        await run.done()

    neuron.script = in_two_halves
    first, second = await site.gateway(grace_s=0.3), await site.gateway()
    begun = asyncio.create_task(site.http(first).post(CHAT, json=STREAM))
    await until(neuron.began)
    began = time.monotonic()
    await soon(first.life.end())
    cut = (await begun).text

    assert time.monotonic() - began < 5
    assert '"code": "shutting_down"' in cut
    assert "[DONE]" not in cut
    [path] = re.findall(r'"resume": "([^"]+)"', cut)
    assert path.endswith("?from=2")
    resuming = asyncio.create_task(site.http(second).get(path))
    await asyncio.wait_for(neuron.attached.get(), PATIENCE_S)
    go_on.set()
    rest = (await asyncio.wait_for(resuming, PATIENCE_S)).text
    assert [int(each) for each in re.findall(r"^id: (\d+)$", cut + rest, re.MULTILINE)] == [0, 1, 2]
    assert rest.endswith("data: [DONE]\n\n")
    assert neuron.cancels.empty()


@pytest.mark.accepts("CX-27")
async def test_an_answer_that_has_not_begun_for_its_client_is_ended_with_the_gateway(
    site: Site, neuron: Neuron
) -> None:
    async def silent(run: Run) -> None:
        await run.cancelled.wait()

    neuron.script = silent
    running = await site.gateway(grace_s=0.3, heartbeat_s=60.0)
    asking = asyncio.create_task(site.http(running).post(CHAT, json=STREAM))
    await until(neuron.began)
    await soon(running.life.end())

    answer = await asking
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
    assert answer.headers["retry-after"] == "1"
    await asyncio.wait_for(neuron.cancels.get(), PATIENCE_S)
