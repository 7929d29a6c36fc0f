# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What comes in over HTTP: who asks, and with what."""

import hmac
import json

from starlette.requests import Request

from helexa.process.http import AsgiApp, Receive, Scope, Send
from helexa.protocol.errors import BadRequestError, RequestTooLargeError, UnauthorizedError
from helexa.provisioner.http_errors import on_helexa_error

MOST_BYTES = 1024 * 1024


class RequireKey:
    """Lets only those in who know the key, but for the given paths."""

    def __init__(self, app: AsgiApp, *, key: str, open_paths: frozenset[str]) -> None:
        """Guard `app`."""
        self._app = app
        self._key = key.encode()
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if scope["type"] != "http" or scope["path"] in self._open_paths or self._knows(scope):
            await self._app(scope, receive, send)
            return
        answer = await on_helexa_error(
            Request(scope), UnauthorizedError("this needs the orchestrator's key as a bearer token")
        )
        await answer(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        kind, _, token = given.partition(b" ")
        return kind.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._key)


async def read_body(request: Request) -> dict[str, object]:
    """Return the JSON object in the body; an empty body is an empty object.

    Raises:
        BadRequestError: it is something else.
        RequestTooLargeError: it is longer than `MOST_BYTES`.
    """
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > MOST_BYTES:
            raise RequestTooLargeError(f"more than {MOST_BYTES} bytes")
    if not data.strip():
        return {}
    try:
        found = json.loads(data)
    except ValueError as error:
        raise BadRequestError(f"the body is not JSON: {error}", param="body") from error
    if not isinstance(found, dict):
        raise BadRequestError("the body is not a JSON object", param="body")
    return found


def read_number(request: Request, name: str, *, default: int, most: int) -> int:
    """Return a number from the query, from 1 to `most`.

    Raises:
        BadRequestError: it is something else.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isdecimal() or not 0 < int(text) <= most:
        raise BadRequestError(f"{name} is a number from 1 to {most}", param=name)
    return int(text)
