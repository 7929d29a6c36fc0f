# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A stream goes on when its neuron does not."""

import asyncio
import json
import re

import httpx
import pytest
from tests.gateway.conftest import MODEL, Site
from tests.gateway.roles import PATIENCE_S, Json, Neuron, Run, chat_chunk, soon

from helexa.gateway.continuation import Partial, Step, Transcript, next_step, with_events
from helexa.protocol.errors import (
    BackendError,
    DeadlineExceededError,
    HelexaError,
    ShuttingDownError,
    StreamInterruptedError,
    WorkCancelledError,
)
from helexa.protocol.messages.execution import TokenUsage

CHAT = "/v1/chat/completions"
STREAM: Json = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}
END = "data: [DONE]\n\n"


def events(text: str) -> list[Json]:
    found = re.findall(r"^data: (\{.*)$", text, re.MULTILINE)
    return [json.loads(each) for each in found]


def said(text: str) -> str:
    deltas = [c["delta"] for each in events(text) for c in each.get("choices", ())]  # type: ignore[attr-defined]
    return "".join(delta.get("content") or "" for delta in deltas)


def numbers(text: str) -> list[int]:
    return [int(each) for each in re.findall(r"^id: (\d+)$", text, re.MULTILINE)]


def packed(*chunks: Json) -> bytes:
    return b"".join(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks)


async def half(run: Run) -> None:
    await run.events(chat_chunk({"role": "assistant", "content": None}))
    await run.say("one ", "two ")
    await run.beat()
    await run.fail(StreamInterruptedError("the backend died"))


async def rest(run: Run) -> None:
    await run.say("three ", "four")
    await run.events(chat_chunk({}, finish="stop"))
    await run.done(TokenUsage(prompt_tokens=7, completion_tokens=4))


async def two_neurons(site: Site, first: object = half, second: object = rest) -> list[Neuron]:
    """Start a neuron that fails and one that goes on."""
    made = [
        await site.neuron("n.1", first),  # type: ignore[arg-type]
        await site.neuron("n.2", second),  # type: ignore[arg-type]
    ]
    for neuron in made:
        neuron.can_go_on = True
        await neuron.report()
    return made


async def test_another_neuron_goes_on_after_the_last_event(site: Site) -> None:
    _, good = await two_neurons(site)
    answer = await site.http(await site.gateway()).post(CHAT, json=STREAM)
    assert said(answer.text) == "one two three four"
    assert numbers(answer.text) == list(range(6))
    assert answer.text.endswith(END)
    assert answer.text.count(END) == 1
    assert "error" not in answer.text
    asked = good.runs[0].request
    assert (asked.continues, asked.prefix_tokens, asked.created) == ("one two ", 2, 1)
    assert (asked.attempt, asked.first_seq, asked.first_event) == (2, 3, 3)
    ordered = site.scheduler.asked[-1]
    assert ordered.continues
    assert ordered.exclude_neurons == ("n.1",)
    assert not site.scheduler.asked[0].continues


async def test_a_neuron_that_dies_is_replaced_in_the_middle(site: Site) -> None:
    async def goes_silent(run: Run) -> None:
        await run.say("one ", "two ")

    dying, _ = await two_neurons(site, goes_silent)
    http = site.http(await site.gateway())
    asking = asyncio.create_task(http.post(CHAT, json=STREAM))
    await soon(dying.began.wait())
    await dying.die()
    answer = await asyncio.wait_for(asking, 2 * PATIENCE_S)
    assert said(answer.text) == "one two three four"
    assert answer.text.count(END) == 1


async def test_a_neuron_that_shuts_down_hands_its_streams_on(site: Site) -> None:
    async def leaves(run: Run) -> None:
        await run.say("one two ")
        await run.fail(ShuttingDownError(retry_after_s=1))

    await two_neurons(site, leaves)
    answer = await site.http(await site.gateway()).post(CHAT, json=STREAM)
    assert said(answer.text) == "one two three four"


async def test_an_answer_of_which_only_the_role_was_seen_begins_again_anywhere(site: Site) -> None:
    async def greets(run: Run) -> None:
        await run.events(chat_chunk({"role": "assistant", "content": ""}))
        await run.fail(BackendError("no memory"))

    first, second = await two_neurons(site, greets)
    first.can_go_on = second.can_go_on = False
    answer = await site.http(await site.gateway()).post(CHAT, json=STREAM)
    assert said(answer.text) == "three four"
    assert second.runs[0].request.continues == ""
    assert not site.scheduler.asked[-1].continues


async def test_plain_text_goes_on_without_any_ability(site: Site) -> None:
    def chunk(text: str, finish: str | None = None) -> Json:
        choice = {"index": 0, "text": text, "finish_reason": finish, "logprobs": None}
        return {"id": "x", "object": "text_completion", "created": 1, "choices": [choice]}

    async def first_half(run: Run) -> None:
        await run.events(chunk("one "), chunk("two "))
        await run.fail(BackendError("gone"))

    async def second_half(run: Run) -> None:
        await run.events(chunk("three"), chunk("", "stop"))
        await run.done()

    first, second = await two_neurons(site, first_half, second_half)
    first.can_go_on = second.can_go_on = False
    asked = {"model": MODEL, "prompt": "count:", "stream": True}
    answer = await site.http(await site.gateway()).post("/v1/completions", json=asked)
    assert second.runs[0].request.continues == "one two "
    assert [each["choices"][0]["text"] for each in events(answer.text)] == [  # type: ignore[index]
        "one ",
        "two ",
        "three",
        "",
    ]


TOOL = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}


@pytest.mark.parametrize(
    ("more", "delta"),
    [
        ({}, TOOL),
        ({}, {"reasoning_content": "hm"}),
        ({"response_format": SCHEMA}, {"content": '{"a'}),
        ({"n": 2}, {"content": "a"}),
        ({"logprobs": True}, {"content": "a"}),
        ({"tools": [{"type": "function"}], "tool_choice": "required"}, {"content": "a"}),
    ],
)
async def test_what_cannot_go_on_ends_in_one_error(site: Site, more: Json, delta: Json) -> None:
    async def breaks(run: Run) -> None:
        await run.events(chat_chunk(delta))
        await run.fail(StreamInterruptedError("the backend died"))

    _, other = await two_neurons(site, breaks)
    answer = await site.http(await site.gateway()).post(CHAT, json=STREAM | more)
    assert answer.text.count('"code": "stream_interrupted"') == 1
    assert "[DONE]" not in answer.text
    assert other.runs == []


async def test_where_no_neuron_can_go_on_it_ends_at_once(site: Site) -> None:
    neurons = await two_neurons(site)
    for neuron in neurons:
        neuron.can_go_on = False
        await neuron.report()
    answer = await site.http(await site.gateway()).post(CHAT, json=STREAM)
    assert answer.text.count('"code": "stream_interrupted"') == 1
    assert answer.elapsed.total_seconds() < 3
    assert neurons[1].runs == []


async def test_the_wait_for_a_neuron_that_goes_on_is_bounded(site: Site) -> None:
    alone = await site.neuron("n.1", half)
    alone.can_go_on = True

    async def half_once(run: Run) -> None:
        alone.refusal = BackendError("no more")
        await half(run)

    alone.script = half_once
    http = site.http(await site.gateway(go_on_timeout_s=1.0))
    answer = await http.post(CHAT, json=STREAM)
    assert said(answer.text) == "one two "
    assert answer.text.count('"code": "stream_interrupted"') == 1
    assert ": keep-alive" in answer.text or answer.elapsed.total_seconds() < 2


async def test_the_same_neuron_goes_on_where_there_is_no_other(site: Site) -> None:
    alone = await site.neuron("n.1")
    alone.can_go_on = True

    async def recovers(run: Run) -> None:
        await (half if run.request.attempt == 1 else rest)(run)

    alone.script = recovers
    answer = await site.http(await site.gateway()).post(CHAT, json=STREAM)
    assert said(answer.text) == "one two three four"


async def test_an_answer_that_lacks_only_its_end_is_complete(site: Site) -> None:
    async def all_but_the_end(run: Run) -> None:
        await run.say("all of it")
        await run.events(chat_chunk({}, finish="stop"))
        await run.fail(StreamInterruptedError("the backend died"))

    _, other = await two_neurons(site, all_but_the_end)
    first, second = await site.gateway(), await site.gateway()
    answer = await site.http(first).post(CHAT, json=STREAM)
    assert said(answer.text) == "all of it"
    assert answer.text.endswith(END)
    assert other.runs == []
    name = answer.headers["x-request-id"]
    for gateway in (first, second):
        again = await site.http(gateway).get(f"/v1/streams/{name}")
        assert again.text == answer.text


async def test_every_part_comes_again_over_the_seam(site: Site) -> None:
    await two_neurons(site)
    first, second = await site.gateway(), await site.gateway()
    whole = await site.http(first).post(CHAT, json=STREAM)
    name = whole.headers["x-request-id"]
    parts = whole.text.split("\n\n")
    for gateway in (first, second):
        for last in range(-1, 6):
            headers = {"last-event-id": str(last)} if last >= 0 else {}
            again = await site.http(gateway).get(f"/v1/streams/{name}", headers=headers)
            assert again.text == "\n\n".join(parts[last + 1 :]), last


async def test_whoever_reads_along_at_another_gateway_sees_no_seam(site: Site) -> None:
    go_on = asyncio.Event()

    async def half_and_wait(run: Run) -> None:
        await run.say("one ", "two ")
        await go_on.wait()
        await run.fail(StreamInterruptedError("the backend died"))

    await two_neurons(site, half_and_wait)
    first, second = await site.gateway(), await site.gateway()
    async with site.http(first).stream("POST", CHAT, json=STREAM) as answer:
        pieces = answer.aiter_text()
        seen = await anext(pieces)
        along = site.http(second).stream("GET", f"/v1/streams/{answer.headers['x-request-id']}")
        async with along as other:
            others = other.aiter_text()
            read = await anext(others)
            go_on.set()
            seen += "".join([piece async for piece in pieces])
            read += "".join([piece async for piece in others])
    assert said(seen) == "one two three four"
    assert events(read) == events(seen)
    assert numbers(read) == numbers(seen)
    assert read.count(END) == 1


async def test_frames_of_a_replaced_attempt_count_nowhere(site: Site) -> None:
    seen, thawed = asyncio.Event(), asyncio.Event()

    async def freezes(run: Run) -> None:
        await run.say("one ", "two ")
        await seen.wait()
        for text in ("late ", "later "):
            await run.say(text)
        await run.done()
        await run.neuron.bus.client.flush()
        thawed.set()

    async def slow_rest(run: Run) -> None:
        await run.say("three ")
        seen.set()
        await thawed.wait()
        await run.say("four")
        await run.events(chat_chunk({}, finish="stop"))
        await run.done()

    frozen, _ = await two_neurons(site, freezes, slow_rest)
    first, second = await site.gateway(), await site.gateway()
    http = site.http(first)
    asking = asyncio.create_task(http.post(CHAT, json=STREAM))
    await soon(frozen.began.wait())
    await frozen.fall_silent()
    answer = await asyncio.wait_for(asking, 2 * PATIENCE_S)
    assert said(answer.text) == "one two three four"
    assert numbers(answer.text) == list(range(5))
    again = await site.http(second).get(f"/v1/streams/{answer.headers['x-request-id']}")
    assert events(again.text) == events(answer.text)


async def test_a_neuron_that_comes_back_is_told_to_stop(site: Site) -> None:
    async def goes_silent(run: Run) -> None:
        await run.say("one ", "two ")

    frozen, _ = await two_neurons(site, goes_silent)
    http = site.http(await site.gateway())
    asking = asyncio.create_task(http.post(CHAT, json=STREAM))
    await soon(frozen.began.wait())
    await frozen.die()
    assert said((await asyncio.wait_for(asking, 2 * PATIENCE_S)).text) == "one two three four"
    assert frozen.cancels.empty()
    back = await site.neuron("n.1")
    cancel = await asyncio.wait_for(back.cancels.get(), PATIENCE_S)
    assert (cancel.request_id, cancel.attempt) == (frozen.runs[0].request.request_id, 1)


async def test_a_neuron_that_reports_and_says_nothing_of_a_request_loses_it(site: Site) -> None:
    async def forgotten(run: Run) -> None:
        await run.say("one ", "two ")

    wedged, _ = await two_neurons(site, forgotten)
    http = site.http(await site.gateway())
    answer = await http.post(CHAT, json=STREAM, timeout=3 * PATIENCE_S)
    assert said(answer.text) == "one two three four"
    assert wedged.resent.is_set()
    cancel = await asyncio.wait_for(wedged.cancels.get(), PATIENCE_S)
    assert cancel.attempt == 1


async def test_what_a_neuron_sends_whose_acceptance_was_lost_is_not_mixed_in(site: Site) -> None:
    async def unheard(run: Run) -> None:
        await run.say("void ", "void ")

    mute, _ = await two_neurons(site, unheard)
    mute.replies.clear()
    http = site.http(await site.gateway())
    answer = await http.post(CHAT, json=STREAM, timeout=3 * PATIENCE_S)
    assert said(answer.text) == "three four"
    assert numbers(answer.text) == [0, 1, 2]
    mute.replies.set()


async def test_a_failed_answer_comes_again_with_its_events_and_its_error(site: Site) -> None:
    neurons = await two_neurons(site)
    for neuron in neurons:
        neuron.can_go_on = False
    first, second = await site.gateway(), await site.gateway()
    answer = await site.http(first).post(CHAT, json=STREAM)
    for gateway in (first, second):
        again = await site.http(gateway).get(f"/v1/streams/{answer.headers['x-request-id']}")
        assert again.text == answer.text


@pytest.mark.parametrize("breaks_first", [True, False])
async def test_a_whole_answer_shows_and_counts_the_attempt_that_gave_it(
    site: Site, *, breaks_first: bool
) -> None:
    async def breaks(run: Run) -> None:
        await (half if breaks_first else rest)(run)

    await two_neurons(site, breaks, rest)
    answer = await site.http(await site.gateway()).post(CHAT, json=STREAM | {"stream": False})
    whole = answer.json()
    assert whole["choices"][0]["message"]["content"] == "three four"
    assert whole["usage"] == {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}


async def test_a_resumable_answer_goes_on_without_its_client(site: Site) -> None:
    left, finished = asyncio.Event(), asyncio.Event()

    async def half_alone(run: Run) -> None:
        await run.say("one ", "two ")
        await left.wait()
        await run.fail(StreamInterruptedError("the backend died"))

    async def rest_alone(run: Run) -> None:
        await rest(run)
        finished.set()

    await two_neurons(site, half_alone, rest_alone)
    http: httpx.AsyncClient = site.http(await site.gateway())
    headers = {"x-helexa-resumable": "true"}
    async with http.stream("POST", CHAT, json=STREAM, headers=headers) as answer:
        name = answer.headers["x-request-id"]
        await anext(answer.aiter_bytes())
    left.set()
    await soon(finished.wait())
    assert said((await http.get(f"/v1/streams/{name}")).text) == "one two three four"


def test_a_partial_answer_is_its_text_and_how_many_tokens_it_has() -> None:
    text = packed(
        chat_chunk({"role": "assistant", "content": None}),
        chat_chunk({"content": " a"}),
        chat_chunk({"content": "b ", "tool_calls": None}),
    )
    assert with_events(Partial(), text) == Partial(" ab ", 2, 1)
    assert with_events(Partial(), packed(chat_chunk({}, finish="length"))).finish == "length"


@pytest.mark.parametrize(
    "delta",
    [TOOL, {"reasoning": "x"}, {"reasoning_content": "x", "content": None}, {"audio": {"id": 1}}],
)
def test_anything_but_text_makes_an_answer_more_than_text(delta: Json) -> None:
    assert not with_events(Partial(), packed(chat_chunk(delta))).is_plain


def test_a_long_answer_is_kept_as_its_text_and_a_very_long_one_not_at_all() -> None:
    transcript = Transcript()
    piece = packed(*(chat_chunk({"content": "0123456789"}) for _ in range(100)))
    for _ in range(100):
        transcript.add(piece)
    partial = transcript.read()
    assert partial == Partial("0123456789" * 10_000, 10_000, 1)
    for _ in range(200):
        transcript.add(piece)
    partial = transcript.read()
    assert (partial.text, partial.tokens, partial.is_plain) == ("", 30_000, False)


BROKE = StreamInterruptedError()
TEXT = Partial("a", 1)


@pytest.mark.parametrize(
    ("error", "partial", "can_start_over", "can_go_on", "step"),
    [
        (BROKE, TEXT, True, True, Step.START_OVER),
        (BROKE, TEXT, False, True, Step.GO_ON),
        (BROKE, TEXT, False, False, Step.FAIL),
        (BROKE, Partial("a", 1, finish="stop"), False, False, Step.COMPLETE),
        (BROKE, Partial("\ud800", 1), False, True, Step.FAIL),
        (BROKE, Partial("a", 1, is_plain=False), False, True, Step.FAIL),
        (DeadlineExceededError(), TEXT, False, True, Step.FAIL),
        (DeadlineExceededError(), TEXT, True, True, Step.START_OVER),
        (WorkCancelledError(), TEXT, True, True, Step.FAIL),
    ],
)
def test_what_follows_a_failure(
    error: HelexaError, partial: Partial, can_start_over: bool, can_go_on: bool, step: Step
) -> None:
    found = next_step(error, partial, can_start_over=can_start_over, is_continuable=can_go_on)
    assert found is step
