# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The HTTP routes that every process answers alike: alive, ready, and its numbers."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from helexa.process.health import Readiness
from helexa.process.metrics import CONTENT_TYPE, Metrics


def status_routes(readiness: Readiness, metrics: Metrics) -> list[Route]:
    """Return `/livez`, `/readyz`, `/health` with their aliases, and `/metrics`."""

    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        missing = readiness.missing
        if not missing:
            return JSONResponse({"status": "ready"})
        return JSONResponse(
            {"status": "not ready", "missing": missing},
            status_code=503,
            headers={"Retry-After": "1"},
        )

    async def numbers(_: Request) -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE)

    return [
        *(Route(path, livez) for path in ("/livez", "/health", "/healthz", "/health/liveliness")),
        *(Route(path, readyz) for path in ("/readyz", "/health/readiness")),
        Route("/metrics", numbers),
    ]
