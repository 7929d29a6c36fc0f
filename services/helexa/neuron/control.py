# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The control endpoint: health for everybody, the neuron's state and draining for its operator."""

import hmac
from collections.abc import Awaitable, Callable, Iterable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from helexa.neuron.api import LocalApi
from helexa.neuron.presence import Presence
from helexa.neuron.site import SiteLink
from helexa.protocol.errors import BadRequestError

Handler = Callable[[Request], Awaitable[Response]]


class Control:
    """What the operator can do here, with the site's key."""

    def __init__(
        self, presence: Presence, links: Callable[[], Iterable[SiteLink]], key: str
    ) -> None:
        """Let in whoever shows `key`."""
        self._presence = presence
        self._links = links
        self._key = key.encode()

    def routes(self) -> list[Route]:
        """Return the routes, each behind the key."""
        shown = LocalApi(self._presence)
        return [
            Route("/status", self._guarded(shown.status)),
            Route("/models", self._guarded(shown.states)),
            Route("/drain", self._guarded(self.drain), methods=["POST"]),
        ]

    async def drain(self, request: Request) -> Response:
        """Take no new work, or take it again with `?draining=false`."""
        wanted = request.query_params.get("draining", "true")
        if wanted not in ("true", "false"):
            raise BadRequestError("draining is true or false", param="draining")
        for link in self._links():
            link.executor.is_draining = wanted == "true"
        self._presence.host.notify()
        return JSONResponse({"draining": wanted == "true"})

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            shown = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
            if not hmac.compare_digest(shown, self._key):
                error = {"message": "The site's key is needed.", "type": "authentication_error"}
                return JSONResponse(
                    {"error": error | {"code": "unauthorized", "param": None}},
                    status_code=401,
                    headers={"WWW-Authenticate": "Bearer"},
                )
            return await handler(request)

        return guarded
