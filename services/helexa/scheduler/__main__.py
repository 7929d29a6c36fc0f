# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Starts a scheduler."""

import logging
import sys

from starlette.applications import Starlette

from helexa.bus.client import Bus
from helexa.bus.service import Service
from helexa.process.health import Readiness
from helexa.process.http import serve_http
from helexa.process.lifecycle import Life
from helexa.process.logs import name_instance
from helexa.process.metrics import Metrics
from helexa.process.running import service_main
from helexa.process.settings import SocketAddress
from helexa.process.status import status_routes
from helexa.process.version import software_version
from helexa.protocol.naming import instance_id
from helexa.protocol.subjects import Role
from helexa.scheduler.service import Limits, Scheduler, read_catalogue
from helexa.scheduler.settings import SchedulerSettings
from helexa.site.connect import site_connection

_log = logging.getLogger(__name__)


async def start(life: Life, settings: SchedulerSettings) -> None:
    """Run a scheduler until the end of `life`."""
    instance = instance_id()
    name_instance(instance)
    metrics = Metrics(Role.SCHEDULER, instance)
    bus = Bus(site_connection(settings, Role.SCHEDULER, instance=instance))
    await life.resources.enter_async_context(bus)
    await life.watch(bus)
    catalogue = read_catalogue(bus)
    readiness = Readiness()
    readiness.require("bus", lambda: bus.is_connected)
    readiness.require("catalogue", lambda: bool(catalogue.entries) or catalogue.is_fresh)
    if settings.control_socket is not None:
        address = SocketAddress.parse(settings.control_socket)
        app = Starlette(routes=status_routes(readiness, metrics))
        listening = await life.resources.enter_async_context(serve_http(app, address))
        _log.info("serving", extra={"url": listening.url})
    life.run("catalogue", catalogue.run())
    await bus.wait_connected()
    service = Service(bus, Role.SCHEDULER, instance=instance, version=software_version())
    life.resources.push_async_callback(service.drain, settings.grace_s)
    life.resources.callback(readiness.stop)
    scheduler = Scheduler(
        catalogue,
        metrics,
        instance=instance,
        limits=Limits(
            stale_after_s=settings.stale_after_s,
            forget_after_s=settings.forget_after_s,
            half_life_s=settings.half_life_s,
            decisions_kept=settings.decisions_kept,
            lease_s=settings.lease_s,
            prefix_affinity=settings.prefix_affinity,
        ),
    )
    await scheduler.bind(bus, service)
    life.run("metrics", metrics.publish(bus, settings.metrics_interval_s))


def main() -> int:
    """Run a scheduler process; return its exit code."""
    return service_main(SchedulerSettings, start)


if __name__ == "__main__":
    sys.exit(main())
