# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The portal's view of its site, and the pages that show it."""

import time
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from helexa.bus.buckets import Bucket, Mirror
from helexa.bus.client import Bus
from helexa.bus.reports import hear_reports
from helexa.portal.overview import Heard, model_rows
from helexa.portal.page import SECURITY_HEADERS, STYLE, StatusPage, render
from helexa.process.health import Readiness
from helexa.process.metrics import Metrics
from helexa.process.settings import SocketAddress
from helexa.process.version import software_version
from helexa.protocol import resources
from helexa.protocol.messages.models import ModelConfig
from helexa.protocol.reports import NeuronReport

DEFAULT_GATEWAY_PORT = 8080


class SiteView:
    """What the portal hears of its site."""

    def __init__(self, bus: Bus) -> None:
        """Look at the site that `bus` belongs to; `follow` begins."""
        self.catalogue = Mirror(Bucket(bus, resources.MODELS, ModelConfig))
        self._bus = bus
        self._heard: dict[str, Heard] = {}

    async def follow(self) -> None:
        """Keep the view up to date until cancelled."""
        await hear_reports(self._bus, self.hear)
        await self.catalogue.run()

    def hear(self, report: NeuronReport, _: bytes) -> None:
        """Take a neuron's report."""
        self._heard[report.neuron_id] = Heard(report, time.monotonic())

    @property
    def heard(self) -> tuple[Heard, ...]:
        """The last report of each neuron."""
        return tuple(self._heard.values())


class Pages:
    """The pages of one portal."""

    def __init__(
        self,
        view: SiteView,
        readiness: Readiness,
        metrics: Metrics,
        *,
        site_name: str,
        api_url: str | None,
        gateway_url: str | None,
    ) -> None:
        """Show `view` under `site_name`.

        Args:
            view: What is known of the site.
            readiness: Whether the portal is connected to it.
            metrics: Counts the pages served.
            site_name: The heading.
            api_url: The API's base URL that visitors are told, if it is set.
            gateway_url: Where this machine reaches the gateway, if it is known.
        """
        self._view = view
        self._readiness = readiness
        self._site_name = site_name
        self._api_url = api_url
        port = urlsplit(gateway_url).port if gateway_url else None
        self._gateway_port = port or DEFAULT_GATEWAY_PORT
        self._served = metrics.counter("portal_pages", "Pages served.", "page")

    def routes(self) -> list[Route]:
        """Return the routes of the pages."""
        return [
            Route("/", self._status, methods=["GET", "HEAD"]),
            Route("/style.css", self._style, methods=["GET", "HEAD"]),
        ]

    async def _status(self, request: Request) -> Response:
        self._served.labels("status").inc()
        page = StatusPage(
            site_name=self._site_name,
            is_ready=self._readiness.is_ready,
            models=model_rows(self._view.catalogue.values, self._view.heard, time.monotonic()),
            api_url=self._api_url or self._gateway_for(request),
            version=software_version(),
        )
        return HTMLResponse(render(page), headers=SECURITY_HEADERS)

    def _gateway_for(self, request: Request) -> str:
        # The visitor's own name for this host; our addresses may mean nothing to the visitor.
        host = request.url.hostname or "127.0.0.1"
        return f"http://{SocketAddress(host=host, port=self._gateway_port)}/v1"

    async def _style(self, request: Request) -> Response:
        del request
        headers = SECURITY_HEADERS | {"Cache-Control": "max-age=300"}
        return Response(STYLE, media_type="text/css", headers=headers)


async def not_found(request: Request, error: Exception) -> Response:
    """Answer a page that does not exist."""
    del request, error
    text = '<!doctype html><title>Not found</title><p>There is no such page. <a href="/">Status</a>'
    return HTMLResponse(text, status_code=404, headers=SECURITY_HEADERS)
