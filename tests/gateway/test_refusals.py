# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Everything that is not answered is refused in one shape, and says what to do."""

import hashlib
import json
import stat
from pathlib import Path

import httpx
import openai
import pytest
from openai import AsyncOpenAI
from tests.gateway.conftest import MODEL, Site
from tests.gateway.roles import Neuron, Run, gateway

from helexa.gateway.settings import GatewaySettings
from helexa.process.settings import SettingsError, load_settings
from helexa.protocol.errors import (
    BackendError,
    BackendRejectedError,
    ContextLengthError,
    ErrorReply,
    HelexaError,
    InternalError,
    ModelFailedError,
    UnlistedError,
)

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": "hi"}
OK = {"model": MODEL, "messages": [USER]}


def with_part(part: object) -> dict[str, object]:
    return {"model": MODEL, "messages": [{"role": "user", "content": [part]}]}


def image(url: str) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": url}}


BAD_CHATS = {
    "no messages": ({"model": MODEL}, "messages"),
    "empty messages": (OK | {"messages": []}, "messages"),
    "messages of a wrong type": (OK | {"messages": "hi"}, "messages"),
    "a message of a wrong type": (OK | {"messages": ["hi"]}, "messages[0]"),
    "unknown role": (OK | {"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    "no role": (OK | {"messages": [{"content": "x"}]}, "messages[0].role"),
    "content of a wrong type": (
        OK | {"messages": [{"role": "user", "content": 5}]},
        "messages[0].content",
    ),
    "a part without a type": (with_part({"text": "x"}), "messages[0].content[0].type"),
    "text that is none": (with_part({"type": "text"}), "messages[0].content[0].text"),
    "a file": (with_part({"type": "file", "file": {}}), "messages[0].content[0].type"),
    "temperature as text": (OK | {"temperature": "hot"}, "temperature"),
    "a boolean for a number": (OK | {"top_p": True}, "top_p"),
    "a fraction for a count": (OK | {"max_tokens": 1.5}, "max_tokens"),
    "no tokens": (OK | {"max_tokens": 0}, "max_tokens"),
    "fewer than no tokens": (OK | {"max_completion_tokens": -1}, "max_completion_tokens"),
    "no answers": (OK | {"n": 0}, "n"),
    "too many answers": (OK | {"n": 1000}, "n"),
    "stream as text": (OK | {"stream": "yes"}, "stream"),
    "a stop that is no text": (OK | {"stop": ["a", 1]}, "stop[1]"),
    "tools that are no list": (OK | {"tools": {}}, "tools"),
    "a tool that is none": (OK | {"tools": ["x"]}, "tools[0]"),
    "a response format as text": (OK | {"response_format": "json"}, "response_format"),
    "model of a wrong type": (OK | {"model": 5}, "model"),
    "no model": ({"messages": [USER]}, "model"),
    "http image": (with_part(image("http://10.0.0.1/x.png")), "messages[0].content[0].image_url"),
    "https image": (with_part(image("https://a/x.png")), "messages[0].content[0].image_url"),
    "file image": (with_part(image("file:///etc/passwd")), "messages[0].content[0].image_url"),
    "video by address": (
        with_part({"type": "video_url", "video_url": {"url": "https://a/x"}}),
        "messages[0].content[0].video_url",
    ),
    "image for a text model": (with_part(image("data:image/png;base64,AA==")), "messages"),
    "audio for a text model": (
        with_part({"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}),
        "messages",
    ),
}
BAD_OTHERS = {
    "no prompt": ("/v1/completions", {"model": MODEL}, "prompt"),
    "several prompts": ("/v1/completions", {"model": MODEL, "prompt": ["a", "b"]}, "prompt"),
    "a prompt in tokens": ("/v1/completions", {"model": MODEL, "prompt": [1, 2]}, "prompt"),
    "no input": ("/v1/embeddings", {"model": MODEL}, "input"),
    "empty input": ("/v1/embeddings", {"model": MODEL, "input": []}, "input"),
    "mixed input": ("/v1/embeddings", {"model": MODEL, "input": ["a", 1]}, "input[0]"),
    "input of a wrong type": ("/v1/embeddings", {"model": MODEL, "input": {}}, "input"),
    "an unknown encoding": (
        "/v1/embeddings",
        {"model": MODEL, "input": "a", "encoding_format": "hex"},
        "encoding_format",
    ),
    "a length of vectors": (
        "/v1/embeddings",
        {"model": MODEL, "input": "a", "dimensions": 8},
        "dimensions",
    ),
}
UNREADABLE = {
    "no JSON": b"{",
    "nothing": b"",
    "a list": b"[]",
    "text": b'"hi"',
    "no UTF-8": b'{"model": "\xff"}',
    "not a number": b'{"temperature": NaN}',
    "nested without end": b"[" * 100_000,
}


def checked(answer: httpx.Response) -> dict[str, str | None]:
    """Return the error after seeing that its shape is OpenAI's."""
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    assert "helexa." not in body["error"]["message"]
    assert answer.headers["x-request-id"]
    error: dict[str, str | None] = body["error"]
    return error


@pytest.mark.accepts("FLOW-1")
async def test_a_chat_that_cannot_be_understood_is_400_and_names_the_field(
    http: httpx.AsyncClient, neuron: Neuron
) -> None:
    for name, (body, param) in BAD_CHATS.items():
        answer = await http.post(CHAT, json=body)
        error = checked(answer)
        assert (answer.status_code, error["param"]) == (400, param), (name, error)
        assert error["type"] == "invalid_request_error"
        assert answer.headers["x-should-retry"] == "false"
    assert neuron.runs == []


async def test_other_requests_that_cannot_be_understood_are_400(
    http: httpx.AsyncClient, neuron: Neuron
) -> None:
    for name, (path, body, param) in BAD_OTHERS.items():
        answer = await http.post(path, json=body)
        assert (answer.status_code, checked(answer)["param"]) == (400, param), name
    assert neuron.runs == []


@pytest.mark.accepts("FLOW-1")
async def test_a_body_that_is_no_json_object_is_400(http: httpx.AsyncClient) -> None:
    for name, body in UNREADABLE.items():
        answer = await http.post(CHAT, content=body)
        assert (answer.status_code, checked(answer)["type"]) == (400, "invalid_request_error"), name


async def test_an_image_by_address_is_told_apart(http: httpx.AsyncClient) -> None:
    answer = await http.post(CHAT, json=with_part(image("http://a/b.png")))
    assert checked(answer)["code"] == "invalid_image_url"


async def test_unusual_but_valid_messages_are_taken(
    http: httpx.AsyncClient, neuron: Neuron
) -> None:
    called = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    messages: list[dict[str, object]] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": None},
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "2"}]},
        {"role": "assistant"},
        {"role": "user", "content": "ok \ud83d", "name": "me"},
    ]
    extra = {"top_k": 3, "grammar": "root ::= x", "seed": None, "helexa": {"session": "s"}}
    # A lone surrogate is valid JSON text, and must not break what is passed on.
    content = json.dumps(OK | {"messages": messages} | extra)
    answer = await http.post(CHAT, content=content.encode())
    assert answer.status_code == 200, answer.text
    sent = json.loads(neuron.runs[-1].request.body)
    assert [each["role"] for each in sent["messages"]] == [
        "system", "user", "assistant", "tool", "assistant", "user",
    ]  # fmt: skip
    assert sent["messages"][1]["content"] == ""
    assert sent["messages"][2]["content"] is None
    assert sent["messages"][2]["tool_calls"][0]["function"]["arguments"] == '{"a": 1}'
    assert (sent["top_k"], sent["grammar"]) == (3, "root ::= x")
    assert "helexa" not in sent
    assert "seed" not in sent


async def test_unknown_models_and_paths_and_methods(http: httpx.AsyncClient) -> None:
    unknown = await http.post(CHAT, json=OK | {"model": "nobody/knows"})
    assert (unknown.status_code, checked(unknown)["code"]) == (404, "model_not_found")
    nowhere = await http.get("/v1/nowhere")
    assert (nowhere.status_code, checked(nowhere)["code"]) == (404, "not_found")
    wrong = await http.get(CHAT)
    assert (wrong.status_code, checked(wrong)["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"
    probe = await http.post("/livez")
    assert (probe.status_code, checked(probe)["code"]) == (405, "method_not_allowed")


async def test_a_body_that_is_too_large_is_413_before_it_is_read(site: Site) -> None:
    await site.neuron()
    http = site.http(await site.gateway(max_body_bytes=1000))

    async def endless() -> object:
        yield b"{"
        while True:
            yield b" " * 600

    answer = await http.post(CHAT, content=b" " * 1001)
    assert (answer.status_code, checked(answer)["code"]) == (413, "request_too_large")
    answer = await http.post(CHAT, content=b" " * 1000)
    assert answer.status_code == 400
    try:
        answer = await http.post(CHAT, content=endless())  # type: ignore[arg-type]
    except httpx.NetworkError:
        return
    assert answer.status_code == 413


@pytest.mark.accepts("CX-18")
async def test_a_key_is_needed_where_one_is_set(site: Site) -> None:
    await site.neuron()
    digest = hashlib.sha256(b"sk-hx-right").hexdigest()
    running = await site.gateway(api_keys=(digest,), open=None)
    nobody = site.http(running)
    for path in (CHAT, "/v1/models", "/v1/streams/aaaa.bbbb"):
        answer = await (nobody.post(path, json=OK) if path == CHAT else nobody.get(path))
        error = checked(answer)
        assert answer.status_code == 401, path
        assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
    wrong = await nobody.post(CHAT, json=OK, headers={"authorization": "Bearer sk-hx-wrong"})
    assert wrong.status_code == 401
    for header in (
        {"authorization": "Bearer sk-hx-right"},
        {"authorization": "bearer sk-hx-right"},
        {"x-api-key": "sk-hx-right"},
        {"api-key": "sk-hx-right"},
    ):
        right = await nobody.post(CHAT, json=OK, headers=header)
        assert right.status_code == 200, header
    for path in ("/livez", "/readyz", "/health", "/metrics"):
        assert (await nobody.get(path)).status_code == 200
    with pytest.raises(openai.AuthenticationError):
        await site.client(running, "sk-hx-wrong").models.list()


async def test_the_first_start_on_a_public_socket_makes_one_key(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    await site.neuron()
    async with gateway(site.broker.url, site.data_dir, socket="0.0.0.0:0") as first:
        key = capsys.readouterr().out.split()[-1]
        assert key.startswith("sk-hx-")
        assert (await site.http(first).get("/v1/models")).status_code == 401
        assert (await site.http(first, key).get("/v1/models")).status_code == 200
    kept = site.data_dir / "secrets" / "gateway.key"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    async with gateway(site.broker.url, site.data_dir, socket="0.0.0.0:0") as second:
        assert capsys.readouterr().out == ""
        assert (await site.http(second, key).get("/v1/models")).status_code == 200


def test_a_key_in_place_of_its_digest_is_refused_at_the_start() -> None:
    with pytest.raises(SettingsError, match="SHA-256"):
        load_settings(GatewaySettings, {"api_keys": ("sk-hx-plain",)}, environment={})


FAILURES: tuple[tuple[HelexaError, int, str], ...] = (
    (BackendRejectedError("bad grammar", status=400), 400, "backend_rejected"),
    (BackendRejectedError("odd", status=422), 422, "backend_rejected"),
    (BackendRejectedError("hidden", status=401), 400, "backend_rejected"),
    (ContextLengthError("too long", param="messages"), 400, "context_length_exceeded"),
    (InternalError(), 500, "internal"),
    (BackendError("it broke"), 502, "backend_failed"),
    (ModelFailedError("no"), 502, "model_failed"),
    (UnlistedError(ErrorReply(code="new", message="of a newer version")), 500, "new"),
)


@pytest.mark.parametrize("stream", [True, False])
async def test_what_a_neuron_says_before_the_first_event_is_a_status(
    site: Site, neuron: Neuron, http: httpx.AsyncClient, *, stream: bool
) -> None:
    for error, status, code in FAILURES:

        async def script(run: Run, error: HelexaError = error) -> None:
            await run.fail(error)

        neuron.script = script
        answer = await http.post(CHAT, json=OK | {"stream": stream})
        assert (answer.status_code, checked(answer)["code"]) == (status, code)
    assert site.scheduler.asked


async def test_a_stream_that_breaks_ends_in_an_error_and_without_the_end_mark(
    client: AsyncOpenAI, http: httpx.AsyncClient, neuron: Neuron
) -> None:
    async def script(run: Run) -> None:
        await run.say("half")
        await run.fail(BackendError("the runtime ended"))

    neuron.script = script
    answer = await http.post(CHAT, json=OK | {"stream": True})
    assert answer.status_code == 200
    last = answer.text.rstrip("\n").rpartition("\n\n")[2]
    error = json.loads(last.removeprefix("data: "))["error"]
    assert error["code"] == "backend_failed"
    assert "retry_after" in error
    assert "[DONE]" not in answer.text
    assert len(neuron.runs) == 1
    stream = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "hi"}], stream=True
    )
    with pytest.raises(openai.APIError, match="the runtime ended"):
        async for _ in stream:
            pass


async def test_before_nats_is_up_the_gateway_lives_and_says_so(
    tmp_path: Path, unused_nats_url: str
) -> None:
    async with (
        gateway(unused_nats_url, tmp_path) as running,
        httpx.AsyncClient(base_url=running.url) as http,
    ):
        assert (await http.get("/livez")).status_code == 200
        ready = await http.get("/readyz")
        assert ready.status_code == 503
        assert "nats" in ready.json()["missing"]
        answer = await http.post(CHAT, json=OK)
        assert answer.status_code == 503
        checked(answer)
        assert 1 <= int(answer.headers["retry-after"]) <= 120
        assert answer.headers["x-should-retry"] == "true"


async def test_an_answer_without_anything_in_it_is_an_error(
    neuron: Neuron, http: httpx.AsyncClient
) -> None:
    async def script(run: Run) -> None:
        await run.events({"choices": "not a list"})
        await run.done()

    neuron.script = script
    answer = await http.post(CHAT, json=OK)
    assert (answer.status_code, checked(answer)["code"]) == (502, "backend_failed")
