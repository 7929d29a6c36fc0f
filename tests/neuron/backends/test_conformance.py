# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What every backend does alike, shown with the default model behind each kind."""

import asyncio
import json
import os
import struct
import sys
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil
import pytest

from helexa.neuron.backends.interface import (
    Backend,
    ChatInference,
    EmbeddingInference,
    EventStream,
    TextInference,
    VisionInference,
    WholeInference,
)
from helexa.neuron.backends.kinds import BACKEND_KINDS, make_backend
from helexa.neuron.tiny import files
from helexa.protocol.errors import (
    BackendError,
    BackendRejectedError,
    ContextLengthError,
    HelexaError,
)
from helexa.protocol.messages.models import BackendKind, ModelConfig

NAME = "org/tiny v1"
PATIENCE_S = 30.0
CHILD = (sys.executable, "-P", "-m", "helexa.neuron.backends.llama_child")
SERVE = (
    *("--host", "${HOST}", "--port", "${PORT}", "--alias", "${MODEL}", "-m", "${MODEL_PATH}"),
    *("--mmproj", str(files.projector_path()), "-c", "8192", "-np", "2", "-t", "1"),
    *("--threads-http", "8", "--embeddings", "--pooling", "mean", "--metrics"),
)
WEATHER = {
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
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
VLLM = """#!{python}
# vLLM's command line and key, in front of the server that the other kinds run.
import os, sys
from pathlib import Path
verb, weights, *flags = sys.argv[1:]
given = dict(zip(flags[::2], flags[1::2], strict=True))
assert verb == "serve"
key = Path(__file__).with_name("key")
key.write_text(os.environ["VLLM_API_KEY"])
slots, context = given["--max-num-seqs"], given["--max-model-len"]
os.execv(sys.executable, [
    sys.executable, "-m", "helexa.neuron.backends.llama_child", "-m", weights, "-np", slots,
    "-c", str(int(slots) * int(context)), "--host", given["--host"], "--port", given["--port"],
    "--alias", given["--served-model-name"], "--api-key-file", str(key), "--embeddings",
    "--pooling", "mean", "-t", "1", "--threads-http", "8", "--mmproj", {projector!r}, "--metrics",
])
"""

Chat = Callable[..., bytes]


def config(kind: str, **more: object) -> ModelConfig:
    return ModelConfig.model_validate({"model": NAME, "backend_kind": kind, "slots": 2} | more)


async def started(config: ModelConfig) -> Backend:
    backend = make_backend(
        config, model_path=files.model_path(), projector_path=files.projector_path()
    )
    async with asyncio.timeout(PATIENCE_S):
        await backend.start(lambda _share: None)
    return backend


def vllm_in(folder: Path) -> tuple[str, str]:
    """Install a `vllm` and return how to call it."""
    program = folder / "vllm"
    program.write_text(VLLM.format(python=sys.executable, projector=str(files.projector_path())))
    program.chmod(0o700)
    return str(program), "serve"


@asynccontextmanager
async def foreign_server(folder: Path) -> AsyncIterator[dict[str, object]]:
    """Run a server that is not ours; where it is, as a proxy's configuration says it."""
    key = folder / "key"
    key.write_text("the-key\n")
    filled = {"${HOST}": "127.0.0.1", "${PORT}": "0", "${MODEL}": "their-name"}
    filled["${MODEL_PATH}"] = str(files.model_path())
    words = [filled.get(word, word) for word in (*CHILD, *SERVE)]
    process = await asyncio.create_subprocess_exec(
        *words, "--api-key-file", str(key), stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    found = address = b""
    while not found:
        line = await process.stderr.readline()
        assert line, "the server ended"
        # llama.cpp may have written the beginning of another line first.
        _, found, address = line.partition(b"serving on ")
    yield {
        "listen_endpoint": address.decode().strip(),
        "upstream_model": "their-name",
        "api_key_file": str(key),
    }
    process.terminate()
    await process.communicate()


@pytest.fixture(params=BACKEND_KINDS)
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    """A running backend of each kind."""
    kind: str = request.param
    async with AsyncExitStack() as behind:
        more: dict[str, object] = {}
        if kind == BackendKind.COMMAND:
            more = {"command": CHILD, "args": SERVE}
        elif kind == BackendKind.VLLM:
            more = {"command": vllm_in(tmp_path), "context_tokens": 4096}
        elif kind == BackendKind.OPENAI_PROXY:
            more = await behind.enter_async_context(foreign_server(tmp_path))
        backend = await started(config(kind, **more))
        yield backend
        await backend.stop(5)
    assert not _zombies()


def _zombies() -> list[psutil.Process]:
    family = psutil.Process().children(recursive=True)
    return [each for each in family if each.status() == psutil.STATUS_ZOMBIE]


async def read(stream: EventStream) -> list[dict[str, object]]:
    return [json.loads(event) async for batch in stream for event in batch]


def text_of(chunks: list[dict[str, object]]) -> str:
    found = ""
    for chunk in chunks:
        for choice in _listed(chunk["choices"]):
            delta = choice.get("delta")
            found += str((delta if isinstance(delta, dict) else choice).get("content") or "")
            found += str(choice.get("text") or "")
    return found


def _listed(value: object) -> list[dict[str, object]]:
    assert isinstance(value, list)
    return value


def png(colour: tuple[int, int, int], background: tuple[int, int, int]) -> str:
    """A data URL of a square on a plain background, 64 pixels wide."""
    inside = range(16, 48)
    rows = b"".join(
        b"\0"
        + b"".join(bytes(colour if x in inside and y in inside else background) for x in range(64))
        for y in range(64)
    )
    data = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    for kind, part in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        data += struct.pack(">I", len(part)) + kind + part
        data += struct.pack(">I", zlib.crc32(kind + part))
    return f"data:image/png;base64,{b64encode(data).decode()}"


@pytest.mark.accepts("RT-1", "RT-2", "RT-3", "RT-4", "RT-5", "RT-6", "NR-2", "NR-7", "NR-9")
@pytest.mark.accepts("PORT-2", "PORT-3", "PORT-4", "PORT-6", "FLOW-4")
async def test_every_kind_serves_every_kind_of_work(backend: Backend, chat: Chat) -> None:
    assert isinstance(backend, ChatInference)
    assert isinstance(backend, TextInference)
    assert isinstance(backend, EmbeddingInference)
    assert isinstance(backend, VisionInference)
    assert isinstance(backend, WholeInference)
    await backend.probe()
    assert backend.slots == 2
    assert backend.capability.max_context_tokens == 4096

    await _chats(backend, chat)
    await _completes(backend)
    await _embeds(backend)
    await _describes(backend, chat)
    await _answers_whole(backend, chat)


async def _chats(backend: ChatInference, chat: Chat) -> None:
    usage = {"stream_options": {"include_usage": True}}
    chunks = await read(await backend.chat(chat("What is the capital of Norway?", **usage)))
    assert text_of(chunks) == "The capital of Norway is Oslo."
    assert {chunk["model"] for chunk in chunks} == {NAME}
    counted = chunks[-1]["usage"]
    assert isinstance(counted, dict)
    assert (counted["prompt_tokens"], counted["completion_tokens"]) == (18, 12)

    called = await read(await backend.chat(chat("What is the weather in Paris?", tools=[WEATHER])))
    assert "get_weather" in json.dumps(called)
    assert _listed(called[-1]["choices"])[0]["finish_reason"] == "tool_calls"

    schema = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    asked = "Extract the name and age as JSON: Ada is 36 years old."
    answered = text_of(await read(await backend.chat(chat(asked, response_format=schema))))
    assert json.loads(answered) == {"name": "Ada", "age": 36}


async def _completes(backend: TextInference) -> None:
    prompt = "<|im_start|>user\nRepeat after me: banana<|im_end|>\n<|im_start|>assistant\n"
    body = {"prompt": prompt, "temperature": 0, "stream": True, "max_tokens": 4}
    assert text_of(await read(await backend.complete(json.dumps(body).encode()))) == "banana"


async def _embeds(backend: EmbeddingInference) -> None:
    body = json.dumps({"input": ["Hello!", "What is Helexa?", "Hello!"]}).encode()
    answer = json.loads(await backend.embed(body))
    first, other, again = (entry["embedding"] for entry in answer["data"])
    assert answer["model"] == NAME
    assert len(first) == 128
    assert first == pytest.approx(again, abs=1e-4)
    assert first != pytest.approx(other, abs=1e-2)


async def _describes(backend: VisionInference, chat: Chat) -> None:
    image = {"type": "image_url", "image_url": {"url": png((220, 30, 30), (245, 245, 245))}}
    question = {"type": "text", "text": "What is in this picture?"}
    seen = text_of(await read(await backend.describe(chat([image, question]))))
    assert seen == "I see a red square on a white background."


async def _answers_whole(backend: WholeInference, chat: Chat) -> None:
    answer = json.loads(await backend.answer_chat(chat("Hello!", stream=False)))
    said = answer["choices"][0]["message"]["content"]
    assert said.startswith("Hello")
    body = {"prompt": "Hello", "temperature": 0, "max_tokens": 2}
    answer = json.loads(await backend.answer_completion(json.dumps(body).encode()))
    assert answer["usage"]["completion_tokens"] == 2


async def test_only_a_runtime_that_stops_when_it_is_left_is_asked_for_whole_answers(
    backend: Backend,
) -> None:
    # Behind each kind stands llama.cpp, which does not; vLLM is known to.
    assert isinstance(backend, WholeInference)
    assert backend.stops_when_left == (backend.config.backend_kind == BackendKind.VLLM)


@pytest.mark.accepts("NR-7", "PORT-6")
async def test_every_kind_refuses_cancels_and_ends_alike(backend: Backend, chat: Chat) -> None:
    assert isinstance(backend, ChatInference)
    with pytest.raises(ContextLengthError):
        await backend.chat(chat("x " * 5000))
    with pytest.raises(BackendRejectedError) as refusal:
        await backend.chat(b'{"stream": true}')
    assert refusal.value.details["status"] == 400
    assert not refusal.value.retryable

    endless = chat("Hello!", logit_bias={"2": -100}, max_tokens=4000)
    running = [await backend.chat(endless) for _ in range(backend.slots)]
    for stream in running:
        assert await anext(aiter(stream))
    await backend.probe()
    for stream in running:
        await stream.aclose()
    # Both slots are free again at once, or this would wait for 4,000 tokens.
    async with asyncio.timeout(1.0):
        answers = await asyncio.gather(
            *(backend.chat(chat("Hello!", max_tokens=2)) for _ in range(backend.slots))
        )
    for stream in answers:
        assert text_of(await read(stream))

    cut = await backend.chat(endless)
    await anext(aiter(cut))
    await backend.stop(5)
    with pytest.raises(BackendError, match="end mark"):
        await read(cut)
    assert not backend.died.is_set()
    for ask in (backend.probe, lambda: backend.chat(endless)):
        with pytest.raises(HelexaError):
            await ask()


@pytest.mark.accepts("NR-8", "PORT-7")
@pytest.mark.parametrize(
    "backend", [BackendKind.LLAMA_CPP, BackendKind.COMMAND, BackendKind.VLLM], indirect=True
)
async def test_a_backend_whose_process_dies_says_so_and_starts_again(
    backend: Backend, chat: Chat
) -> None:
    assert isinstance(backend, ChatInference)
    stream = await backend.chat(chat("Hello!", logit_bias={"2": -100}, max_tokens=4000))
    await anext(aiter(stream))
    runtime = psutil.Process().children(recursive=True)[-1]
    assert 10_000_000 < (backend.memory_bytes() or 0) < 300_000_000
    os.kill(runtime.pid, 9)

    with pytest.raises(BackendError, match="end mark"):
        await read(stream)
    async with asyncio.timeout(PATIENCE_S):
        await backend.died.wait()
    with pytest.raises(BackendError):
        await backend.probe()
    assert "task" in backend.last_words()
    await backend.start(lambda _share: None)
    assert not backend.died.is_set()
    assert text_of(await read(await backend.chat(chat("Thank you!")))) == "You are welcome!"
