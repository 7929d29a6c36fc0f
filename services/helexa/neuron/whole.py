# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A backend's whole answer made ours, and a request for one turned into one for a stream.

Only the outermost fields are looked at; what they hold stays as the backend wrote it.
"""

import json
from dataclasses import dataclass
from typing import cast

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


@dataclass(frozen=True, slots=True)
class Imprint:
    """What of an answer is ours."""

    public_id: str
    model: str
    created: int | None = None
    """Unix time in seconds; `None`: the backend's."""


def finished(answer: bytes, imprint: Imprint) -> tuple[bytes, TokenUsage | None]:
    """Return a whole answer as the client gets it, and its counts if it has any.

    Raises:
        BackendError: it is no answer.
        HelexaError: it is the backend's word for a failure.
    """
    fields = _read(answer)
    if fields is None or not _is_list(fields.get("choices")):
        raise error_of_event(answer) or BackendError("the backend ended without an answer")
    ours: dict[str, object] = {"id": imprint.public_id, "model": imprint.model}
    if imprint.created is not None:
        ours["created"] = imprint.created
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
    if "usage" not in fields:
        return None
    counts = cast("Json", msgspec.json.decode(fields["usage"]))
    return read_usage(counts) if isinstance(counts, dict) else None
