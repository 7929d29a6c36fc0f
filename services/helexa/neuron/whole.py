# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A backend's whole answer made ours, and a request for one turned into one for a stream.

Only the outermost fields are looked at; what they hold stays as the backend wrote it.
"""

import json
from typing import Annotated, cast

import msgspec

from helexa.neuron.backends.faults import error_of_event
from helexa.neuron.splice import Json, read_usage
from helexa.protocol.errors import BackendError
from helexa.protocol.messages.execution import TokenUsage

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STREAM_FIELDS = {
    "stream": msgspec.Raw(b"true"),
    "stream_options": msgspec.Raw(b'{"include_usage":true}'),
}


_Tokens = Annotated[int, msgspec.Meta(ge=0)]


class _Details(msgspec.Struct):
    cached_tokens: _Tokens | None = None
    reasoning_tokens: _Tokens | None = None


class _Usage(msgspec.Struct):
    """OpenAI's `usage`, as far as we count."""

    prompt_tokens: _Tokens | None = None
    completion_tokens: _Tokens | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


_USAGE = msgspec.json.Decoder(_Usage | None)
_NO_DETAILS = _Details()


def finished(answer: bytes, ours: dict[str, object]) -> tuple[bytes, TokenUsage | None]:
    """Return a whole answer as the client gets it, and its counts if it has any.

    Args:
        answer: As the backend gave it.
        ours: The fields that are ours, by name.

    Raises:
        BackendError: it is no answer.
        HelexaError: it is the backend's word for a failure.
    """
    fields = _read(answer)
    if fields is None or not _is_list(fields.get("choices")):
        raise error_of_event(answer) or BackendError("the backend ended without an answer")
    return msgspec.json.encode(fields | ours), _counts(fields)


def renamed(answer: bytes, model: str) -> tuple[bytes, TokenUsage | None]:
    """Return embeddings under our model's name, and their counts if they have any."""
    fields = _read(answer)
    if fields is None:
        return answer, None
    return msgspec.json.encode(fields | {"model": model}), _counts(fields)


def as_stream(body: bytes) -> bytes:
    """Return a request for a whole answer as one for a stream that ends with its counts.

    Raises:
        BackendError: the body is no JSON object.
    """
    fields = _read(body)
    if fields is None:
        raise BackendError("the request is no JSON object")
    return msgspec.json.encode(fields | _STREAM_FIELDS)


def _read(data: bytes) -> dict[str, msgspec.Raw] | None:
    """Return the outermost fields, `None` if it is no JSON object."""
    try:
        return _FIELDS.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _read_leniently(data)


def _read_leniently(data: bytes) -> dict[str, msgspec.Raw] | None:
    # Runtimes written in Python may write NaN, which is no JSON.
    try:
        fields = json.loads(data)
    except ValueError:
        return None
    if not isinstance(fields, dict):
        return None
    return {name: msgspec.Raw(json.dumps(value).encode()) for name, value in fields.items()}


def _is_list(value: msgspec.Raw | None) -> bool:
    return value is not None and bytes(memoryview(value)[:1]) == b"["


def _counts(fields: dict[str, msgspec.Raw]) -> TokenUsage | None:
    said = fields.get("usage")
    if said is None:
        return None
    try:
        counts = _USAGE.decode(said)
    except msgspec.ValidationError:
        # Whatever is wrong with one count, the others stand.
        other = cast("Json", msgspec.json.decode(said))
        return read_usage(other) if isinstance(other, dict) else None
    if counts is None:
        return None
    return TokenUsage(
        prompt_tokens=counts.prompt_tokens or 0,
        completion_tokens=counts.completion_tokens or 0,
        cached_tokens=(counts.prompt_tokens_details or _NO_DETAILS).cached_tokens,
        reasoning_tokens=(counts.completion_tokens_details or _NO_DETAILS).reasoning_tokens,
    )
