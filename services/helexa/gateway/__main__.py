# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The gateway as a process."""

import asyncio
import contextlib
import logging
import sys

from helexa.bus.client import Bus
from helexa.gateway.authority import settings_authority
from helexa.gateway.gateway import Gateway
from helexa.gateway.keyring import Keyring, SiteAuthority
from helexa.gateway.settings import GatewaySettings
from helexa.process.http import Listening, serve_http
from helexa.process.lifecycle import Life
from helexa.process.logs import name_instance
from helexa.process.metrics import Metrics
from helexa.process.running import service_main
from helexa.process.settings import SocketAddress
from helexa.protocol.naming import instance_id
from helexa.protocol.subjects import Role
from helexa.site.connect import site_connection

_log = logging.getLogger(__name__)

LISTEN_WITHIN_S = 3.0
"""A balancer that finds the port open may send requests before it asks `/readyz`. So the port opens
when they can be served; without a site it opens after this time, to tell so."""
HTTP_GRACE_S = 1.0
"""Everything has been served or sent away before the socket closes."""


async def start(life: Life, settings: GatewaySettings) -> Listening:
    """Start a gateway and return where it listens. It ends with `life`."""
    me = instance_id()
    name_instance(me)
    known = settings_authority(settings)
    bus = Bus(site_connection(settings, Role.GATEWAY, instance=me))
    await life.resources.enter_async_context(bus)
    metrics = Metrics("gateway", me)
    keyring = Keyring(bus, wait_s=settings.away_timeout_s)
    gateway = Gateway(settings, bus, me, SiteAuthority(known, keyring), metrics)
    life.resources.push_async_callback(gateway.say_goodbye)
    await life.watch(bus)
    life.run("keys", keyring.run())
    life.run("gateway", gateway.connect(life))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(gateway.listens.wait(), LISTEN_WITHIN_S)
    address = SocketAddress.parse(settings.socket)
    listening = await life.resources.enter_async_context(
        serve_http(
            gateway.routes,
            address,
            grace_s=HTTP_GRACE_S,
            direct=gateway.routes.direct,
            share_port=settings.share_port,
        )
    )
    _log.info("serving", extra={"role": "gateway", "address": str(listening.address)})
    life.resources.push_async_callback(gateway.drain, listening)
    life.run("metrics", metrics.publish(bus, settings.metrics_interval_s))
    return listening


def main() -> int:
    """Run a gateway until a signal ends it, and return its exit code."""
    return service_main(GatewaySettings, start)


if __name__ == "__main__":
    sys.exit(main())
