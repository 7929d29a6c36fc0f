# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""From the client to a neuron and back when something is in the way."""

import asyncio
import json
import logging
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.gateway.conftest import MODEL, Site
from tests.gateway.roles import PATIENCE_S, Neuron, Provisioner, Run, chat_chunk, hello, soon

from helexa.protocol import subjects
from helexa.protocol.errors import (
    BackendError,
    BusyError,
    DrainingError,
    ModelLoadingError,
    NoCapacityError,
)
from helexa.protocol.messages.provisioning import Ensured
from helexa.protocol.messages.routing import Feedback, GatewayBeat, Outcome
from helexa.protocol.prefixes import split_digests

CHAT = "/v1/chat/completions"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
STREAM = ASK | {"stream": True}


def text_of(answer: httpx.Response) -> str:
    found: str = answer.json()["choices"][0]["message"]["content"]
    return found


async def wait_until_cancelled(run: Run) -> None:
    await run.say("one")
    await run.cancelled.wait()
    await run.fail(BackendError("cancelled"))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_stops_the_neuron_at_once(
    site: Site, neuron: Neuron, *, stream: bool
) -> None:
    neuron.script = wait_until_cancelled
    http = site.http(await site.gateway())
    asking = asyncio.create_task(http.post(CHAT, json=ASK | {"stream": stream}))
    await soon(neuron.began.wait())
    left = time.monotonic()
    asking.cancel()
    cancel = await asyncio.wait_for(neuron.cancels.get(), PATIENCE_S)
    assert time.monotonic() - left < 1
    assert cancel.request_id == neuron.runs[0].request.request_id
    assert cancel.attempt == 1
    await asyncio.gather(asking, return_exceptions=True)


async def test_a_resumable_answer_goes_on_without_its_client(site: Site, neuron: Neuron) -> None:
    go_on, ended = asyncio.Event(), asyncio.Event()

    async def script(run: Run) -> None:
        await run.say("one")
        await go_on.wait()
        await run.say("two")
        await run.done()
        ended.set()

    neuron.script = script
    http = site.http(await site.gateway())
    headers = {"x-helexa-resumable": "true"}
    async with http.stream("POST", CHAT, json=STREAM, headers=headers) as answer:
        name = answer.headers["x-request-id"]
        await anext(answer.aiter_bytes())
    go_on.set()
    await soon(ended.wait())
    rest = await http.get(f"/v1/streams/{name}?from=1")
    assert '"two"' in rest.text
    assert '"one"' not in rest.text
    assert neuron.cancels.empty()
    assert neuron.runs[0].request.outlives_owner


@pytest.mark.parametrize(
    ("asked", "headers", "is_stream"),
    [
        (ASK, {}, False),
        (STREAM, {}, True),
        (ASK, {"x-helexa-resumable": "true"}, True),
    ],
    ids=["whole", "streamed", "whole, but to be resumed"],
)
async def test_what_can_be_resumed_is_made_as_a_stream(
    site: Site, neuron: Neuron, asked: dict[str, object], headers: dict[str, str], is_stream: bool
) -> None:
    http = site.http(await site.gateway())
    answer = await http.post(CHAT, json=asked, headers=headers)
    assert answer.status_code == 200
    request = neuron.runs[0].request
    assert request.stream is is_stream
    assert ("stream" in json.loads(request.body)) is is_stream
    rest = await http.get(f"/v1/streams/{answer.headers['x-request-id']}")
    assert rest.status_code == (200 if is_stream else 404)
    assert ("data: {" in rest.text) is is_stream


@pytest.mark.accepts("CX-21", "FLOW-2")
async def test_a_refusal_goes_to_the_next_target(site: Site) -> None:
    first, second = await site.neuron("n.1"), await site.neuron("n.2")
    first.refusal = DrainingError()
    http = site.http(await site.gateway())
    answer = await http.post(CHAT, json=ASK)
    assert text_of(answer) == "Hello, world"
    assert answer.headers["x-helexa-attempts"] == "2"
    assert first.runs == []
    assert second.runs[0].request.attempt == 2
    assert len(site.scheduler.asked) == 1


async def test_a_target_that_is_gone_is_passed_over(site: Site) -> None:
    site.scheduler.targets.append("nobody")
    await site.neuron()
    http = site.http(await site.gateway())
    assert text_of(await http.post(CHAT, json=ASK)) == "Hello, world"


async def test_a_busy_site_makes_requests_wait_until_a_neuron_reports_room(
    site: Site, neuron: Neuron
) -> None:
    neuron.refusal = BusyError()
    http = site.http(await site.gateway())
    asking = [asyncio.create_task(http.post(CHAT, json=STREAM)) for _ in range(5)]
    await soon(site.scheduler.was_asked.wait())
    done, _ = await asyncio.wait(asking, timeout=1)
    assert not done
    neuron.refusal = None
    await neuron.report()
    answers = await asyncio.wait_for(asyncio.gather(*asking), PATIENCE_S)
    assert all(answer.text.endswith("data: [DONE]\n\n") for answer in answers)
    assert all(": keep-alive\n\n" in answer.text for answer in answers)
    numbers = (await http.get("/metrics")).text
    waited = [line for line in numbers.split("\n") if line.startswith("helexa_queue_wait_seconds")]
    assert any(line.endswith(" 5.0") for line in waited)


@pytest.mark.accepts("CX-18")
async def test_a_client_that_waits_hears_something_in_every_interval(
    site: Site, neuron: Neuron
) -> None:
    release = asyncio.Event()

    async def script(run: Run) -> None:
        await release.wait()
        await hello(run)

    neuron.script = script
    http = site.http(await site.gateway(heartbeat_s=0.3))
    async with http.stream("POST", CHAT, json=STREAM) as answer:
        pieces = answer.aiter_bytes()
        assert await anext(pieces) == b": keep-alive\n\n"
        for _ in range(3):
            before = time.monotonic()
            assert await anext(pieces) == b": keep-alive\n\n"
            assert time.monotonic() - before < 0.6
        release.set()
        rest = b"".join([piece async for piece in pieces])
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_a_full_line_is_503_at_once(site: Site, neuron: Neuron) -> None:
    neuron.refusal = BusyError()
    http = site.http(await site.gateway(queue_limit=1))
    waiting = asyncio.create_task(http.post(CHAT, json=ASK))
    await soon(site.scheduler.was_asked.wait())
    answer = await http.post(CHAT, json=ASK)
    while answer.status_code != 503:
        answer = await http.post(CHAT, json=ASK, timeout=0.5)
    assert answer.json()["error"]["code"] == "queue_full"
    assert 1 <= int(answer.headers["retry-after"]) <= 120
    assert answer.elapsed.total_seconds() < 1
    neuron.refusal = None
    await neuron.report()
    assert (await asyncio.wait_for(waiting, PATIENCE_S)).status_code == 200


async def test_places_that_clients_leave_are_free_again(site: Site, neuron: Neuron) -> None:
    neuron.refusal = BusyError()
    http = site.http(await site.gateway(queue_limit=20))
    waiting = [asyncio.create_task(http.post(CHAT, json=ASK)) for _ in range(20)]
    while await depth(http) != 20:
        await asyncio.sleep(0.05)
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    while await depth(http) != 0:
        await asyncio.sleep(0.05)
    neuron.refusal = None
    await neuron.report()
    assert (await http.post(CHAT, json=ASK)).status_code == 200


async def depth(http: httpx.AsyncClient) -> float:
    for family in text_string_to_metric_families((await http.get("/metrics")).text):
        if family.name == "helexa_queue_depth":
            return sum(sample.value for sample in family.samples)
    return 0


@pytest.mark.accepts("CX-20")
async def test_without_a_scheduler_it_is_a_clear_503(site: Site, neuron: Neuron) -> None:
    assert neuron.name
    http = site.http(await site.gateway(away_timeout_s=0.5))
    await site.scheduler.service.drain(0)
    answer = await http.post(CHAT, json=ASK)
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == "No scheduler is running."
    assert 1 <= int(answer.headers["retry-after"]) <= 120


@pytest.mark.accepts("CX-20", "FLOW-2")
async def test_the_decision_is_in_the_closing_line(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "helexa.gateway")
    await http.post(CHAT, json=STREAM)
    line = next(each for each in caplog.records if each.getMessage() == "request_done")
    said = vars(line)
    assert said["decision"] == "decision-1"
    assert (said["route"], said["model"], said["status"]) == ("chat", MODEL, 200)
    assert (said["prompt_tokens"], said["completion_tokens"]) == (7, 3)
    assert (said["finish"], said["neuron"]) == ("stop", "n.1")


async def test_a_cold_model_is_ordered_and_waited_for(site: Site, neuron: Neuron) -> None:
    provisioner = Provisioner(site.bus, Ensured(state="loading"))
    await provisioner.serve()
    site.scheduler.error = ModelLoadingError()
    http = site.http(await site.gateway())
    asking = [asyncio.create_task(http.post(CHAT, json=ASK)) for _ in range(3)]
    await soon(provisioner.was_asked.wait())
    assert provisioner.asked[0].model == MODEL
    site.scheduler.error = None
    await neuron.report()
    for each in await asyncio.wait_for(asyncio.gather(*asking), PATIENCE_S):
        assert each.status_code == 200


async def test_a_model_that_fits_nowhere_is_413(site: Site, neuron: Neuron) -> None:
    answer = Ensured(state="impossible", reason="needs 80 GiB, the largest host has 24")
    provisioner = Provisioner(site.bus, answer)
    await provisioner.serve()
    site.scheduler.error = ModelLoadingError()
    http = site.http(await site.gateway())
    refused = await http.post(CHAT, json=ASK)
    assert refused.status_code == 413
    assert "80 GiB" in refused.json()["error"]["message"]
    await neuron.report(state="failed", error="corrupt file")
    failed = await http.post(CHAT, json=ASK)
    while failed.status_code == 413:
        await neuron.report(state="failed", error="corrupt file")
        failed = await http.post(CHAT, json=ASK)
    assert (failed.status_code, failed.json()["error"]["code"]) == (502, "model_failed")


async def test_without_a_provisioner_a_cold_model_is_503(site: Site, neuron: Neuron) -> None:
    assert neuron.name
    site.scheduler.error = ModelLoadingError()
    http = site.http(await site.gateway(away_timeout_s=0.5))
    answer = await http.post(CHAT, json=ASK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


@pytest.mark.accepts("FLOW-7")
@pytest.mark.parametrize("stream", [True, False])
async def test_a_neuron_that_breaks_before_the_first_event_is_replaced_unseen(
    site: Site, *, stream: bool
) -> None:
    async def broken(run: Run) -> None:
        await run.beat()
        await run.fail(BackendError("out of memory"))

    bad, good = await site.neuron("n.1", broken), await site.neuron("n.2")
    http = site.http(await site.gateway())
    answer = await http.post(CHAT, json=ASK | {"stream": stream})
    assert answer.status_code == 200
    assert "out of memory" not in answer.text
    assert "world" in answer.text
    assert len(bad.runs) == 1
    assert good.runs[0].request.attempt == 2
    assert good.runs[0].request.first_seq == 1
    assert site.scheduler.asked[-1].exclude_neurons == ("n.1",)


async def test_a_whole_answer_starts_over_where_a_stream_could_not(site: Site) -> None:
    async def half(run: Run) -> None:
        await run.say("half of ")
        await run.fail(BackendError("gone"))

    await site.neuron("n.1", half)
    good = await site.neuron("n.2")
    http = site.http(await site.gateway())
    answer = await http.post(CHAT, json=ASK)
    assert text_of(answer) == "Hello, world"
    assert good.runs[0].request.first_seq == 0
    assert good.runs[0].request.first_event == 0


async def test_a_request_fails_after_so_many_neurons(site: Site) -> None:
    async def broken(run: Run) -> None:
        await run.fail(BackendError("no"))

    neurons = [await site.neuron(f"n.{number}", broken) for number in range(5)]
    http = site.http(await site.gateway(max_attempts=3))
    answer = await http.post(CHAT, json=ASK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "backend_failed")
    assert sum(len(each.runs) for each in neurons) == 3


async def test_a_neuron_that_falls_silent_before_the_first_event_is_replaced(site: Site) -> None:
    async def nothing(run: Run) -> None:
        await run.beat()

    silent, good = await site.neuron("n.1", nothing), await site.neuron("n.2")
    http = site.http(await site.gateway())
    asking = asyncio.create_task(http.post(CHAT, json=STREAM))
    await soon(silent.began.wait())
    await silent.die()
    answer = await asyncio.wait_for(asking, PATIENCE_S)
    assert "world" in answer.text
    assert len(good.runs) == 1


async def test_a_neuron_that_falls_silent_in_the_middle_ends_the_stream(
    site: Site, neuron: Neuron
) -> None:
    async def half(run: Run) -> None:
        await run.say("half")

    neuron.script = half
    http = site.http(await site.gateway())
    async with http.stream("POST", CHAT, json=STREAM) as answer:
        pieces = answer.aiter_text()
        assert "half" in await anext(pieces)
        await neuron.die()
        rest = "".join([piece async for piece in pieces])
    assert '"code": "stream_interrupted"' in rest
    assert "[DONE]" not in rest


async def test_silence_has_a_limit_and_length_has_none(site: Site, neuron: Neuron) -> None:
    async def slow(run: Run) -> None:
        for _ in range(6):
            await run.say("tick")
            await asyncio.sleep(0.3)
        await run.cancelled.wait()

    neuron.script = slow
    http = site.http(await site.gateway(idle_timeout_s=1.0))
    answer = await http.post(CHAT, json=STREAM)
    assert answer.text.count("tick") == 6
    assert '"code": "deadline_exceeded"' in answer.text
    cancel = await asyncio.wait_for(neuron.cancels.get(), PATIENCE_S)
    assert cancel.reason == "deadline_exceeded"


async def test_a_client_that_does_not_read_is_cut_off(site: Site, neuron: Neuron) -> None:
    async def flood(run: Run) -> None:
        while not run.cancelled.is_set():
            await run.say("x" * 100_000)
            await asyncio.sleep(0)

    neuron.script = flood
    running = await site.gateway(client_buffer_bytes=1_000_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.split(":")[-1]))
    body = json.dumps(STREAM).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    cancel = await asyncio.wait_for(neuron.cancels.get(), PATIENCE_S)
    assert cancel.reason == "client_too_slow"
    await reader.read(100)
    writer.close()


@pytest.mark.accepts("FLOW-6")
async def test_outcomes_are_reported_to_the_schedulers(site: Site) -> None:
    async def broken(run: Run) -> None:
        await run.fail(BackendError("no"))

    await site.neuron("n.1", broken)
    await site.neuron("n.2")
    heard: asyncio.Queue[Feedback] = asyncio.Queue()
    beats: asyncio.Queue[GatewayBeat] = asyncio.Queue()
    await site.bus.subscribe(subjects.FEEDBACK, heard.put_nowait)
    await site.bus.subscribe(subjects.GATEWAY_BEAT, beats.put_nowait)
    http = site.http(await site.gateway())
    await http.post(CHAT, json=STREAM)
    outcomes: dict[str, Outcome] = {}
    me = ""
    while {"n.1", "n.2"} - outcomes.keys():
        report = await asyncio.wait_for(heard.get(), PATIENCE_S)
        me = report.gateway
        outcomes |= {each.neuron_id: each for each in report.outcomes}
    assert (outcomes["n.1"].failed, outcomes["n.1"].completed) == (1, 0)
    assert outcomes["n.2"].completed == 1
    assert 0 <= outcomes["n.2"].first_token_s[0] <= outcomes["n.2"].duration_s[0] < 5
    assert (await asyncio.wait_for(beats.get(), PATIENCE_S)).gateway == me


async def test_a_gateway_that_stops_finishes_what_it_can_and_sends_the_rest_away(
    site: Site, neuron: Neuron
) -> None:
    beats: list[GatewayBeat] = []
    await site.bus.subscribe(subjects.GATEWAY_BEAT, beats.append)
    finish = asyncio.Event()

    async def script(run: Run) -> None:
        await run.say("one")
        if len(neuron.runs) == 1:
            await finish.wait()
            await run.events(chat_chunk({}, finish="stop"))
            await run.done()

    neuron.script = script
    running = await site.gateway(grace_s=1.0)
    http = site.http(running)
    quick = asyncio.create_task(http.post(CHAT, json=STREAM))
    await soon(neuron.began.wait())
    neuron.began.clear()
    endless = asyncio.create_task(http.post(CHAT, json=STREAM))
    await soon(neuron.began.wait())
    site.scheduler.error = NoCapacityError()
    site.scheduler.was_asked.clear()
    waiting = asyncio.create_task(http.post(CHAT, json=ASK))
    await soon(site.scheduler.was_asked.wait())
    began = time.monotonic()
    ending = asyncio.create_task(running.life.end())
    finish.set()
    assert (await quick).text.endswith("data: [DONE]\n\n")
    sent_away = await waiting
    assert (sent_away.status_code, sent_away.json()["error"]["code"]) == (503, "shutting_down")
    assert sent_away.headers["retry-after"] == "1"
    assert '"code": "shutting_down"' in (await endless).text
    await ending
    assert time.monotonic() - began < 4
    await site.bus.client.flush()
    assert beats[-1].returns


async def test_scheduler_and_neuron_are_told_how_a_prompt_begins(
    site: Site, neuron: Neuron
) -> None:
    http = site.http(await site.gateway())
    system = {"role": "system", "content": "You know much. " * 90}
    turns = [{"role": "user", "content": "first"}, {"role": "assistant", "content": "said " * 200}]
    tools = [{"type": "function", "function": {"name": "look"}}]
    bodies: list[dict[str, object]] = [
        {"messages": [system, turns[0]]},
        {"messages": [system, *turns, {"role": "user", "content": "second"}]},
        {"messages": [system, turns[0]], "tools": tools},
        {"messages": [turns[0]]},
    ]
    for body in bodies:
        assert (await http.post(CHAT, json=body | {"model": MODEL})).status_code == 200
    told = [split_digests(request.prefix_digests) for request in site.scheduler.asked[-4:]]
    assert [split_digests(run.request.prefix_digests) for run in neuron.runs] == told
    once, again, with_tools, short = told
    assert len(again) > len(once) > 1
    assert again[: len(once)] == once
    assert not set(with_tools) & set(once)
    assert short == ()
