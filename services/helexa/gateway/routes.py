# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The HTTP API: which path and method leads where. Plain ASGI, for it is the hot path."""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote

from starlette.routing import Router

from helexa.bus.context import REQUEST_ID, TRACEPARENT
from helexa.gateway.authority import Caller
from helexa.gateway.catalogue import Catalogue
from helexa.gateway.desk import Desk
from helexa.gateway.dialect import read_order, refuse_unsupported
from helexa.gateway.exchange import Exchange
from helexa.gateway.fields import bad
from helexa.gateway.http import ClientGoneError, Incoming
from helexa.gateway.ingress import AsgiIncoming, DirectIncoming
from helexa.gateway.numbers import Numbers
from helexa.gateway.order import Customs
from helexa.gateway.peers import Peers
from helexa.gateway.priority import NAMES
from helexa.gateway.resume import Resumption
from helexa.gateway.running import Running
from helexa.gateway.settings import GatewaySettings
from helexa.gateway.work import Work
from helexa.process.direct import Answering, DirectRequest, DirectRoutes
from helexa.process.health import Readiness
from helexa.process.http import Receive, Scope, Send
from helexa.process.metrics import Metrics
from helexa.process.status import status_routes
from helexa.protocol.errors import (
    HelexaError,
    InternalError,
    NotFoundError,
    ShuttingDownError,
    UnknownModelError,
)
from helexa.protocol.messages.accounts import Scope as KeyScope
from helexa.protocol.messages.execution import Operation
from helexa.protocol.messages.models import ModelConfig
from helexa.protocol.naming import request_id

_log = logging.getLogger(__name__)

Handler = Callable[[Incoming], Awaitable[None]]

MODELS = "/v1/models"
STREAMS = "/v1/streams/"
METHOD_NOT_ALLOWED = 405


@dataclass(frozen=True, slots=True)
class Route:
    """What serves a path."""

    name: str
    method: str
    handler: Handler
    is_hot: bool = False


class Routes:
    """The ASGI application of a gateway."""

    def __init__(
        self,
        settings: GatewaySettings,
        desk: Desk,
        catalogue: Catalogue,
        peers: Peers,
        readiness: Readiness,
        metrics: Metrics,
    ) -> None:
        """Serve the API with the desk's help."""
        self._settings = settings
        self._desk = desk
        self._catalogue = catalogue
        self._peers = peers
        self.numbers = Numbers(metrics)
        self.running = Running()
        self.is_stopping = False
        status = status_routes(readiness, metrics)
        self._status = Router(status)
        self._status_paths = {route.path for route in status}
        self._routes = {
            "/v1/chat/completions": self._generator("chat", Operation.CHAT),
            "/v1/completions": self._generator("completion", Operation.COMPLETION),
            "/v1/embeddings": self._generator("embedding", Operation.EMBEDDING),
            MODELS: Route("models", "GET", self._list_models),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        if path in self._status_paths and scope["method"] in ("GET", "HEAD"):
            await self._status(scope, receive, send)
            return
        made = request_id(self._desk.inbox.me)
        incoming = AsgiIncoming.read(scope, receive, send, made)
        await self._attend(incoming, self._route(incoming.method, path))

    @property
    def direct(self) -> DirectRoutes:
        """The routes that need no ASGI, which are those that generate."""
        return {path.encode(): self._direct(at) for path, at in self._routes.items() if at.is_hot}

    def _direct(self, route: Route) -> Answering:
        def take(request: DirectRequest) -> Awaitable[None]:
            made = request_id(self._desk.inbox.me)
            return self._attend(DirectIncoming.read(request, made), route)

        return take

    async def _attend(self, incoming: Incoming, route: Route) -> None:
        REQUEST_ID.set(incoming.request_id)
        TRACEPARENT.set(incoming.traceparent)
        incoming.report.route = route.name
        self.numbers.began()
        try:
            await route.handler(incoming)
        except ClientGoneError:
            incoming.report.client_gone = True
        except HelexaError as error:
            incoming.report.code = error.code
            await self._respond_error(incoming, error)
        except Exception:  # noqa: BLE001 - see below
            # A defect too becomes an answer in the standard shape, and its trace stays here.
            _log.exception("request_failed")
            incoming.report.code = InternalError.code
            await self._respond_error(incoming, InternalError())
        finally:
            self.numbers.ended(incoming)

    def _route(self, method: str, path: str) -> Route:
        """Return what serves a request, be it a refusal."""
        route = self._find(path)
        if route is None:
            return Route("unknown", method, self._refuse_path)
        if ("GET" if method == "HEAD" else method) != route.method:
            return Route(route.name, method, partial(self._refuse_method, route.method))
        return route

    def _find(self, path: str) -> Route | None:
        found = self._routes.get(path)
        if found is not None:
            return found
        if path.startswith(MODELS + "/"):
            return Route("model", "GET", self._show_model)
        if path.startswith(STREAMS):
            return Route("stream", "GET", self._resume)
        if path in self._status_paths:
            return Route("status", "GET", self._list_models)
        return None

    def _generator(self, name: str, operation: str) -> Route:
        async def generate(incoming: Incoming) -> None:
            self._refuse_late(incoming)
            work = await self._read_work(operation, incoming)
            self._count(incoming, work)
            exchange = Exchange(self._desk, incoming, work)
            self.running.add(exchange)
            try:
                await exchange.run()
            finally:
                self.running.end(exchange)

        return Route(name, "POST", generate, is_hot=True)

    async def _read_work(self, operation: str, incoming: Incoming) -> Work:
        caller = await self._admit(incoming, KeyScope.INFERENCE)
        data = await incoming.body(self._settings.max_body_bytes)
        session = incoming.header(b"x-session-id") or incoming.header(b"x-litellm-session-id")
        customs = Customs(
            default_max_tokens=self._settings.default_max_tokens,
            bulk_prompt_tokens=self._settings.bulk_prompt_tokens,
            priority=incoming.header(b"x-helexa-priority"),
            may_claim_priority=caller.may_claim_priority,
            session=session or None,
        )
        order = read_order(operation, data, customs)
        name = order.model or self._settings.default_model
        if not name:
            bad("model", "'model' is required.")
        model, config = await self._resolve(caller, name)
        report = incoming.report
        report.model, report.stream, report.workload = model, order.stream, order.workload
        report.priority = NAMES[order.priority]
        refuse_unsupported(order, self._catalogue.workloads(model, config), config)
        return Work(
            request_id=incoming.request_id,
            order=order,
            caller=caller,
            model=model,
            resumable=incoming.is_asked(b"x-helexa-resumable"),
        )

    async def _admit(self, incoming: Incoming, scope: str) -> Caller:
        caller = await self._desk.authority.authorise(incoming.key)
        caller.check_scope(scope)
        return caller

    async def _resolve(self, caller: Caller, name: str) -> tuple[str, ModelConfig | None]:
        """Return the model that is asked for, if this caller may ask it."""
        try:
            model, config = await self._catalogue.resolve(name)
        except UnknownModelError:
            # Who may not ask them all does not learn so which there are.
            caller.check_model(name)
            raise
        if caller.models is not None:
            caller.check_model(name, *self._catalogue.names(model))
        return model, config

    def _may_see(self, caller: Caller, model: str) -> bool:
        return caller.models is None or caller.may_ask(*self._catalogue.names(model))

    def _count(self, incoming: Incoming, work: Work) -> None:
        """Count a request of a key that has limits, unless it is above them."""
        caller = work.caller
        if caller.requests_per_minute is None and caller.tokens_per_minute is None:
            return
        verdict = self._desk.rates.admit(caller, work.claim, time.monotonic())
        incoming.rate_headers = verdict.headers
        if verdict.refusal is not None:
            raise verdict.refusal

    async def _list_models(self, incoming: Incoming) -> None:
        caller = await self._admit(incoming, KeyScope.MODELS)
        listed = self._catalogue.listed(lambda name: self._may_see(caller, name))
        await incoming.respond_json({"object": "list", "data": listed})

    async def _show_model(self, incoming: Incoming) -> None:
        caller = await self._admit(incoming, KeyScope.MODELS)
        name = unquote(incoming.path[len(MODELS) + 1 :])
        canonical, _ = await self._catalogue.resolve(name)
        if not self._may_see(caller, canonical):
            raise UnknownModelError(f"The model {name!r} does not exist.", param="model")
        await incoming.respond_json(self._catalogue.shown(canonical))

    async def _resume(self, incoming: Incoming) -> None:
        self._refuse_late(incoming)
        caller = await self._admit(incoming, KeyScope.INFERENCE)
        asked = incoming.path[len(STREAMS) :]
        resumption = Resumption(self._desk, self._peers, incoming, asked, _first_event(incoming))
        incoming.report.stream = True
        self.running.add(resumption)
        try:
            await resumption.run(caller)
        finally:
            self.running.end(resumption)

    def _refuse_late(self, incoming: Incoming) -> None:
        if self.is_stopping and not incoming.is_owed:
            raise ShuttingDownError(retry_after_s=1)

    async def _refuse_path(self, incoming: Incoming) -> None:
        raise NotFoundError(f"There is nothing at {incoming.method} {incoming.path}.")

    async def _refuse_method(self, allowed: str, incoming: Incoming) -> None:
        incoming.report.code = "method_not_allowed"
        error = NotFoundError(f"{incoming.path} takes {allowed} only.", reason="method_not_allowed")
        await incoming.respond_error(
            error, [(b"allow", allowed.encode())], status=METHOD_NOT_ALLOWED
        )

    async def _respond_error(self, incoming: Incoming, error: HelexaError) -> None:
        if not incoming.began:
            await incoming.respond_error(error)


def _first_event(incoming: Incoming) -> int:
    """Return the number of the first event that the client lacks."""
    asked = incoming.query("from")
    last = incoming.header(b"last-event-id")
    if asked is None and not last:
        return 0
    text = asked if asked is not None else last
    if not (text.isascii() and text.isdecimal() and len(text) <= 15):
        bad("from", "'from' is the number of an event, counted from 0.")
    return int(text) if asked is not None else int(text) + 1
