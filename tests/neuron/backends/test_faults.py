# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What the error answers of several runtimes become."""

import json
import logging

import pytest

from helexa.neuron.backends.faults import cleaned, error_of_event, error_of_response
from helexa.protocol.errors import (
    BackendError,
    BackendRejectedError,
    BusyError,
    ContextLengthError,
    HelexaError,
    ModelLoadingError,
    UnsupportedError,
)


def llama(code: int, message: str, kind: str, **more: object) -> dict[str, object]:
    return {"error": {"code": code, "message": message, "type": kind, **more}}


LLAMA_TOO_LONG = llama(
    400,
    "request (5010 tokens) exceeds the available context size (4096 tokens)",
    "exceed_context_size_error",
    n_prompt_tokens=5010,
    n_ctx=4096,
)
VLLM_TOO_LONG = {
    "object": "error",
    "message": "This model's maximum context length is 2048 tokens. However, you requested 3000.",
    "type": "BadRequestError",
    "param": None,
    "code": 400,
}
LLAMA_BATCH = llama(500, "input is too large to process. increase the batch size", "server_error")
LLAMA_IMAGE = llama(500, "image input is not supported - hint: provide mmproj", "server_error")
LLAMA_LOADING = llama(503, "Loading model", "unavailable_error")
LLAMA_NO_EMBEDDINGS = llama(501, "This server does not support it", "not_supported_error")
LLAMA_BAD = llama(400, "'messages' is required", "invalid_request_error")
OPENAI_KEY = {"error": {"message": "Incorrect API key sk-abcdefgh", "code": "invalid_api_key"}}
OPENAI_MODEL = {"error": {"message": "no such model", "code": "model_not_found"}}
FASTAPI = {"detail": [{"loc": ["body", "model"], "msg": "Field required"}]}


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (400, LLAMA_TOO_LONG, ContextLengthError, "exceeds the available context"),
        (400, VLLM_TOO_LONG, ContextLengthError, "maximum context length is 2048"),
        (500, LLAMA_BATCH, ContextLengthError, "too large"),
        (500, LLAMA_IMAGE, UnsupportedError, "image input"),
        (501, LLAMA_NO_EMBEDDINGS, UnsupportedError, "does not support"),
        (503, LLAMA_LOADING, ModelLoadingError, "being loaded"),
        (400, LLAMA_BAD, BackendRejectedError, "'messages' is required"),
        (422, FASTAPI, BackendRejectedError, "Field required"),
        (400, {"error": "no prompt"}, BackendRejectedError, "no prompt"),
        (418, None, BackendRejectedError, "refused the request"),
        (429, None, BusyError, "busy"),
        (401, OPENAI_KEY, BackendError, "refused our key"),
        (403, None, BackendError, "refused our key"),
        (404, OPENAI_MODEL, BackendError, "does not know"),
        (408, None, BackendError, "gave up waiting"),
        (500, None, BackendError, r"failed \(500\)"),
        (503, None, BackendError, r"failed \(503\)"),
        (302, None, BackendError, r"failed \(302\)"),
    ],
)
def test_a_response_becomes_the_error_that_it_means(
    status: int, body: object, kind: type[HelexaError], words: str
) -> None:
    error = error_of_response(status, {}, json.dumps(body).encode() if body else b"<html>")

    assert type(error) is kind
    with pytest.raises(kind, match=words):
        raise error


def test_only_errors_that_another_backend_may_not_have_are_worth_a_retry() -> None:
    def retryable(status: int) -> bool:
        return error_of_response(status, {}, b"").retryable

    assert all(retryable(status) for status in (401, 403, 404, 408, 429, 500, 502, 503))
    assert not any(retryable(status) for status in (400, 405, 413, 422))


def test_a_prompt_that_is_too_long_is_told_in_numbers() -> None:
    error = error_of_response(400, {}, json.dumps(LLAMA_TOO_LONG).encode())

    assert error.details == {"prompt_tokens": 5010, "context_tokens": 4096}


def test_a_rejection_keeps_the_backends_status_and_code() -> None:
    error = error_of_response(400, {}, json.dumps(LLAMA_BAD).encode())

    assert error.details == {"status": 400, "backend_code": "invalid_request_error"}


def test_a_busy_backend_says_when_to_come_back() -> None:
    assert error_of_response(429, {"retry-after": "7"}, b"").retry_after_s == 7


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (json.dumps(VLLM_TOO_LONG).encode(), ContextLengthError),
        (json.dumps(llama(500, "compute error", "server_error")).encode(), BackendError),
        (json.dumps(llama(400, "bad", "x")).encode(), BackendRejectedError),
        (b'{"error":"worker died"}', BackendError),
    ],
)
def test_an_event_may_be_an_error(event: bytes, kind: type[HelexaError]) -> None:
    assert type(error_of_event(event)) is kind


@pytest.mark.parametrize(
    "event",
    [
        b'{"choices":[{"delta":{"content":"the \\"error\\" is"}}]}',
        b'{"choices":[{"delta":{"content":"error"},"error":null}]}',
        b'{"choices":[],"error":null}',
        b'not json "error"',
    ],
)
def test_an_event_that_speaks_of_errors_is_none(event: bytes) -> None:
    assert error_of_event(event) is None


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("cannot open /home/ada/models/x.gguf", "cannot open [path]"),
        ("connect to http://10.0.0.7:8000/v1 failed", "connect to [address] failed"),
        ("no route to gpu7.internal", "no route to [host]"),
        ("worker-3:29500 refused", "[address] refused"),
        ("peer 192.168.1.20 gone", "peer [address] gone"),
        ("key sk-abcdefgh12345 is wrong", "key [key] is wrong"),
        ("messages.0.content: image/png is 4.5 of 8", "messages.0.content: image/png is 4.5 of 8"),
        ("two\nlines", "two lines"),
    ],
)
def test_a_message_tells_nothing_of_the_host(said: str, told: str) -> None:
    assert cleaned(said) == told


def test_a_message_is_short() -> None:
    assert len(cleaned("word " * 1000)) <= 300


def test_what_the_backend_said_goes_to_the_log_cut_at_2048_characters(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)

    error_of_response(500, {}, b"x" * 5000)
    error_of_response(400, {}, b"y" * 5000)

    levels = [record.levelname for record in caplog.records]
    texts = [getattr(record, "body", "") for record in caplog.records]
    assert levels == ["WARNING", "DEBUG"]
    assert [len(text) for text in texts] == [2048, 2048]
