# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""An answer outlives the connection and the gateway that it began at."""

import asyncio
import hashlib
import re
import time

import httpx
import pytest
from tests.gateway.conftest import MODEL, Site
from tests.gateway.roles import PATIENCE_S, GatewayProcess, Neuron, Run, home, soon

from helexa.gateway import homes
from helexa.protocol import subjects
from helexa.protocol.frames import FrameKind, unpack_frame
from helexa.protocol.naming import request_token
from helexa.protocol.subjects import pattern_of

CHAT = "/v1/chat/completions"
STREAM = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}
WORDS = [f"word{n} " for n in range(12)]


async def words(run: Run) -> None:
    for first in range(0, len(WORDS), 3):
        await run.say(*WORDS[first : first + 3])
    await run.done()


def numbers(text: str) -> list[int]:
    return [int(each) for each in re.findall(r"^id: (\d+)$", text, re.MULTILINE)]


@pytest.mark.accepts("NET-3")
async def test_any_part_of_an_answer_comes_again_byte_for_byte(site: Site, neuron: Neuron) -> None:
    neuron.script = words
    first, second = await site.gateway(), await site.gateway()
    whole = await site.http(first).post(CHAT, json=STREAM)
    name = whole.headers["x-request-id"]
    events = whole.text.split("\n\n")
    for gateway in (first, second):
        http = site.http(gateway)
        for start in (0, 1, 2, 3, 7, 11, 12, 50):
            rest = await http.get(f"/v1/streams/{name}?from={start}")
            assert rest.text == "\n\n".join(events[min(start, 12) :]), start
        rest = await http.get(f"/v1/streams/{name}", headers={"last-event-id": "8"})
        assert numbers(rest.text) == [9, 10, 11]


@pytest.mark.accepts("NET-3")
async def test_the_rest_comes_from_another_gateway_when_the_first_is_gone(
    site: Site, neuron: Neuron
) -> None:
    go_on = asyncio.Event()

    async def in_two_halves(run: Run) -> None:
        await run.say(*WORDS[:4])
        await go_on.wait()
        await run.say(*WORDS[4:])
        await run.done()

    neuron.script = in_two_halves
    first, second = await site.process(), await site.gateway()
    seen = b""
    async with site.http(first).stream("POST", CHAT, json=STREAM) as answer:
        name = answer.headers["x-request-id"]
        async for piece in answer.aiter_bytes():
            seen += piece
            if seen.count(b"\n\n") >= 4:
                break
        first.kill()
    resuming = asyncio.create_task(site.http(second).get(f"/v1/streams/{name}?from=4"))
    attached = await asyncio.wait_for(neuron.attached.get(), PATIENCE_S)
    assert attached.owner != home(name)
    go_on.set()
    rest = await asyncio.wait_for(resuming, PATIENCE_S)
    assert numbers(seen.decode() + rest.text) == list(range(12))
    assert rest.text.endswith("data: [DONE]\n\n")
    assert neuron.cancels.empty()


async def test_of_two_gateways_one_takes_over_and_both_can_read(site: Site, neuron: Neuron) -> None:
    go_on = asyncio.Event()

    async def script(run: Run) -> None:
        await run.say("one")
        await go_on.wait()
        await run.say("two")
        await run.done()

    neuron.script = script
    first, second, third = await site.process(), await site.gateway(), await site.gateway()
    async with site.http(first).stream("POST", CHAT, json=STREAM) as answer:
        name = answer.headers["x-request-id"]
        await anext(answer.aiter_bytes())
        first.kill()
    control: asyncio.Queue[int] = asyncio.Queue()
    subject = pattern_of(
        subjects.TOKENS, home=home(name), author="ctl", request=request_token(name)
    )
    await site.bus.subscribe_raw(
        subject, lambda _, data: control.put_nowait(unpack_frame(data).kind)
    )
    await site.bus.client.flush()
    reading = [
        asyncio.create_task(site.http(each).get(f"/v1/streams/{name}")) for each in (second, third)
    ]
    await asyncio.wait_for(neuron.attached.get(), PATIENCE_S)
    go_on.set()
    answers = [await asyncio.wait_for(each, PATIENCE_S) for each in reading]
    # How often a waiting client is told to be patient is up to each gateway.
    texts = [re.sub(r": keep-alive\n\n", "", answer.text) for answer in answers]
    assert texts[0] == texts[1]
    assert numbers(texts[0]) == [0, 1]
    assert neuron.attached.empty()
    assert await asyncio.wait_for(control.get(), PATIENCE_S) == FrameKind.ATTACH
    assert control.empty()


async def begun(site: Site, at: GatewayProcess, count: int) -> list[tuple[str, str]]:
    """Begin streams, read something of each, and return what they are called and what came."""
    reading = asyncio.Event()
    names: list[tuple[str, str]] = []

    async def one() -> None:
        http = site.http(at)
        async with http.stream("POST", CHAT, json=STREAM) as answer:
            came = await anext(answer.aiter_text())
            names.append((answer.headers["x-request-id"], came))
            if len(names) == count:
                reading.set()
            await reading.wait()

    await asyncio.wait_for(asyncio.gather(*(one() for _ in range(count))), 3 * PATIENCE_S)
    return names


async def test_many_resumes_of_one_dead_home_are_served_from_one_reading(
    site: Site, neuron: Neuron
) -> None:
    go_on, count = asyncio.Event(), 40

    async def in_two_halves(run: Run) -> None:
        await run.say(*WORDS[:4])
        await go_on.wait()
        await run.say(*WORDS[4:8], lost=True)
        await run.say(*WORDS[8:])
        await run.done()

    neuron.script = in_two_halves
    first, second = await site.process(), await site.gateway()
    readings: list[bytes] = []
    await site.bus.subscribe_raw(
        "$JS.EVENT.ADVISORY.CONSUMER.CREATED.TOKENS.>", lambda _, data: readings.append(data)
    )

    names = await begun(site, first, count)
    first.kill()
    http = site.http(second)
    http.timeout = httpx.Timeout(3 * PATIENCE_S)
    resuming = [
        asyncio.create_task(http.get(f"/v1/streams/{name}?from={1 + max(numbers(came))}"))
        for name, came in names
    ]
    owners = {(await asyncio.wait_for(neuron.attached.get(), 20)).request_id for _ in names}
    go_on.set()
    for (_, came), rest in zip(names, await asyncio.gather(*resuming), strict=True):
        assert numbers(came + rest.text) == list(range(12))
        assert rest.text.endswith("data: [DONE]\n\n")
    late = await http.get(f"/v1/streams/{names[0][0]}")
    assert numbers(late.text) == list(range(12))
    assert owners == {name for name, _ in names}
    assert len(readings) == 1


async def test_a_stream_that_never_pauses_is_taken_over_too(site: Site, neuron: Neuron) -> None:
    taken = asyncio.Event()

    async def without_pause(run: Run) -> None:
        while not taken.is_set():
            await run.say("word ")
            await asyncio.sleep(0.02)
        await run.done()

    neuron.script = without_pause
    first, second = await site.process(), await site.gateway(heartbeat_s=4)
    ((name, _),) = await begun(site, first, 1)
    first.kill()
    resuming = asyncio.create_task(site.http(second).get(f"/v1/streams/{name}"))
    assert (await asyncio.wait_for(neuron.attached.get(), PATIENCE_S)).request_id == name
    taken.set()
    assert (await asyncio.wait_for(resuming, PATIENCE_S)).text.endswith("data: [DONE]\n\n")


async def test_another_key_finds_nothing(site: Site, neuron: Neuron) -> None:
    neuron.script = words
    keys = ("sk-hx-one", "sk-hx-two")
    digests = tuple(hashlib.sha256(key.encode()).hexdigest() for key in keys)
    running = await site.gateway(api_keys=digests)
    mine, other = (site.http(running, key) for key in keys)
    name = (await mine.post(CHAT, json=STREAM)).headers["x-request-id"]
    assert (await mine.get(f"/v1/streams/{name}")).status_code == 200
    assert (await site.http(running).get(f"/v1/streams/{name}")).status_code == 401
    for asked in (
        name,
        name[:-1] + ("y" if name.endswith("x") else "x"),
        "nonsense",
        "a.b.c",
        "home.>",
        "*.*",
    ):
        answer = await other.get(f"/v1/streams/{asked}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_a_wrong_start_is_refused(site: Site, http: httpx.AsyncClient) -> None:
    assert site.neurons
    name = (await http.post(CHAT, json=STREAM)).headers["x-request-id"]
    for wrong in ("-1", "x", "1.5", "9" * 40, "٣"):
        answer = await http.get(f"/v1/streams/{name}", params={"from": wrong})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "from")


async def test_a_hole_is_mended_by_the_neuron(site: Site, neuron: Neuron) -> None:
    async def with_holes(run: Run) -> None:
        await run.say("a")
        await run.say("b", lost=True)
        await run.say("c", lost=True)
        await run.say("d")
        await run.done()

    neuron.script = with_holes
    http = site.http(await site.gateway())
    answer = await http.post(CHAT, json=STREAM)
    assert numbers(answer.text) == [0, 1, 2, 3]
    assert answer.text.endswith("data: [DONE]\n\n")
    again = await http.get(f"/v1/streams/{answer.headers['x-request-id']}")
    assert again.text == answer.text


async def test_a_lost_end_is_asked_for(site: Site, neuron: Neuron) -> None:
    async def loses_its_end(run: Run) -> None:
        await run.say("a")
        await run.done(lost=True)

    neuron.script = loses_its_end
    http = site.http(await site.gateway())
    answer = await asyncio.wait_for(http.post(CHAT, json=STREAM), PATIENCE_S)
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_a_hole_that_nobody_can_mend_ends_the_stream(site: Site, neuron: Neuron) -> None:
    async def with_hole(run: Run) -> None:
        await run.say("a")
        await run.say("b", lost=True)
        await run.say("c")
        await run.done()

    neuron.script = with_hole
    neuron.forgets = True
    http = site.http(await site.gateway())
    answer = await http.post(CHAT, json=STREAM)
    assert numbers(answer.text) == [0]
    assert '"code": "stream_interrupted"' in answer.text
    assert "[DONE]" not in answer.text


async def test_a_beginning_that_is_gone_is_refused_and_the_rest_is_served(
    site: Site, neuron: Neuron
) -> None:
    async def loses_its_beginning(run: Run) -> None:
        await run.say("a", lost=True)
        await run.say("b", "c")
        await run.say("d")
        await run.done()

    neuron.script = loses_its_beginning
    http = site.http(await site.gateway())
    whole = await http.post(CHAT, json=STREAM)
    name = whole.headers["x-request-id"]
    assert numbers(whole.text) == [0, 1, 2, 3]
    neuron.forgets = True
    gone = await http.get(f"/v1/streams/{name}?from=0")
    assert (gone.status_code, gone.json()["error"]["code"]) == (410, "resume_unavailable")
    rest = await http.get(f"/v1/streams/{name}?from=2")
    assert numbers(rest.text) == [2, 3]


async def test_a_stream_survives_a_restart_of_the_server(site: Site, neuron: Neuron) -> None:
    go_on = asyncio.Event()

    async def script(run: Run) -> None:
        await run.say("one")
        await go_on.wait()
        await run.say("two", lost=True)
        await run.say("three")
        await run.done()

    neuron.script = script
    running = await site.gateway()
    http = site.http(running)
    asking = asyncio.create_task(http.post(CHAT, json=STREAM))
    await soon(neuron.began.wait())
    site.broker.stop(kill=True)
    assert (await http.get("/livez")).status_code == 200
    while (await http.get("/readyz")).status_code != 503:
        await asyncio.sleep(0.05)
    site.broker.start()
    while (await http.get("/readyz")).status_code != 200 or not neuron.bus.is_connected:
        await asyncio.sleep(0.05)
    go_on.set()
    answer = await asyncio.wait_for(asking, PATIENCE_S)
    assert numbers(answer.text) == [0, 1, 2]
    assert answer.text.endswith("data: [DONE]\n\n")
    assert (await http.post(CHAT, json=STREAM, timeout=PATIENCE_S)).status_code == 200


async def test_what_is_kept_for_many_is_let_go_although_some_still_come(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(homes, "KEEP_S", 0.5)
    await site.gateway()
    rush = homes.Rush(site.bus, "gone")

    def ignore(author: str, data: bytes) -> None:
        del author, data

    async def come_and_go() -> None:
        while True:
            await rush.join("answer", ignore)
            await asyncio.sleep(0.01)
            await rush.leave("answer", ignore)

    coming = asyncio.create_task(come_and_go())
    began = time.monotonic()
    await soon(rush.serve())
    took_s = time.monotonic() - began
    coming.cancel()
    assert took_s >= 0.5
