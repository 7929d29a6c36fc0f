# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The portal's composition root."""

import logging
import sys

from starlette.applications import Starlette

from helexa.bus.client import Bus
from helexa.bus.resources import ensure_resources
from helexa.portal.service import Pages, SiteView, not_found
from helexa.portal.settings import PortalSettings
from helexa.process.durability import durability_of
from helexa.process.health import Readiness
from helexa.process.http import Listening, serve_http, turn_away
from helexa.process.lifecycle import Life
from helexa.process.logs import name_instance
from helexa.process.metrics import Metrics
from helexa.process.running import service_main
from helexa.process.status import status_routes
from helexa.protocol.naming import instance_id
from helexa.protocol.subjects import Role
from helexa.site.connect import data_dir_of, site_connection
from helexa.site.layout import SiteFile

_log = logging.getLogger(__name__)


async def start(life: Life, settings: PortalSettings) -> None:
    """Serve the pages on every socket, whether or not the site can be reached yet."""
    instance = instance_id()
    name_instance(instance)
    metrics, readiness = Metrics("portal", instance), Readiness()
    bus = Bus(site_connection(settings, Role.PORTAL, instance=instance))
    site = SiteFile.load(data_dir_of(settings).site_file)
    view = SiteView(bus)
    pages = Pages(
        view,
        readiness,
        metrics,
        site_name=settings.site_name,
        api_url=settings.api_url,
        gateway_url=site.gateway_url if site else None,
    )
    app = Starlette(
        routes=[*pages.routes(), *status_routes(readiness, metrics)],
        exception_handlers={404: not_found},
    )
    readiness.require("bus", lambda: bus.is_connected)
    readiness.require("catalogue", lambda: view.catalogue.is_fresh)
    await life.resources.enter_async_context(bus)
    sockets: list[Listening] = []
    for address in settings.addresses:
        sockets.append(await life.resources.enter_async_context(serve_http(app, address)))
        _log.info("serving", extra={"role": "portal", "address": str(sockets[-1].address)})
    delay_s = min(settings.drain_delay_s, settings.grace_s)
    life.resources.push_async_callback(turn_away, readiness, sockets, delay_s)
    await life.watch(bus)

    async def join() -> None:
        await ensure_resources(bus, Role.PORTAL, durability_of(settings))
        life.run("metrics", metrics.publish(bus, settings.metrics_interval_s))
        await view.follow()

    life.run("site", join())


def main() -> int:
    """Run one portal and return its exit code."""
    return service_main(PortalSettings, start)


if __name__ == "__main__":
    sys.exit(main())
