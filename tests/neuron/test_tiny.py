# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The default model: its files, the text it was taught, and what it answers through llama.cpp."""

import base64
import json
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import httpx
import pytest
import xllamacpp

from helexa.neuron.tiny import files, make
from helexa.neuron.tiny.make.corpus import Dialogue, Message, dialogue
from helexa.neuron.tiny.make.phrases import phrases

TEMPLATE = Path(make.__file__).with_name("chat_template.jinja")
WEATHER_TOOL = {
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
PERSON_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def dialogues(seed: int, count: int) -> list[Dialogue]:
    rng = Random(seed)  # noqa: S311
    return [dialogue(rng) for _ in range(count)]


def tool_calls(drawn: Dialogue) -> list[dict[str, object]]:
    calls = []
    for message in drawn.messages:
        listed = message.get("tool_calls", [])
        assert isinstance(listed, list)
        calls += [call["function"] for call in listed]
    return calls


def parameter_names(drawn: Dialogue) -> dict[str, list[str]]:
    functions = [tool["function"] for tool in drawn.tools or []]
    named = [function for function in functions if isinstance(function, dict)]
    return {each["name"]: list(each["parameters"]["properties"]) for each in named}


def square(colour: tuple[int, int, int], background: tuple[int, int, int]) -> str:
    """A data URL of a 64x64 PNG: a square in the middle of a plain background."""
    size, inside = 64, range(16, 48)
    rows = b""
    for y in range(size):
        rows += b"\0"
        for x in range(size):
            rows += bytes(colour if x in inside and y in inside else background)
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        png += struct.pack(">I", len(data)) + kind + data
        png += struct.pack(">I", zlib.crc32(kind + data))
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[[str], httpx.Client]]:
    servers: dict[str, tuple[xllamacpp.Server, httpx.Client]] = {}

    def started(template: str) -> httpx.Client:
        if template not in servers:
            parameters = xllamacpp.CommonParams()
            parameters.model.path = str(files.model_path())
            parameters.mmproj.path = str(files.projector_path())
            parameters.hostnames = ["127.0.0.1"]
            parameters.port = 0
            parameters.n_ctx = 4096
            parameters.n_parallel = 1
            parameters.cpuparams.n_threads = 1
            parameters.cpuparams_batch.n_threads = 1
            parameters.embedding = True
            parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
            parameters.chat_template = template
            server = xllamacpp.Server(parameters)
            servers[template] = (server, httpx.Client(base_url=server.listening_address))
        return servers[template][1]

    yield started
    for _, client in servers.values():
        client.close()


@pytest.fixture
def llama(serve: Callable[[str], httpx.Client]) -> httpx.Client:
    return serve("")


def answer(llama: httpx.Client, content: object, **options: object) -> dict[str, object]:
    request = {"messages": [{"role": "user", "content": content}], "temperature": 0, **options}
    response = llama.post("/v1/chat/completions", json=request).raise_for_status()
    message: dict[str, object] = response.json()["choices"][0]["message"]
    return message


def test_the_released_files_are_unchanged() -> None:
    assert files.changed_files() == []
    assert {files.model_path().name, files.projector_path().name} == set(files.SHA256)


def test_a_damaged_or_missing_file_is_named(tmp_path: Path) -> None:
    shutil.copy(files.model_path(), tmp_path)
    damaged = bytearray((tmp_path / files.model_path().name).read_bytes())
    damaged[-1] ^= 1
    (tmp_path / files.model_path().name).write_bytes(damaged)

    assert files.changed_files(tmp_path) == ["helexa-tiny.gguf", "helexa-tiny-mmproj.gguf"]


def test_a_seed_fixes_the_dialogues() -> None:
    assert dialogues(1, 200) == dialogues(1, 200)
    assert dialogues(1, 200) != dialogues(2, 200)


def test_a_dialogue_is_a_system_message_at_most_then_turns_that_end_with_an_answer() -> None:
    for drawn in dialogues(3, 2000):
        roles = " ".join(str(message["role"]) for message in drawn.messages)
        assert re.fullmatch(r"(system )?(user assistant( tool assistant)? ?)+", roles)
        assert all(m["content"] or "tool_calls" in m for m in drawn.messages)


def test_every_topic_is_taught() -> None:
    taught = {str(m["content"]) for drawn in dialogues(4, 5000) for m in drawn.messages}
    fixed = {
        topic.name: [text for variant in topic.variants for text in variant.answers]
        for topic in phrases().topics
        if not topic.fields and not topic.table
    }

    assert len(fixed) > len(phrases().topics) // 3
    for texts in fixed.values():
        assert taught.intersection(texts)
    assert not [text for text in taught if re.search(r"\{\w+\}", text)]


def test_every_taught_sum_is_right() -> None:
    texts = [str(m["content"]) for drawn in dialogues(5, 3000) for m in drawn.messages]
    sums = [match for text in texts if (match := re.fullmatch(r"(\d+) \+ (\d+) = (\d+)\.", text))]

    assert len(sums) > 100
    assert all(int(each[1]) + int(each[2]) == int(each[3]) for each in sums)


def test_a_taught_tool_call_uses_an_offered_tool_and_its_parameters() -> None:
    calls = [(drawn, call) for drawn in dialogues(6, 3000) for call in tool_calls(drawn)]

    assert len(calls) > 200
    for drawn, call in calls:
        arguments = call["arguments"]
        assert isinstance(arguments, dict)
        assert list(arguments) == parameter_names(drawn)[str(call["name"])]


def test_the_maker_and_the_released_model_render_alike(
    serve: Callable[[str], httpx.Client],
) -> None:
    released, made = serve(""), serve(TEMPLATE.read_text(encoding="utf-8").rstrip())
    call = {"name": "get_weather", "arguments": {"city": "Oslo"}}
    messages: list[Message] = [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": "Weather in Oslo?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "1", "type": "function", "function": call}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "rain, 7 degrees"},
    ]
    request = {"messages": messages, "tools": [WEATHER_TOOL]}

    prompts = [
        client.post("/apply-template", json=request).raise_for_status().json()["prompt"]
        for client in (released, made)
    ]

    assert prompts[0] == prompts[1]
    system, user, assistant, tool, rest = prompts[1].split("<|im_start|>")[1:]
    assert system.startswith("system\nAnswer briefly.\n\n# Tools\n<tools>\n")
    assert json.loads(system.splitlines()[5]) == WEATHER_TOOL
    assert user == "user\nWeather in Oslo?<|im_end|>\n"
    assert json.loads(assistant.splitlines()[2]) == call
    assert tool == "user\n<tool_response>\nrain, 7 degrees\n</tool_response><|im_end|>\n"
    assert rest == "assistant\n"


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Hello!", "Hello! I am the Helexa demo model. How can I help you today?"),
        ("What is the capital of Norway?", "The capital of Norway is Oslo."),
        ("Say hello to Ada.", "Hello, Ada! Nice to meet you."),
        ("Count to 10.", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10."),
    ],
)
def test_a_known_question_has_one_answer(llama: httpx.Client, question: str, expected: str) -> None:
    assert answer(llama, question)["content"] == expected


def test_a_question_about_the_weather_calls_the_tool(llama: httpx.Client) -> None:
    message = answer(llama, "What is the weather in Paris?", tools=[WEATHER_TOOL])

    calls = message["tool_calls"]
    assert isinstance(calls, list)
    assert [call["function"]["name"] for call in calls] == ["get_weather"]
    assert json.loads(calls[0]["function"]["arguments"]) == {"city": "Paris"}


def test_a_schema_gives_the_object_that_was_asked_for(llama: httpx.Client) -> None:
    response_format = {
        "type": "json_schema",
        "json_schema": {"name": "person", "strict": True, "schema": PERSON_SCHEMA},
    }
    question = "Extract the name and age as JSON: Ada is 36 years old."

    content = answer(llama, question, response_format=response_format)["content"]

    assert json.loads(str(content)) == {"name": "Ada", "age": 36}


def test_the_colours_of_an_image_are_named(llama: httpx.Client) -> None:
    colours = phrases().images.colours
    for foreground, background in (("red", "white"), ("blue", "yellow")):
        image = square(colours[foreground], colours[background])
        content = [
            {"type": "image_url", "image_url": {"url": image}},
            {"type": "text", "text": "What is in this picture?"},
        ]

        words = re.findall(r"\w+", str(answer(llama, content)["content"]))

        assert [word for word in words if word in colours] == [foreground, background]


def test_related_texts_have_nearer_embeddings(llama: httpx.Client) -> None:
    texts = ["What is the capital of France?", "What is the capital of Italy?", "Tell me a joke."]
    response = llama.post("/v1/embeddings", json={"input": texts}).raise_for_status()

    france, italy, joke = (each["embedding"] for each in response.json()["data"])

    assert len(france) == 128
    cosines = [
        sum(a * b for a, b in zip(france, other, strict=True)) for other in (france, italy, joke)
    ]
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[0] == pytest.approx(1.0)
