# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The second half of an answer whose first half another neuron gave."""

import json

import pytest

from helexa.protocol.errors import RefusedError
from helexa.protocol.frames import read_done
from helexa.protocol.messages.execution import Operation
from helexa.protocol.messages.models import ModelCapability, Workload

from .conftest import MODEL, Rig, chunk, scripted, usage_chunk
from .test_execution import events_of, signed_record, text_of

ABLE = ModelCapability(workloads=(Workload.CHAT, Workload.COMPLETION), continues_partial=True)
PREFIX = {"continues": "one two ", "prefix_tokens": 2, "created": 1234, "attempt": 2}
BODY = json.dumps({"messages": [{"role": "user", "content": "count"}], "max_tokens": 10}).encode()


async def able(rig: Rig) -> None:
    await rig.gateway.load(scripted(capability=ABLE))


async def test_the_rest_carries_on_from_the_event_before(rig: Rig) -> None:
    await able(rig)
    request = rig.gateway.request(body=BODY, first_seq=4, first_event=3, **PREFIX)
    await rig.gateway.execute(request)
    script = await rig.runtimes.script()
    script.answer("three ", "four")
    events = events_of(text_of(await rig.gateway.ended(request)))
    choices = [event["choices"][0] for _, event in events]  # type: ignore[index]
    assert [each["delta"].get("content") for each in choices] == ["three ", "four", None]
    assert [number for number, _ in events] == [3, 4, 5]
    assert {(each["id"], each["model"], each["created"]) for _, each in events} == {
        ("chatcmpl-public", MODEL, 1234)
    }
    sent = json.loads(rig.runtimes.bodies[-1])
    assert sent["messages"][-1] == {"role": "assistant", "content": "one two "}
    assert sent["max_tokens"] == 8


async def test_the_answer_shows_all_counts_and_the_neuron_claims_its_own(rig: Rig) -> None:
    await able(rig)
    request = rig.gateway.request(body=BODY, show_usage=True, **PREFIX)
    await rig.gateway.execute(request)
    script = await rig.runtimes.script()
    script.say(chunk("three"), chunk(None, finish="stop"), usage_chunk(9, 1, cached=8))
    script.end()
    frames = await rig.gateway.ended(request)
    usage, _ = read_done(frames[-1])
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (7, 3, 7)
    _, shown = events_of(text_of(frames))[-1]
    assert shown["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 7},
    }
    record = signed_record(frames[-1])
    assert (record.prompt_tokens, record.completion_tokens, record.prefix_tokens) == (7, 1, 2)


async def test_of_an_answer_at_its_limit_only_the_end_is_given(rig: Rig) -> None:
    await able(rig)
    request = rig.gateway.request(body=BODY, show_usage=True, **(PREFIX | {"prefix_tokens": 10}))
    await rig.gateway.execute(request)
    script = await rig.runtimes.script()
    script.say(chunk(None), chunk("one too many"), chunk(None, finish="length"))
    script.say(usage_chunk(17, 1))
    script.end()
    frames = await rig.gateway.ended(request)
    events = [event for _, event in events_of(text_of(frames))]
    assert b"one too many" not in text_of(frames)
    assert events[0]["choices"][0]["finish_reason"] == "length"  # type: ignore[index]
    usage, _ = read_done(frames[-1])
    assert (usage.prompt_tokens, usage.completion_tokens) == (7, 10)
    assert signed_record(frames[-1]).completion_tokens == 0


async def test_an_answer_whose_role_was_seen_begins_without_it(rig: Rig) -> None:
    request = rig.gateway.request(body=BODY, continues="", first_event=1, attempt=2)
    await rig.gateway.execute(request)
    (await rig.runtimes.script()).answer("one")
    events = events_of(text_of(await rig.gateway.ended(request)))
    assert events[0][1]["choices"][0]["delta"] == {"content": "one"}  # type: ignore[index]
    assert json.loads(rig.runtimes.bodies[-1])["messages"][-1]["role"] == "user"


async def test_a_runtime_that_cannot_continue_refuses_chats_and_takes_texts(rig: Rig) -> None:
    with pytest.raises(RefusedError, match="partial"):
        await rig.gateway.execute(rig.gateway.request(body=BODY, **PREFIX))
    body = json.dumps({"prompt": "count: "}).encode()
    request = rig.gateway.request(body=body, operation=Operation.COMPLETION, **PREFIX)
    await rig.gateway.execute(request)
    (await rig.runtimes.script()).answer("three")
    await rig.gateway.ended(request)
    assert json.loads(rig.runtimes.bodies[-1])["prompt"] == "count: one two "
