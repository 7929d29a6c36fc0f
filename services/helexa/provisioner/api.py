# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The orchestrator's HTTP API: the site's state, and orders to it."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from helexa.process.version import software_version
from helexa.protocol import subjects
from helexa.protocol.errors import (
    BadRequestError,
    HelexaError,
    NotFoundError,
    UnavailableError,
)
from helexa.protocol.messages.models import ModelId
from helexa.protocol.messages.routing import ExplainRequest
from helexa.provisioner import views
from helexa.provisioner.configs import read_config
from helexa.provisioner.enrolment import LONGEST_TOKEN_S, TOKEN_S
from helexa.provisioner.http_errors import (
    on_defect,
    on_helexa_error,
    on_http_error,
    on_invalid,
)
from helexa.provisioner.http_input import RequireKey, read_body, read_number
from helexa.provisioner.operations import Operations
from helexa.provisioner.service import Provisioner

EXPLAIN_S = 2.0
MOST_DECISIONS = 500


class _Load(BaseModel):
    model_config = ConfigDict(extra="forbid")
    neuron: str | None = None


class _Drain(BaseModel):
    model_config = ConfigDict(extra="forbid")
    draining: bool = True


class _TokenRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    lasts_s: float = Field(default=TOKEN_S, gt=0, le=LONGEST_TOKEN_S)
    urls: tuple[str, ...] = ()


class Api:
    """The handlers of one replica."""

    def __init__(self, provisioner: Provisioner) -> None:
        """Show and change the site through `provisioner`."""
        self._provisioner = provisioner
        self._state = provisioner.state
        self._operations = Operations(provisioner)
        self._schema = views.protocol_schema()

    def routes(self) -> list[BaseRoute]:
        """Return the routes, all of which need the key."""
        return [
            Route("/api/site", self.site),
            Route("/api/schema", self.schema),
            Route("/api/neurons", self.neurons),
            Route("/api/neurons/tokens", self.open_token, methods=["POST"]),
            Route("/api/neurons/{id}", self.neuron),
            Route("/api/neurons/{id}", self.remove_neuron, methods=["DELETE"]),
            Route("/api/neurons/{id}/drain", self.drain, methods=["POST"]),
            Route("/api/models", self.models),
            Route("/api/models/unload", self.unload_all, methods=["POST"]),
            Route("/api/models/{id:path}/load", self.load, methods=["POST"]),
            Route("/api/models/{id:path}/unload", self.unload, methods=["POST"]),
            Route("/api/models/unload/{id:path}", self.unload, methods=["POST"]),
            Route("/api/models/{id:path}/load-status", self.load_status),
            Route("/api/models/{id:path}", self.model),
            Route("/api/models/{id:path}", self.put_model, methods=["PUT"]),
            Route("/api/models/{id:path}", self.remove_model, methods=["DELETE"]),
            Route("/api/decisions", self.decisions),
            Route("/api/why", self.why),
            Route("/running", self.running),
        ]

    async def site(self, _: Request) -> Response:
        """Show the replica and what the site has."""
        bus = self._provisioner.bus
        return JSONResponse(
            {
                "version": software_version(),
                "instance": self._provisioner.instance,
                "leads": self._provisioner.lease.is_held,
                "connected": bus.is_connected,
                "servers": list(bus.connection.servers),
                "neurons": self._state.registry.size,
                "models": len(self._state.catalogue.models),
                "enrolment": self._provisioner.enrolment is not None,
            }
        )

    async def schema(self, _: Request) -> Response:
        """Show the schema of the protocol."""
        return JSONResponse(self._schema)

    async def neurons(self, _: Request) -> Response:
        """List the neurons."""
        self._need_state()
        found = [views.neuron_view(host) for host in self._state.registry.hosts()]
        return JSONResponse({"neurons": sorted(found, key=lambda each: str(each["id"]))})

    async def neuron(self, request: Request) -> Response:
        """Show one neuron."""
        self._need_state()
        name = request.path_params["id"]
        host = self._state.registry.host(name)
        if host is None:
            raise NotFoundError(f"there is no neuron {name}")
        return JSONResponse(views.neuron_view(host))

    async def remove_neuron(self, request: Request) -> Response:
        """Forget a neuron and let it in no more."""
        self._need_state()
        await self._operations.remove_neuron(request.path_params["id"])
        return Response(status_code=204)

    async def drain(self, request: Request) -> Response:
        """Have a neuron take no new work, or take work again."""
        self._need_state()
        asked = _Drain.model_validate(await read_body(request))
        await self._operations.drain(request.path_params["id"], draining=asked.draining)
        return JSONResponse({"id": request.path_params["id"], "draining": asked.draining})

    async def open_token(self, request: Request) -> Response:
        """Make a join token."""
        asked = _TokenRequest.model_validate(await read_body(request))
        token = await self._operations.enrolment.open_token(asked.lasts_s, asked.urls)
        return JSONResponse(
            {"token": token.text, "expires_at": token.expires_s, "urls": list(token.urls)},
            status_code=201,
        )

    async def models(self, _: Request) -> Response:
        """List the models."""
        self._need_state()
        return JSONResponse({"models": self._model_views(sorted(self._state.catalogue.models))})

    async def model(self, request: Request) -> Response:
        """Show one model."""
        self._need_state()
        config = self._state.catalogue.resolve(request.path_params["id"])
        return JSONResponse(self._model_views([config.model])[0])

    async def put_model(self, request: Request) -> Response:
        """Add a model or change it."""
        self._need_state()
        config = read_config(request.path_params["id"], await read_body(request))
        is_new = config.model not in self._state.catalogue.models
        await self._operations.put_model(config)
        return JSONResponse(config.model_dump(mode="json"), status_code=201 if is_new else 200)

    async def remove_model(self, request: Request) -> Response:
        """Take a model out."""
        self._need_state()
        await self._operations.remove_model(request.path_params["id"])
        return Response(status_code=204)

    async def load(self, request: Request) -> Response:
        """Have a model loaded; answers 202 while it is loading."""
        self._need_state()
        asked = _Load.model_validate(await read_body(request))
        found = await self._operations.load(request.path_params["id"], asked.neuron)
        status = {"loaded": 200, "loading": 202}.get(found.state, 409)
        if status == 409:
            raise BadRequestError(f"no neuron could ever hold it: {found.reason}", param="model")
        return JSONResponse(found.model_dump(mode="json"), status_code=status)

    async def unload(self, request: Request) -> Response:
        """Have a model unloaded; it happens after what it serves has ended."""
        self._need_state()
        await self._operations.unload(request.path_params["id"])
        return JSONResponse({"unloading": [request.path_params["id"]]}, status_code=202)

    async def unload_all(self, _: Request) -> Response:
        """Have every model unloaded."""
        self._need_state()
        return JSONResponse({"unloading": await self._operations.unload_all()}, status_code=202)

    async def load_status(self, request: Request) -> Response:
        """Show how far the loading of a model is."""
        self._need_state()
        model = self._state.catalogue.resolve(request.path_params["id"]).model
        return JSONResponse(views.load_status(model, self._state.registry.hosts()))

    async def decisions(self, request: Request) -> Response:
        """List the last decisions, the newest first."""
        limit = read_number(request, "limit", default=100, most=MOST_DECISIONS)
        model = request.query_params.get("model")
        found = self._provisioner.decisions.last(limit, model)
        return JSONResponse({"decisions": [each.model_dump(mode="json") for each in found]})

    async def why(self, request: Request) -> Response:
        """Explain a request's routing, or how a model is routed and placed now."""
        request_id = request.query_params.get("request")
        model = request.query_params.get("model")
        if request_id is not None:
            return JSONResponse({"routing": await self._explain(request_id=request_id)})
        if model is None:
            raise BadRequestError("say what to explain: ?model= or ?request=", param="model")
        self._need_state()
        name = self._state.catalogue.resolve(model).model
        try:
            routing = await self._explain(model=name)
        except HelexaError as error:
            routing = {"error": error.message, "code": error.code}
        history = self._provisioner.decisions.last(20, name)
        return JSONResponse(
            {
                "routing": routing,
                "placement": self._model_views([name])[0]["plan"],
                "decisions": [each.model_dump(mode="json") for each in history],
            }
        )

    async def running(self, _: Request) -> Response:
        """List what is loaded or loading."""
        self._need_state()
        return JSONResponse(views.running_view(self._state.registry.hosts()))

    async def _explain(
        self, *, request_id: str | None = None, model: ModelId | None = None
    ) -> dict[str, object]:
        question = ExplainRequest(request_id=request_id, model=model)
        told = await self._provisioner.bus.request(subjects.EXPLAIN, question, deadline_s=EXPLAIN_S)
        return told.model_dump(mode="json")

    def _model_views(self, names: Sequence[str]) -> list[views.Json]:
        hosts = self._state.registry.hosts()
        plans = self._state.think()
        models = self._state.catalogue.models
        demand = self._provisioner.demand
        return [
            views.model_view(self._state, models[name], plans[name], hosts, demand)
            for name in names
        ]

    def _need_state(self) -> None:
        if not self._state.is_fresh:
            raise UnavailableError("the site's state is being read", retry_after_s=1.0)


def make_app(provisioner: Provisioner, key: str, open_routes: Sequence[Route]) -> Starlette:
    """Return the API; `open_routes` need no key."""
    open_paths = frozenset(route.path for route in open_routes)
    return Starlette(
        routes=[*open_routes, *Api(provisioner).routes()],
        middleware=[Middleware(RequireKey, key=key, open_paths=open_paths)],
        exception_handlers={
            HelexaError: on_helexa_error,
            ValidationError: on_invalid,
            HTTPException: on_http_error,
            Exception: on_defect,
        },
    )
