# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One HTTP request, from whatever serves it: headers, key, body, and its answer."""

import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qs

import msgspec

from helexa.gateway.envelope import envelope
from helexa.protocol.errors import HelexaError, RequestTooLargeError

Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"
EVENT_STREAM = b"text/event-stream; charset=utf-8"
OPENAI_VERSION = b"2020-10-01"
_CLIENT_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class ClientGoneError(Exception):
    """The client has closed the connection."""


class Report(msgspec.Struct):
    """What the closing log line of a request says."""

    route: str = ""
    model: str = ""
    """The canonical name; empty until the model is known, so that it is safe as a label."""
    status: int = 0
    code: str = ""
    """Code of the error, if one ended the request."""
    stream: bool = False
    workload: str = ""
    priority: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    finish: str = ""
    client_gone: bool = False
    attempts: int = 0
    neuron: str = ""
    decision: str = ""
    queue_s: float = 0.0
    accepted_s: float | None = None
    """From arrival to the neuron that took it."""
    first_token_s: float | None = None
    ignored_frames: int = 0


@dataclass(slots=True, kw_only=True)
class Incoming(ABC):
    """A request and the way back to its client."""

    method: str
    path: str
    query_string: bytes = b""
    request_id: str
    headers: dict[bytes, bytes]
    """By their names in lower case."""
    is_owed: bool
    """Whether it came on a connection whose client has not been told that we leave."""
    report: Report = field(default_factory=Report)
    arrived: float = field(default_factory=time.monotonic)
    began: bool = False
    """Whether the answer has begun, so that its status cannot change any more."""
    rate_headers: Sequence[tuple[bytes, bytes]] = ()
    """What the caller is told of its limits, in any answer."""
    is_last: bool = False
    """Whether the connection is of no use after the answer."""

    @property
    def key(self) -> str | None:
        """The caller's API key, from any of the headers that clients use."""
        scheme, _, token = self.header(b"authorization").partition(" ")
        if scheme.lower() == "bearer" and (token := token.strip()):
            return token
        return self.header(b"x-api-key") or self.header(b"api-key") or None

    @property
    def traceparent(self) -> str:
        """The W3C trace context, empty if there is none."""
        if b"traceparent" not in self.headers:
            return ""
        given = self.headers[b"traceparent"]
        return given.decode() if _TRACEPARENT.fullmatch(given) else ""

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request came."""
        return time.monotonic() - self.arrived

    def header(self, name: bytes) -> str:
        """Return a header's text, empty if it is absent."""
        return self.headers[name].decode("latin-1").strip() if name in self.headers else ""

    def is_asked(self, name: bytes) -> bool:
        """Whether a header says yes."""
        return name in self.headers and self.header(name).lower() in ("true", "1", "yes")

    def query(self, name: str) -> str | None:
        """Return the last value of a query parameter."""
        values = parse_qs(self.query_string.decode("latin-1")).get(name)
        return values[-1] if values else None

    def check_announced(self, limit: int) -> None:
        """Refuse a body by its announced length.

        Raises:
            RequestTooLargeError: it is larger than `limit`.
        """
        announced = self.headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > limit:
            raise too_large(limit)

    @abstractmethod
    async def body(self, limit: int) -> bytes:
        """Return the whole body.

        Raises:
            RequestTooLargeError: it is larger than `limit`; the rest of it is not read.
            ClientGoneError: the client left while sending it.
        """

    @abstractmethod
    def watch(self, on_left: Callable[[], object]) -> None:
        """Call `on_left` when the client closes the connection, or soon if it has.

        The body must have been read.
        """

    @abstractmethod
    def unwatch(self) -> None:
        """Call it no more."""

    @abstractmethod
    async def begin(
        self, status: int, content_type: bytes, extra: Headers, length: int | None
    ) -> None:
        """Send the status line and the headers; without a `length` the body ends by itself."""

    @abstractmethod
    async def write(self, data: bytes, *, more: bool) -> None:
        """Send a piece of the body; waits while the client is slow."""

    def write_now(self, data: bytes) -> bool:  # noqa: ARG002 - where nothing can be sent so
        """Send a piece that is not the first or the last; return whether that needed no wait."""
        return False

    async def start(self, status: int, content_type: bytes, extra: Headers) -> None:
        """Begin an answer of unknown length."""
        await self.begin(status, content_type, extra, None)

    async def respond(self, status: int, data: bytes, extra: Headers, kind: bytes = JSON) -> None:
        """Send a whole answer."""
        await self.begin(status, kind, extra, len(data))
        await self.write(b"" if self.method == "HEAD" else data, more=False)

    async def respond_json(self, value: object) -> None:
        """Send `value` as JSON."""
        await self.respond(200, json.dumps(value).encode(), [])

    async def respond_error(
        self, error: HelexaError, extra: Headers | None = None, *, status: int | None = None
    ) -> None:
        """Send `error` in its envelope; `status` replaces the one that it has by itself."""
        made = envelope(error)
        # What the client still sends is not read.
        self.is_last = isinstance(error, RequestTooLargeError)
        headers = [*made.headers, *(extra or ())]
        await self.respond(status or made.status, made.body, headers)

    @property
    def client_id(self) -> bytes:
        """The caller's own id, echoed where it is fit for a header."""
        given = self.headers.get(b"x-client-request-id")
        return given if given and _CLIENT_ID.fullmatch(given) else b""


def too_large(limit: int) -> RequestTooLargeError:
    """Return the refusal of a body of more than `limit` bytes."""
    return RequestTooLargeError(f"The body is larger than {limit} bytes.")
