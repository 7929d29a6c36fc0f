# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The local API: this host's own models in OpenAI's dialect, for programs on this host."""

import json
import time
from collections.abc import AsyncIterator
from typing import cast

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from helexa.neuron.assembly import Assembly
from helexa.neuron.backends.interface import (
    EventStream,
)
from helexa.neuron.lease import Lease
from helexa.neuron.models import ModelHost
from helexa.neuron.presence import Presence
from helexa.neuron.splice import Json
from helexa.protocol.errors import (
    BackendError,
    BadRequestError,
    HelexaError,
    ModelNotLoadedError,
    RefusedError,
    UnavailableError,
    UnknownModelError,
    UnsupportedError,
)
from helexa.protocol.messages.execution import Operation
from helexa.protocol.messages.models import ModelState

STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
LOOPBACK_NAMES = ["localhost", "127.0.0.1", "[::1]"]
"""A page of a browser that points its own name at this host is not this host's program."""

_STATUS: tuple[tuple[type[HelexaError], int], ...] = (
    (UnknownModelError, 404),
    (BadRequestError, 400),
    (RefusedError, 503),
    (UnavailableError, 503),
    (BackendError, 502),
)


class LocalApi:
    """Serves the host's models without a site."""

    def __init__(self, presence: Presence) -> None:
        """Serve the models of `presence`."""
        self._presence = presence

    @property
    def _host(self) -> ModelHost:
        return self._presence.host

    async def chat(self, request: Request) -> Response:
        """Answer a chat."""
        return await self._generate(request, Operation.CHAT)

    async def complete(self, request: Request) -> Response:
        """Continue a text."""
        return await self._generate(request, Operation.COMPLETION)

    async def embed(self, request: Request) -> Response:
        """Turn texts into vectors."""
        body = await _object_of(request)
        lease = self._reserve(body, Operation.EMBEDDING)
        failed = True
        try:
            if lease.abilities.embedding is None:
                raise UnsupportedError
            answer = await lease.abilities.embedding.embed(json.dumps(body).encode())
            failed = False
        finally:
            lease.release(failed=failed)
        return Response(answer, media_type="application/json")

    async def list_models(self, _: Request) -> Response:
        """Return the loaded models as OpenAI lists them."""
        created = int(time.time())
        data = [
            {"id": name, "object": "model", "created": created, "owned_by": "helexa"}
            for name in self._host.capabilities()
        ]
        return JSONResponse({"object": "list", "data": data})

    async def states(self, _: Request) -> Response:
        """Return every model with its state."""
        models = [status.model_dump(mode="json") for status in self._host.statuses()]
        return JSONResponse({"models": models})

    async def status(self, _: Request) -> Response:
        """Return the neuron's state as its sites see it."""
        return JSONResponse(self._presence.status(0).model_dump(mode="json"))

    async def _generate(self, request: Request, operation: str) -> Response:
        body = await _object_of(request)
        streams = body.get("stream") is True
        lease = self._reserve(body, operation)
        try:
            stream = await _open(lease, body, streams=streams)
        except BaseException:
            lease.release(failed=True)
            raise
        if streams:
            return _Answer(stream, lease)
        return JSONResponse(await _assembled(stream, lease, request))

    def _reserve(self, body: dict[str, Json], operation: str) -> Lease:
        name = body.get("model")
        if not isinstance(name, str):
            raise BadRequestError("`model` must be a text", param="model")
        found = self._host.find(name)
        if found is None or found.record.state == ModelState.UNCONFIGURED:
            raise UnknownModelError(f"The model {name!r} is not on this host.", param="model")
        if self._presence.is_draining:
            raise UnavailableError("the neuron is stopping", retry_after_s=5.0)
        return self._host.reserve(name, operation)


def local_routes(api: LocalApi) -> list[Route]:
    """Return the routes of the local API."""
    return [
        Route("/v1/chat/completions", api.chat, methods=["POST"]),
        Route("/v1/completions", api.complete, methods=["POST"]),
        Route("/v1/embeddings", api.embed, methods=["POST"]),
        Route("/v1/models", api.list_models),
        Route("/models", api.states),
        Route("/status", api.status),
    ]


def local_app(routes: list[Route]) -> Starlette:
    """Return the application that serves `routes` to programs on this host."""
    return Starlette(
        routes=routes,
        exception_handlers={HelexaError: refuse, 404: _no_route, 405: _no_route},
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK_NAMES)],
    )


async def refuse(_: Request, error: Exception) -> Response:
    """Return an error in OpenAI's envelope."""
    if not isinstance(error, HelexaError):
        raise error
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    told = error.details.get("status")
    if isinstance(error, BackendError) and isinstance(told, int) and 400 <= told < 500:
        status = told
    headers = {}
    if status == 503:
        pause_s = error.retry_after_s or (5.0 if isinstance(error, ModelNotLoadedError) else 1.0)
        headers["Retry-After"] = str(max(1, round(pause_s)))
    return JSONResponse(_envelope(error, status), status_code=status, headers=headers)


async def _no_route(request: Request, _: Exception) -> Response:
    message = f"There is no {request.method} {request.url.path}."
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": error}, status_code=404)


def _envelope(error: HelexaError, status: int) -> dict[str, dict[str, str | None]]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {
        "error": {
            "message": error.message,
            "type": kind,
            "param": error.param,
            "code": error.to_reply().code,
        }
    }


async def _object_of(request: Request) -> dict[str, Json]:
    try:
        body = cast("Json", json.loads(await request.body()))
    except (ValueError, RecursionError) as error:
        raise BadRequestError("The body is not JSON.") from error
    if not isinstance(body, dict):
        raise BadRequestError("The body is not a JSON object.")
    return body


async def _open(lease: Lease, body: dict[str, Json], *, streams: bool) -> EventStream:
    options: dict[str, Json] = {} if streams else {"stream_options": {"include_usage": True}}
    data = json.dumps(body | options | {"stream": True}).encode()
    abilities = lease.abilities
    if "prompt" in body and abilities.text is not None:
        return await abilities.text.complete(data)
    if abilities.chat is not None:
        return await abilities.chat.chat(data)
    raise UnsupportedError


class _Answer(StreamingResponse):
    """A stream passed on. It lets go of the backend also when the client left before it began."""

    def __init__(self, stream: EventStream, lease: Lease) -> None:
        super().__init__(self._passed_on(), media_type="text/event-stream", headers=STREAM_HEADERS)
        self._stream = stream
        self._lease = lease

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._stream.aclose()
            self._lease.release(failed=True)

    async def _passed_on(self) -> AsyncIterator[bytes]:
        try:
            async for events in self._stream:
                self._lease.count(len(events), time.monotonic())
                yield b"".join(b"data: %b\n\n" % event for event in events)
            yield b"data: [DONE]\n\n"
            self._lease.release(failed=False)
        except HelexaError as error:
            yield b"data: %b\n\n" % json.dumps(_envelope(error, 500)).encode()


async def _assembled(stream: EventStream, lease: Lease, request: Request) -> dict[str, Json]:
    assembly = Assembly()
    failed = True
    try:
        async for events in stream:
            lease.count(len(events), time.monotonic())
            for event in events:
                assembly.add(event)
            if await request.is_disconnected():
                raise ClientDisconnect
        failed = False
    finally:
        await stream.aclose()
        lease.release(failed=failed)
    return assembly.result()
