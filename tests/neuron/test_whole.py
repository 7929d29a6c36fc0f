# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Answers that the client wants whole, from an engine that runs as a process of its own."""

import hashlib
import json
import signal
from collections.abc import AsyncIterator

import pytest
from tests.faults.engine import MODEL as UPSTREAM
from tests.faults.engine import PacedEngine, paced_engine
from tests.faults.order import Order

from helexa.neuron.backends.interface import Backend
from helexa.neuron.backends.kinds import make_backend
from helexa.neuron.weights import ModelFiles
from helexa.neuron.whole import as_stream, finished
from helexa.protocol.errors import BackendError, BackendRejectedError, HelexaError
from helexa.protocol.frames import Frame, FrameKind, read_done, read_error, read_last_part
from helexa.protocol.messages.execution import ExecuteRequest
from helexa.protocol.messages.models import ModelConfig

from .conftest import MODEL, PATIENCE_S, Gateway, Rig, RigMaker, scripted
from .test_execution import cancel, events_of, signed_record, text_of

OURS: dict[str, object] = {"id": "chatcmpl-ours", "model": "our model"}
IDLE_WITHIN_S = 1.0
ANSWER = {
    "id": "chatcmpl-theirs",
    "created": 5,
    "model": "/their/file.gguf",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]},
        },
        {"index": 1, "message": {"reasoning_content": "hm", "content": '"id":"chatcmpl-theirs" ü'}},
    ],
    "timings": {"predicted_ms": 0.1234567890123456},
    "usage": {
        "prompt_tokens": 7,
        "completion_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 4},
    },
}


def proxied(config: ModelConfig, files: ModelFiles) -> Backend:
    del files
    return make_backend(config.model_copy(update={"backend_kind": "openai_proxy"}))


def asked(gateway: Gateway, order: Order, **changes: object) -> ExecuteRequest:
    body = {"model": MODEL, "messages": [{"role": "user", "content": order.prompt()}]}
    return gateway.request(**{"stream": False, "body": json.dumps(body).encode()} | changes)


def body_of(frames: list[Frame]) -> bytes:
    parts = [frame.payload[0] for frame in frames if frame.kind == FrameKind.BODY]
    rest = [read_last_part(frame) for frame in frames if frame.kind == FrameKind.DONE]
    return b"".join(part for part in [*parts, *rest] if isinstance(part, bytes))


@pytest.fixture
async def engine() -> AsyncIterator[PacedEngine]:
    async with paced_engine() as running:
        yield running


@pytest.fixture
async def rig(new_rig: RigMaker, nats_url: str) -> AsyncIterator[Rig]:
    async with new_rig({"home": nats_url}, make=proxied) as made:
        yield made


async def load(rig: Rig, engine: PacedEngine, *, whole_answers: bool | None = None) -> Gateway:
    config = scripted(
        listen_endpoint=engine.url, upstream_model=UPSTREAM, whole_answers=whole_answers
    )
    await rig.gateway.load(config)
    return rig.gateway


async def test_a_whole_answer_is_one_body_with_our_names_and_its_counts(
    rig: Rig, engine: PacedEngine
) -> None:
    gateway = await load(rig, engine)
    request = asked(gateway, Order(tokens=30), created=77)
    await gateway.execute(request)
    frames = await gateway.ended(request)
    body = body_of(frames)
    answer = json.loads(body)
    assert (answer["id"], answer["model"], answer["created"]) == ("chatcmpl-public", MODEL, 77)
    assert answer["choices"][0]["message"]["content"] == Order(tokens=30).text()
    usage, timings = read_done(frames[-1])
    assert (usage.prompt_tokens, usage.completion_tokens, usage.counted) == (8, 30, "backend")
    assert timings.first_token_s is None
    record = signed_record(frames[-1])
    assert record.output_sha256 == hashlib.sha256(body).hexdigest()
    assert (record.events, record.completion_tokens) == (0, 30)


async def test_a_whole_answer_that_nobody_waits_for_ends_at_once_and_costs_nothing(
    rig: Rig, engine: PacedEngine
) -> None:
    gateway = await load(rig, engine)
    request = asked(gateway, Order(tokens=100_000, pace=20))
    await gateway.execute(request)
    await engine.until(lambda counters: counters["decoding"] == 1, PATIENCE_S)
    assert await cancel(gateway, request) == "cancelled"
    assert await engine.idle(PATIENCE_S) < IDLE_WITHIN_S
    frames = await gateway.ended(request)
    assert body_of(frames) == b""
    assert signed_record(frames[-1]).completion_tokens == 0


async def test_a_backend_that_goes_on_when_it_is_left_is_asked_for_a_stream(
    rig: Rig, engine: PacedEngine
) -> None:
    gateway = await load(rig, engine, whole_answers=False)
    request = asked(gateway, Order(tokens=5))
    await gateway.execute(request)
    frames = await gateway.ended(request)
    events = [event for _, event in events_of(text_of(frames))]
    assert {event["id"] for event in events} == {"chatcmpl-public"}
    assert read_done(frames[-1])[0].completion_tokens == 5


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, BackendRejectedError.code, "as ordered"),
        (500, BackendError.code, "the backend failed (500): as ordered"),
    ],
)
async def test_a_refused_whole_answer_fails_as_a_refused_stream_does(
    rig: Rig, engine: PacedEngine, status: int, code: str, message: str, *, stream: bool
) -> None:
    gateway = await load(rig, engine)
    request = asked(gateway, Order(fail=f"status@{status}"), stream=stream)
    await gateway.execute(request)
    error = read_error((await gateway.ended(request))[-1])
    assert (error.code, error.message) == (code, message)


async def test_a_backend_that_dies_ends_a_whole_answer(rig: Rig, engine: PacedEngine) -> None:
    gateway = await load(rig, engine)
    request = asked(gateway, Order(tokens=100_000, pace=20))
    await gateway.execute(request)
    await engine.until(lambda counters: counters["decoding"] == 1, PATIENCE_S)
    await engine.stop(signal.SIGKILL)
    frames = await gateway.ended(request)
    assert read_error(frames[-1]).code == BackendError.code


async def test_a_backend_that_freezes_ends_a_whole_answer(rig: Rig, engine: PacedEngine) -> None:
    gateway = await load(rig, engine)
    request = asked(gateway, Order(tokens=100_000, pace=20))
    await gateway.execute(request)
    # It has answered a question beside this work once, so that its silence means something.
    hosted = rig.node.presence.host.find(MODEL)
    assert hosted is not None
    assert hosted.servability is not None
    await hosted.servability.ask_at_work()
    engine.process.send_signal(signal.SIGSTOP)
    gateway.patience_s = 60.0
    frames = await gateway.ended(request)
    engine.process.send_signal(signal.SIGCONT)
    assert read_error(frames[-1]).code == BackendError.code


def test_all_that_is_not_ours_stays_as_the_backend_wrote_it() -> None:
    spaced = json.dumps(ANSWER, indent=1, ensure_ascii=True).encode()
    answer, usage = finished(spaced, OURS)
    assert json.loads(answer) == ANSWER | OURS
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (7, 9, 4)


@pytest.mark.parametrize(
    ("said", "counted"),
    [
        ({"prompt_tokens": 3}, (3, 0, None, None)),
        (
            {
                "prompt_tokens": 3,
                "completion_tokens": 2,
                "prompt_tokens_details": None,
                "completion_tokens_details": {"reasoning_tokens": 1, "audio_tokens": None},
            },
            (3, 2, None, 1),
        ),
        ({"prompt_tokens": "3", "completion_tokens": 2}, (0, 2, None, None)),
        ({"prompt_tokens": 3.0, "completion_tokens": -2}, (0, 0, None, None)),
        ({"completion_tokens": 2, "prompt_tokens_details": [4]}, (0, 2, None, None)),
        (None, None),
        ([3], None),
    ],
)
def test_the_counts_are_read_as_far_as_they_are_right(
    said: object, counted: tuple[int, int, int | None, int | None] | None
) -> None:
    _, usage = finished(json.dumps({"choices": [], "usage": said}).encode(), OURS)
    if counted is None:
        assert usage is None
        return
    assert usage is not None
    tokens = (usage.prompt_tokens, usage.completion_tokens)
    assert (*tokens, usage.cached_tokens, usage.reasoning_tokens) == counted


def test_numbers_that_are_no_json_pass() -> None:
    answer, _ = finished(b'{"id":"a","choices":[{"logprobs":[-Infinity,NaN]}]}', OURS)
    assert b"-Infinity" in answer


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (b'{"error":{"message":"out of memory","code":500}}', "out of memory"),
        (b'{"id":"a","choices":null}', "without an answer"),
        (b"[1]", "without an answer"),
        (b"<html>", "without an answer"),
        (b"", "without an answer"),
    ],
)
def test_what_is_no_answer_is_a_failure(said: bytes, message: str) -> None:
    with pytest.raises(HelexaError, match=message):
        finished(said, OURS)


def test_a_request_becomes_one_for_a_stream_that_counts() -> None:
    asked_for = json.loads(as_stream(b'{"model":"m","stream":false,"messages":[]}'))
    assert asked_for["stream"] is True
    assert asked_for["stream_options"] == {"include_usage": True}
    assert asked_for["messages"] == []
