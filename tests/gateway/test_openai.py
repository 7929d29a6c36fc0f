# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A stock client of OpenAI's at a gateway."""

import asyncio
import json
import re

import httpx
import openai
import pytest
from openai import AsyncOpenAI
from tests.gateway.conftest import MODEL, Site
from tests.gateway.roles import Neuron, Run, RunningGateway, chat_chunk

QUESTION: list[dict[str, str]] = [{"role": "user", "content": "Say hello."}]
BODY = {"model": MODEL, "messages": QUESTION}


@pytest.mark.accepts("CX-18", "FLOW-5", "LAB-15")
async def test_a_streamed_chat_comes_event_by_event(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "hi"}], stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello, world"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)


async def test_a_stream_that_pauses_is_kept_alive_without_confusing_its_reader(
    client: AsyncOpenAI, neuron: Neuron
) -> None:
    async def pausing(run: Run) -> None:
        await run.say("one")
        # More than two of the gateway's heartbeats.
        for _ in range(10):
            await run.beat()
            await asyncio.sleep(0.1)
        await run.say("two")
        await run.done()

    neuron.script = pausing
    stream = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "hi"}], stream=True
    )
    assert [chunk.choices[0].delta.content async for chunk in stream] == ["one", "two"]


@pytest.mark.accepts("CX-18")
async def test_usage_is_streamed_only_when_asked_for(client: AsyncOpenAI, neuron: Neuron) -> None:
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "hi"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 10
    sent = json.loads(neuron.runs[-1].request.body)
    assert sent["stream"] is True
    assert sent["stream_options"] == {"include_usage": True}


@pytest.mark.accepts("CX-18", "LAB-15")
async def test_a_chat_that_is_not_streamed_comes_whole(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": "hi"}]
    )
    chat = answer.parse()
    assert chat.choices[0].message.content == "Hello, world"
    assert chat.choices[0].finish_reason == "stop"
    assert chat.model == MODEL
    assert chat.usage is not None
    assert (chat.usage.prompt_tokens, chat.usage.completion_tokens) == (7, 3)
    assert chat.usage.prompt_tokens_details is not None
    assert chat.usage.prompt_tokens_details.cached_tokens == 2
    assert chat.usage.completion_tokens_details is None
    assert answer.headers["x-helexa-model"] == MODEL
    assert answer.headers["x-helexa-attempts"] == "1"
    assert re.fullmatch(r"[a-z2-7]{12}\.[a-z2-7]{26}", answer.headers["x-request-id"])


async def test_tool_calls_are_put_together(client: AsyncOpenAI, neuron: Neuron) -> None:
    def call(index: int, **parts: object) -> dict[str, object]:
        return chat_chunk({"tool_calls": [{"index": index, **parts}]})

    async def script(run: Run) -> None:
        await run.events(
            chat_chunk({"role": "assistant", "content": None}),
            call(0, id="c0", type="function", function={"name": "weather", "arguments": ""}),
            call(0, function={"arguments": '{"city":'}),
            call(1, id="c1", type="function", function={"name": "time", "arguments": "{}"}),
            call(0, function={"arguments": '"Oslo"}'}),
            chat_chunk({}, finish="tool_calls"),
        )
        await run.done()

    neuron.script = script
    answer = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "hi"}],
        tools=[{"type": "function", "function": {"name": "weather", "parameters": {}}}],
    )
    calls = answer.choices[0].message.tool_calls or []
    functions = [each.function for each in calls if each.type == "function"]
    assert [(each.name, each.arguments) for each in functions] == [
        ("weather", '{"city":"Oslo"}'),
        ("time", "{}"),
    ]
    assert answer.choices[0].message.content is None
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_several_answers_are_kept_apart(client: AsyncOpenAI, neuron: Neuron) -> None:
    async def script(run: Run) -> None:
        await run.events(
            chat_chunk({"content": "b"}, index=1),
            chat_chunk({"content": "a"}, index=0),
            chat_chunk({"content": "B"}, index=1, finish="stop"),
            chat_chunk({"content": "A"}, index=0, finish="length"),
        )
        await run.done()

    neuron.script = script
    answer = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "hi"}], n=2
    )
    found = [(each.message.content, each.finish_reason) for each in answer.choices]
    assert found == [("aA", "length"), ("bB", "stop")]
    assert json.loads(neuron.runs[-1].request.body)["n"] == 2


async def test_reasoning_and_logprobs_stay_what_they_are(
    http: httpx.AsyncClient, neuron: Neuron
) -> None:
    async def script(run: Run) -> None:
        chunk = chat_chunk({"content": "4"})
        logged = {"content": [{"token": "4", "logprob": -0.5}]}
        chunk["choices"] = [{"index": 0, "delta": {"content": "4"}, "logprobs": logged}]
        await run.events(
            chat_chunk({"reasoning_content": "two and "}),
            chat_chunk({"reasoning_content": "two"}),
            chunk,
            chunk,
            chat_chunk({}, finish="stop"),
        )
        await run.done()

    neuron.script = script
    answer = (await http.post("/v1/chat/completions", json=BODY | {"logprobs": True})).json()
    choice = answer["choices"][0]
    assert choice["message"]["reasoning_content"] == "two and two"
    assert choice["message"]["content"] == "44"
    assert len(choice["logprobs"]["content"]) == 2


@pytest.mark.accepts("CX-18")
async def test_a_completion_is_answered(client: AsyncOpenAI, neuron: Neuron) -> None:
    async def script(run: Run) -> None:
        for text, finish in (("once", None), (" upon", "length")):
            choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
            await run.events({"id": "x", "object": "text_completion", "choices": [choice]})
        await run.done()

    neuron.script = script
    answer = await client.completions.create(model=MODEL, prompt=["Tell"], max_tokens=2)
    assert answer.choices[0].text == "once upon"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    sent = json.loads(neuron.runs[-1].request.body)
    assert sent["prompt"] == "Tell"
    assert sent["max_tokens"] == 2
    assert neuron.runs[-1].request.operation == "completion"


@pytest.mark.accepts("CX-18")
async def test_embeddings_come_under_the_public_name(client: AsyncOpenAI, neuron: Neuron) -> None:
    async def script(run: Run) -> None:
        asked = json.loads(run.request.body)
        assert "stream" not in asked
        vector = [0.0, 1.0] if asked["encoding_format"] == "float" else "AAAAAAAAgD8="
        body = {"object": "list", "model": "/weights/x.gguf"} | {
            "data": [{"object": "embedding", "index": 0, "embedding": vector}],
            "usage": {"prompt_tokens": 7, "total_tokens": 7},
        }
        encoded = json.dumps(body).encode()
        await run.body(encoded[:20])
        await run.body(encoded[20:])
        await run.done()

    neuron.script = script
    for kind in ("float", "base64"):
        answer = await client.embeddings.create(
            model=MODEL, input="hi", encoding_format="float" if kind == "float" else "base64"
        )
        assert answer.model == MODEL
    plain = await client.embeddings.create(model=MODEL, input=["hi", "ho"])
    assert plain.data[0].embedding == [0.0, 1.0]


@pytest.mark.accepts("CX-18")
async def test_models_are_listed_with_their_state(client: AsyncOpenAI) -> None:
    listed = (await client.models.list()).data
    assert [each.id for each in listed] == [MODEL]
    shown = (await client.models.retrieve(MODEL)).model_dump()
    assert shown["helexa"]["state"] == "loaded"
    assert shown["helexa"]["context_tokens"] == 2048
    assert shown["helexa"]["slots_total"] == 4
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nobody/knows")


@pytest.mark.accepts("CX-19", "FLOW-1", "PR-3")
async def test_requests_are_classified(http: httpx.AsyncClient, site: Site) -> None:
    image = {"type": "image_url", "image_url": "data:image/png;base64,AAAA"}
    site.neurons[0].workloads = ("chat", "completion", "embedding", "vision")
    site.neurons[0].context_tokens = 40_000
    await site.neurons[0].report()
    cases = {
        "ChatInteractive": BODY,
        "VisionCaption": {"model": MODEL, "messages": [{"role": "user", "content": [image]}]},
        "ChatBulk": BODY | {"messages": [{"role": "user", "content": "word " * 20_000}]},
    }
    for workload, body in cases.items():
        answer = await http.post("/v1/chat/completions", json=body)
        assert answer.headers["x-helexa-workload"] == workload, answer.text
        assert site.scheduler.asked[-1].workload == workload
    bulk = await http.post("/v1/chat/completions", json=BODY, headers={"x-helexa-priority": "bulk"})
    assert bulk.headers["x-helexa-workload"] == "ChatBulk"
    assert "vision" in site.scheduler.asked[1].needs


@pytest.mark.accepts("FLOW-3")
async def test_one_id_goes_through_all_of_it(
    http: httpx.AsyncClient, site: Site, neuron: Neuron
) -> None:
    answer = await http.post(
        "/v1/chat/completions",
        json=BODY,
        headers={"x-client-request-id": "mine-1", "x-helexa-show-route": "true"},
    )
    assert answer.headers["x-helexa-neuron"] == neuron.name
    assert answer.headers["x-helexa-decision"] == "decision-1"
    assert "x-helexa-neuron" not in (await http.post("/v1/chat/completions", json=BODY)).headers
    closed = await site.gateway(show_route=False)
    asked = {"x-helexa-show-route": "true"}
    kept = await site.http(closed).post("/v1/chat/completions", json=BODY, headers=asked)
    assert kept.status_code == 200
    assert "x-helexa-neuron" not in kept.headers
    name = answer.headers["x-request-id"]
    assert answer.headers["x-client-request-id"] == "mine-1"
    assert site.scheduler.asked[0].request_id == name
    assert neuron.runs[0].request.request_id == name
    assert neuron.runs[0].request.decision_id == "decision-1"


async def test_events_carry_the_numbers_that_resuming_counts(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/chat/completions", json=BODY | {"stream": True})
    assert re.findall(r"id: (\d+)\n", answer.text) == ["0", "1", "2", "3", "4"]
    assert answer.text.endswith("data: [DONE]\n\n")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"


async def test_every_name_of_the_cap_is_the_one_that_runtimes_take(
    http: httpx.AsyncClient, neuron: Neuron
) -> None:
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        await http.post("/v1/chat/completions", json=BODY | {name: 5})
        sent = json.loads(neuron.runs[-1].request.body)
        assert {key: sent[key] for key in sent if key.startswith("max_")} == {"max_tokens": 5}


async def test_many_chats_at_once_do_not_mix(
    client: AsyncOpenAI, neuron: Neuron, running: RunningGateway
) -> None:
    async def echo(run: Run) -> None:
        said = json.loads(run.request.body)["messages"][0]["content"]
        for letter in said:
            await run.say(letter)
        await run.done()

    async def ask(text: str) -> str:
        stream = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": text}], stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    neuron.script = echo
    assert running.url
    texts = [f"question {n}" for n in range(40)]
    assert await asyncio.gather(*map(ask, texts)) == texts
