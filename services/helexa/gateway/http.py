# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One HTTP request as ASGI gives it: headers, key, body, and its answer."""

import json
import re
import time
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from helexa.gateway.envelope import envelope
from helexa.process.http import Receive, Scope, Send
from helexa.protocol.errors import HelexaError, RequestTooLargeError

Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"
EVENT_STREAM = b"text/event-stream; charset=utf-8"
OPENAI_VERSION = b"2020-10-01"
_CLIENT_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class ClientGoneError(Exception):
    """The client has closed the connection."""


@dataclass(slots=True)
class Report:
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


@dataclass(slots=True)
class Incoming:
    """A request and the way back to its client."""

    scope: Scope
    receive: Receive
    send: Send
    request_id: str
    headers: dict[bytes, bytes]
    report: Report = field(default_factory=Report)
    arrived: float = field(default_factory=time.monotonic)
    began: bool = False
    """Whether the status line has been sent."""

    @classmethod
    def read(cls, scope: Scope, receive: Receive, send: Send, request_id: str) -> "Incoming":
        """Return the request in an ASGI scope."""
        return cls(scope, receive, send, request_id, dict(scope["headers"]))

    @property
    def key(self) -> str | None:
        """The caller's API key, from any of the headers that clients use."""
        scheme, _, token = self.header(b"authorization").partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return token.strip()
        return self.header(b"x-api-key") or self.header(b"api-key") or None

    @property
    def traceparent(self) -> str:
        """The W3C trace context, empty if there is none."""
        given = self.headers.get(b"traceparent", b"")
        return given.decode() if _TRACEPARENT.fullmatch(given) else ""

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request came."""
        return time.monotonic() - self.arrived

    def header(self, name: bytes) -> str:
        """Return a header's text, empty if it is absent."""
        return self.headers.get(name, b"").decode("latin-1").strip()

    def is_asked(self, name: bytes) -> bool:
        """Whether a header says yes."""
        return self.header(name).lower() in ("true", "1", "yes")

    def query(self, name: str) -> str | None:
        """Return the last value of a query parameter."""
        values = parse_qs(self.scope["query_string"].decode("latin-1")).get(name)
        return values[-1] if values else None

    async def body(self, limit: int) -> bytes:
        """Return the whole body.

        Raises:
            RequestTooLargeError: it is larger than `limit`; the rest of it is not read.
            ClientGoneError: the client left while sending it.
        """
        announced = self.headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > limit:
            raise _too_large(limit)
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)

    async def left(self) -> None:
        """Return when the client has closed the connection; the body must have been read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def start(self, status: int, content_type: bytes, extra: Headers) -> None:
        """Send the status line and the headers."""
        self.began = True
        self.report.status = status
        headers = [
            (b"content-type", content_type),
            (b"x-request-id", self.request_id.encode()),
            (b"openai-version", OPENAI_VERSION),
            (b"openai-processing-ms", str(round(self.elapsed_s * 1000)).encode()),
            *extra,
        ]
        client_id = self.headers.get(b"x-client-request-id", b"")
        if _CLIENT_ID.fullmatch(client_id):
            headers.append((b"x-client-request-id", client_id))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes, *, more: bool) -> None:
        """Send a piece of the body; waits while the client is slow."""
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def respond(self, status: int, data: bytes, extra: Headers, kind: bytes = JSON) -> None:
        """Send a whole answer."""
        length = (b"content-length", str(len(data)).encode())
        await self.start(status, kind, [length, *extra])
        await self.write(b"" if self.scope["method"] == "HEAD" else data, more=False)

    async def respond_json(self, value: object) -> None:
        """Send `value` as JSON."""
        await self.respond(200, json.dumps(value).encode(), [])

    async def respond_error(
        self, error: HelexaError, extra: Headers | None = None, *, status: int | None = None
    ) -> None:
        """Send `error` in its envelope; `status` replaces the one that it has by itself."""
        made = envelope(error)
        more = list(extra or [])
        if isinstance(error, RequestTooLargeError):
            # What the client still sends is not read, so the connection is of no further use.
            more.append((b"connection", b"close"))
        await self.respond(status or made.status, made.body, [*made.headers, *more])


def _too_large(limit: int) -> RequestTooLargeError:
    return RequestTooLargeError(f"The body is larger than {limit} bytes.")
