# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The stock OpenAI SDK against a whole site with the embedded model."""

import base64
import json
import struct
import zlib
from collections.abc import Callable, Sequence

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import (
    ChatCompletionMessageParam,
    ChatCompletionMessageToolCallUnion,
    ChatCompletionToolParam,
)
from tests.site_up.site import MODEL

pytestmark = pytest.mark.asyncio(loop_scope="module")

NORWAY: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the capital of Norway?"}
]
PROMPT = "<|im_start|>user\nWhat is the capital of Norway?<|im_end|>\n<|im_start|>assistant\n"
OSLO = "The capital of Norway is Oslo."
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather for a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def png(pixel: Callable[[int, int], tuple[int, int, int]], size: int = 64) -> bytes:
    raw = b"".join(b"\0" + b"".join(bytes(pixel(x, y)) for x in range(size)) for y in range(size))

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def red_square_on_white(x: int, y: int) -> tuple[int, int, int]:
    inside = 16 <= x < 48 and 16 <= y < 48
    return (220, 30, 30) if inside else (245, 245, 245)


@pytest.mark.accepts("NET-9", "RT-2", "CX-18", "RM-2", "RM-3", "LAB-15", "PORT-2")
async def test_a_chat_is_answered(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model=MODEL, messages=NORWAY, temperature=0)
    assert answer.choices[0].message.content == OSLO
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == MODEL
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (18, 12)


@pytest.mark.accepts("PORT-6", "FLOW-5", "NR-9")
async def test_a_streamed_chat_says_the_same(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=NORWAY,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == OSLO
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12


async def test_usage_is_not_in_the_stream_unless_asked_for(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL, messages=NORWAY, temperature=0, stream=True
    )
    assert [chunk.usage async for chunk in stream if chunk.usage] == []


@pytest.mark.accepts("RT-2")
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_tool_is_called(client: AsyncOpenAI, streamed: bool) -> None:
    messages: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": "What is the weather in Paris?"}
    ]
    calls: Sequence[ChatCompletionMessageToolCallUnion] | None
    if streamed:
        async with client.chat.completions.stream(
            model=MODEL, messages=messages, tools=[WEATHER], temperature=0
        ) as stream:
            calls = (await stream.get_final_completion()).choices[0].message.tool_calls
    else:
        whole = await client.chat.completions.create(
            model=MODEL, messages=messages, tools=[WEATHER], temperature=0
        )
        assert whole.choices[0].finish_reason == "tool_calls"
        calls = whole.choices[0].message.tool_calls
    assert calls is not None
    call = calls[0]
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}


async def test_an_answer_follows_a_json_schema(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "user", "content": "Extract the name and age as JSON: Ada is 36 years old."}
        ],
        temperature=0,
        response_format={
            "type": "json_schema",
            "json_schema": {
                "name": "person",
                "strict": True,
                "schema": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
                    "required": ["name", "age"],
                    "additionalProperties": False,
                },
            },
        },
    )
    assert json.loads(answer.choices[0].message.content or "") == {"name": "Ada", "age": 36}


@pytest.mark.accepts("RT-1")
async def test_a_text_is_completed(client: AsyncOpenAI) -> None:
    answer = await client.completions.create(
        model=MODEL,
        prompt=PROMPT,
        temperature=0,
        max_tokens=20,
    )
    assert answer.choices[0].text.startswith("The capital of Norway")


@pytest.mark.accepts("RT-3", "RT-5")
async def test_texts_are_embedded(client: AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model=MODEL, input=["Hello!", "What is Helexa?"])
    vectors = [each.embedding for each in answer.data]
    assert [len(vector) for vector in vectors] == [128, 128]
    assert abs(sum(value * value for value in vectors[0]) - 1) < 0.01
    again = await client.embeddings.create(model=MODEL, input="Hello!")
    assert again.data[0].embedding == pytest.approx(vectors[0], abs=1e-3)


@pytest.mark.accepts("RT-4", "NR-2")
async def test_an_image_is_described(client: AsyncOpenAI) -> None:
    image = base64.b64encode(png(red_square_on_white)).decode()
    answer = await client.chat.completions.create(
        model=MODEL,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
                    {"type": "text", "text": "What is in this picture?"},
                ],
            }
        ],
        temperature=0,
    )
    content = answer.choices[0].message.content or ""
    assert "red" in content
    assert "white" in content


async def test_several_choices_are_counted_once(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model=MODEL, messages=NORWAY, temperature=0, n=2)
    assert [choice.message.content for choice in answer.choices] == [OSLO, OSLO]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (18, 24)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
async def test_every_name_of_the_token_limit_limits(client: AsyncOpenAI, name: str) -> None:
    answer = await client.chat.completions.create(
        model=MODEL, messages=NORWAY, temperature=0, extra_body={name: 3}
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


async def test_the_same_seed_gives_the_same_answer(client: AsyncOpenAI) -> None:
    answers = [
        await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Tell me a joke."}],
            temperature=1,
            seed=7,
        )
        for _ in range(2)
    ]
    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content


async def test_stop_words_and_log_probabilities_are_honoured(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model=MODEL, messages=NORWAY, temperature=0, stop=[" is"], logprobs=True, top_logprobs=2
    )
    assert answer.choices[0].message.content == "The capital of Norway"
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.content


async def test_models_are_listed(client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == [MODEL]
    assert (await client.models.retrieve(MODEL)).id == MODEL
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nobody")


async def test_an_unknown_model_is_not_found(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="nobody", messages=NORWAY)
    assert caught.value.code == "model_not_found"


async def test_a_prompt_beyond_the_context_is_refused(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "x " * 20_000}]
        )
    assert caught.value.code == "context_length_exceeded"


async def test_an_image_by_address_is_refused(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(
            model=MODEL,
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}
                    ],
                }
            ],
        )
