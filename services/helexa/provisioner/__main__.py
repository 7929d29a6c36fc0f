# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Starts a provisioner."""

import logging
import sys

from helexa.bus.client import Bus
from helexa.bus.resources import ensure_resources
from helexa.bus.service import Service
from helexa.process.durability import durability_of
from helexa.process.health import Readiness
from helexa.process.http import serve_http, turn_away
from helexa.process.lifecycle import Life
from helexa.process.logs import name_instance
from helexa.process.metrics import Metrics
from helexa.process.running import service_main
from helexa.process.status import status_routes
from helexa.process.version import software_version
from helexa.protocol.naming import instance_id
from helexa.protocol.subjects import Role
from helexa.provisioner.access import api_key, hold_lease, keep_join_token, open_enrolment
from helexa.provisioner.api import make_app
from helexa.provisioner.service import Options, Provisioner
from helexa.provisioner.settings import ProvisionerSettings
from helexa.site.connect import site_connection

_log = logging.getLogger(__name__)


async def start(life: Life, settings: ProvisionerSettings) -> None:
    """Run a provisioner until the end of `life`."""
    instance = instance_id()
    name_instance(instance)
    metrics = Metrics(Role.PROVISIONER, instance)
    bus = Bus(site_connection(settings, Role.PROVISIONER, instance=instance))
    await life.resources.enter_async_context(bus)
    await life.watch(bus)
    provisioner = Provisioner(bus, metrics, instance=instance, options=_options(settings))
    readiness = Readiness()
    readiness.require("bus", lambda: bus.is_connected)
    readiness.require("state", lambda: provisioner.state.is_fresh)
    app = make_app(provisioner, api_key(settings), status_routes(readiness, metrics))
    listening = await life.resources.enter_async_context(serve_http(app, settings.address))
    _log.info("serving", extra={"url": listening.url})
    await ensure_resources(bus, Role.PROVISIONER, durability_of(settings))
    provisioner.enrolment = await open_enrolment(life.resources, settings, provisioner)
    service = Service(bus, Role.PROVISIONER, instance=instance, version=software_version())
    life.resources.push_async_callback(service.drain, settings.grace_s)
    life.resources.push_async_callback(provisioner.say_goodbye, "the provisioner stops")
    delay_s = min(settings.drain_delay_s, settings.grace_s)
    life.resources.push_async_callback(turn_away, readiness, [listening], delay_s)
    for name, job in provisioner.jobs().items():
        life.run(name, job)
    hold_lease(life, provisioner.lease)
    keep_join_token(life, settings, provisioner)
    await provisioner.wait_fresh()
    await provisioner.bind(service)
    life.run("metrics", metrics.publish(bus, settings.metrics_interval_s))


def _options(settings: ProvisionerSettings) -> Options:
    return Options(
        neuron_timeout_s=settings.neuron_timeout_s,
        tick_s=settings.tick_s,
        load_s=settings.load_timeout_s,
        retry_first_s=settings.retry_first_s,
        retry_most_s=settings.retry_most_s,
        seed_default_model=settings.seed_default_model,
    )


def main() -> int:
    """Run a provisioner process; return its exit code."""
    return service_main(ProvisionerSettings, start)


if __name__ == "__main__":
    sys.exit(main())
