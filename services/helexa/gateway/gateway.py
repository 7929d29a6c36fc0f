# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A gateway put together: its parts, what they hear on the bus, and how it ends."""

import asyncio
import contextlib
import logging
import time

from helexa.bus.buckets import Bucket, Mirror
from helexa.bus.client import Bus
from helexa.bus.reports import hear_reports
from helexa.bus.resources import ensure_resources, restore_resources
from helexa.bus.service import Service
from helexa.bus.workqueue import WorkQueue
from helexa.gateway.attempts import Attempts, Patience
from helexa.gateway.authority import Authority
from helexa.gateway.beat import Pulse, tell_uses
from helexa.gateway.bulk import BulkDesk
from helexa.gateway.catalogue import Catalogue
from helexa.gateway.claims import Claims
from helexa.gateway.desk import Desk
from helexa.gateway.dispatch import Dispatcher
from helexa.gateway.fleet import Fleet, Seats
from helexa.gateway.homes import Homes
from helexa.gateway.inbox import Inbox
from helexa.gateway.jobs import Jobs
from helexa.gateway.line import Bounds
from helexa.gateway.outcomes import Outcomes
from helexa.gateway.peers import Peers
from helexa.gateway.rates import Rates
from helexa.gateway.reading import Limits
from helexa.gateway.routes import Routes
from helexa.gateway.settings import GatewaySettings
from helexa.gateway.sinks import PULSES_A_HEARTBEAT
from helexa.gateway.waiting import Lines
from helexa.process.durability import durability_of
from helexa.process.health import Readiness
from helexa.process.http import Listening, turn_away
from helexa.process.lifecycle import Life
from helexa.process.metrics import Metrics
from helexa.process.version import software_version
from helexa.protocol import resources, subjects
from helexa.protocol.errors import ShuttingDownError
from helexa.protocol.messages.accounts import KeyUses
from helexa.protocol.messages.models import ModelConfig
from helexa.protocol.messages.routing import GatewayBeat
from helexa.protocol.reports import NeuronReport
from helexa.protocol.subjects import Role

_log = logging.getLogger(__name__)

WAITERS_PART = 0.5
"""Of the grace; requests that wait for room are sent away that long before its end."""
NEXT_REQUEST_S = 0.1
"""How long after an answer the next request of its client may come on the same connection."""
FAREWELL_S = 2.0
"""How long the last events may take once everybody has been sent away."""


class Gateway:
    """One gateway process."""

    def __init__(
        self, settings: GatewaySettings, bus: Bus, me: str, authority: Authority, metrics: Metrics
    ) -> None:
        """Put the parts together; nothing is heard before `connect`."""
        self.bus = bus
        self.readiness = Readiness()
        self.readiness.require("nats", lambda: bus.is_connected)
        self.listens = asyncio.Event()
        """Set once everything is heard that the gateway needs to serve."""
        self.readiness.require("subscriptions", self.listens.is_set)
        self._settings = settings
        self._fleet = Fleet()
        self._peers = Peers(me, time.monotonic())
        self._rates = Rates(me, lambda: self._peers.count(time.monotonic()))
        self._lines = Lines(self._bounds, self._seats)
        self._fleet.on_news(self._lines.wake)
        self._inbox = Inbox(bus, me)
        outcomes = Outcomes()
        patience = Patience(settings.idle_timeout_s, settings.first_token_timeout_s)
        attempts = Attempts(self._inbox, patience)
        self._dispatcher = Dispatcher(
            bus,
            attempts,
            self._fleet,
            self._lines,
            outcomes,
            queue_timeout_s=settings.queue_timeout_s,
            away_timeout_s=settings.away_timeout_s,
        )
        jobs = Jobs()
        self._claims = Claims(jobs, attempts, self._fleet, authority, metrics)
        self._bulk = BulkDesk(
            WorkQueue(bus, resources.BULK),
            jobs,
            self._dispatcher,
            metrics,
            self._bulk_bounds,
            me=me,
            timeout_s=settings.bulk_timeout_s,
        )
        self._fleet.on_news(self._bulk.hear)
        self._service = Service(bus, Role.GATEWAY, instance=me, version=software_version())
        self._mirror = Mirror(Bucket(bus, resources.MODELS, ModelConfig))
        self._catalogue = Catalogue(self._mirror, self._fleet, lambda: bus.is_connected)
        self._mirror.on_change(self._catalogue.take)
        desk = Desk(
            inbox=self._inbox,
            homes=Homes(bus),
            attempts=attempts,
            dispatcher=self._dispatcher,
            bulk=self._bulk,
            fleet=self._fleet,
            outcomes=outcomes,
            authority=authority,
            rates=self._rates,
            limits=Limits(
                settings.heartbeat_s,
                settings.idle_timeout_s,
                settings.first_token_timeout_s,
                settings.go_on_timeout_s,
            ),
            max_attempts=settings.max_attempts,
            client_buffer_bytes=settings.client_buffer_bytes,
            show_route=settings.show_route,
        )
        self.routes = Routes(settings, desk, self._catalogue, self._peers, self.readiness, metrics)
        self._lines.on_line(self.routes.numbers.show_line)
        self._pulse = Pulse(
            bus, me, outcomes, self._dispatcher.leases, lambda: len(self.routes.running)
        )
        bus.on_reconnected(self._after_reconnect)

    async def connect(self, life: Life) -> None:
        """Wait for the bus, then listen and beat; returns when the gateway can serve."""
        await self.bus.wait_connected()
        await self._inbox.subscribe()
        await self._service.serve(subjects.CLAIM, self._claims.claim, gateway=self._inbox.me)
        await hear_reports(self.bus, self._take_report)
        await self.bus.subscribe(subjects.GATEWAY_BEAT, self._take_beat)
        await self.bus.subscribe(subjects.KEY_USES, self._take_uses)
        life.run("catalogue", self._mirror.run())
        life.run("beat", self._pulse.run())
        life.run("key_uses", tell_uses(self.bus, self._inbox.me, self._rates))
        life.run("readers", self._inbox.pulse(self._settings.heartbeat_s / PULSES_A_HEARTBEAT))
        await ensure_resources(self.bus, Role.GATEWAY, durability_of(self._settings))
        self.listens.set()
        _log.info("listening_to_site")

    async def drain(self, listening: Listening) -> None:
        """Turn balancers away, take nothing new, finish what runs, send the rest away.

        All that within the grace, from now on; who still waits at half of it may find a place at
        another gateway sooner.
        """
        end = asyncio.get_running_loop().time() + self._settings.grace_s
        delay_s = min(self._settings.drain_delay_s, self._settings.grace_s)
        await turn_away(self.readiness, [listening], delay_s)
        self.routes.is_stopping = True
        rest_s = self._settings.grace_s - delay_s
        await self._until_quiet(end - rest_s * WAITERS_PART)
        self._lines.close()
        self._bulk.close()
        await self._until_quiet(end)
        for reader in self._inbox.readers:
            reader.fail(ShuttingDownError("The gateway stops.", retry_after_s=1, goes_on=True))
        await self._until_idle(asyncio.get_running_loop().time() + FAREWELL_S)
        await self._dispatcher.cancels.finish()
        await self._bulk.finish()
        await self._service.drain(0)

    async def say_goodbye(self) -> None:
        """Tell everybody that this gateway is gone."""
        await self._pulse.report()
        await self._pulse.beat(last=True)

    def _bounds(self) -> Bounds:
        """Return this gateway's part of the places in a line."""
        gateways = self._peers.count(time.monotonic())
        asked = (self._settings.queue_limit, self._settings.queue_limit_per_key)
        return Bounds(*(part_of(limit, gateways) for limit in asked))

    def _bulk_bounds(self) -> Bounds:
        gateways = self._peers.count(time.monotonic())
        asked = (self._settings.bulk_limit, self._settings.bulk_limit_per_key)
        return Bounds(*(part_of(limit, gateways) for limit in asked))

    def _seats(self, model: str) -> Seats:
        return self._fleet.seats(model, time.monotonic())

    async def _until_quiet(self, deadline: float) -> None:
        """Return when nothing runs, and nothing has come from who has just been answered."""
        loop = asyncio.get_running_loop()
        while loop.time() < deadline:
            await self._until_idle(deadline)
            await asyncio.sleep(min(NEXT_REQUEST_S, max(0.0, deadline - loop.time())))
            if not self.routes.running:
                return

    async def _until_idle(self, deadline: float) -> None:
        running = self.routes.running
        running.changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while running:
                    await running.changed.wait()
                    running.changed.clear()

    def _take_report(self, report: NeuronReport, _: bytes) -> None:
        self._hear()
        self._fleet.take(report, time.monotonic())
        self._dispatcher.cancels.heard(report.neuron_id)

    def _take_beat(self, beat: GatewayBeat) -> None:
        self._hear()
        self._peers.take(beat, time.monotonic())

    def _take_uses(self, uses: KeyUses) -> None:
        self._rates.hear(uses, time.monotonic())

    def _hear(self) -> None:
        now = time.monotonic()
        if self._fleet.hear(now):
            self._peers.listen_anew(now)
            self._inbox.listen_anew(now)

    async def _after_reconnect(self) -> None:
        now = time.monotonic()
        self._fleet.listen_anew(now)
        self._peers.listen_anew(now)
        self._inbox.mend_all()
        # A log in memory starts empty with its server.
        await restore_resources(self.bus, Role.GATEWAY, durability_of(self._settings))
        self._bulk.look()
        await self._inbox.renew_all()


def part_of(limit: int, gateways: int) -> int:
    """Return one gateway's part of a limit: at least 1, unless the limit is 0."""
    return max(1, limit // gateways) if limit else 0
