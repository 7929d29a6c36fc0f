# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One site that this neuron has joined: its calls served, its cortex kept informed."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from helexa.bus.client import Bus
from helexa.bus.service import Service
from helexa.neuron.agent import NeuronAgent
from helexa.neuron.bulk import BulkWork, Shop
from helexa.neuron.ending import Ending
from helexa.neuron.executor import Executor
from helexa.neuron.meters import Meters
from helexa.neuron.outbox import Outbox
from helexa.neuron.pace import Pace
from helexa.neuron.presence import Presence
from helexa.neuron.retention import Retention
from helexa.neuron.room import BulkRoom
from helexa.neuron.service import NeuronService
from helexa.neuron.usage import UsageSender, sign_usage, usage_record
from helexa.process.version import software_version
from helexa.protocol import subjects
from helexa.protocol.errors import HelexaError
from helexa.protocol.messages.execution import ExecuteRequest
from helexa.protocol.messages.neurons import Departure, Registration, ShutdownNotice
from helexa.protocol.messages.routing import GatewayBeat
from helexa.protocol.messages.usage import SignedFields
from helexa.protocol.naming import encode_token
from helexa.protocol.subjects import Role
from helexa.site.keys import Identity

_log = logging.getLogger(__name__)

REGISTER_INTERVAL_S = 20.0
REGISTER_WITHIN_S = 5.0
REGISTER_AGAIN_S = 1.0
"""After a server's restart a provisioner may be back later than we are."""
DEBOUNCE_S = 0.02
LAST_WORDS_WITHIN_S = 2.0

Run = Callable[[str, Coroutine[None, None, None]], None]


@dataclass(frozen=True, slots=True)
class Sharing:
    """What all sites of one neuron have in common."""

    presence: Presence
    identity: Identity
    meters: Meters
    room: BulkRoom
    retention: Retention = field(default_factory=Retention)
    pace: Pace = field(default_factory=Pace)
    status_interval_s: float = 1.0


class SiteLink:
    """This neuron's part in one site."""

    def __init__(self, name: str, bus: Bus, shared: Sharing) -> None:
        """Take part over `bus`; `join` begins."""
        self.name = name
        self.bus = bus
        self._shared = shared
        self._token = encode_token(shared.presence.neuron_id)
        self.usage = UsageSender(bus, shared.presence.neuron_id)
        self.executor = Executor(
            shared.presence.neuron_id,
            shared.presence.host,
            bus,
            self._certify,
            retention=shared.retention,
            pace=shared.pace,
        )
        self.agent = NeuronAgent(shared.presence, self.executor)
        shop = Shop(shared.presence.host, shared.room, shared.meters, self._is_open)
        self.bulk = BulkWork(bus, self.executor, shop)
        self._service = Service(
            bus, Role.NEURON, instance=shared.presence.instance, version=software_version()
        )
        self._changed = asyncio.Event()
        self._register_now = asyncio.Event()

    def start(self, run: Run) -> None:
        """Do everything that goes on beside requests, by `run(name, work)`."""
        self._shared.presence.host.on_change(self._changed.set)
        self.bus.on_reconnected(self._on_reconnected)
        run(f"watch-{self.name}", self.executor.run(lambda: self.bus.is_connected))
        run(f"usage-{self.name}", self.usage.run())
        run(f"bulk-{self.name}", self.bulk.run())
        run(f"join-{self.name}", self._join())

    async def leave(self, reason: str) -> None:
        """Say goodbye, after all requests have ended."""
        await self._service.drain(0)
        if not self.bus.is_connected:
            return
        await self.usage.flush(LAST_WORDS_WITHIN_S)
        presence = self._shared.presence
        departure = Departure(
            neuron_id=presence.neuron_id, instance=presence.instance, reason=reason
        )
        try:
            await self.bus.request(
                subjects.DEPART, departure, deadline_s=LAST_WORDS_WITHIN_S, neuron=self._token
            )
        except HelexaError as error:
            _log.warning("departure_unheard", extra={"site": self.name, "error": error.message})

    async def _join(self) -> None:
        await NeuronService(self.agent).bind(self._service)
        await self.bus.subscribe(subjects.GATEWAY_BEAT, self._on_beat)
        await self.bus.subscribe(subjects.NOTICE, self._on_notice)
        _log.info("joined", extra={"site": self.name, "neuron": self._shared.presence.neuron_id})
        await asyncio.gather(self._keep_registered(), self._report())

    async def _report(self) -> None:
        while True:
            self._changed.clear()
            with contextlib.suppress(HelexaError):
                if self.bus.is_connected:
                    await self.bus.publish(
                        subjects.NEURON_STATUS, self.agent.next_report(), neuron=self._token
                    )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), self._shared.status_interval_s)
                await asyncio.sleep(DEBOUNCE_S)

    async def _keep_registered(self) -> None:
        while True:
            self._register_now.clear()
            next_s = REGISTER_INTERVAL_S
            try:
                await self._register()
            except HelexaError as error:
                _log.info("not_registered", extra={"site": self.name, "error": error.message})
                next_s = REGISTER_AGAIN_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._register_now.wait(), next_s)

    async def _register(self) -> None:
        registration = Registration(
            descriptor=self._shared.presence.descriptor(), status=self.agent.status()
        )
        await self.bus.request(
            subjects.REGISTER, registration, deadline_s=REGISTER_WITHIN_S, neuron=self._token
        )

    def _certify(self, request: ExecuteRequest, outbox: Outbox, ending: Ending) -> SignedFields:
        record = usage_record(request, outbox, ending, self._shared.presence.neuron_id)
        signed = sign_usage(record, self._shared.identity)
        self.usage.add(request.portal, signed)
        self._shared.meters.ended(str(request.model), ending)
        return signed

    def _on_beat(self, beat: GatewayBeat) -> None:
        self.executor.hear(beat.gateway)
        self.bulk.owners.hear(beat.gateway, time.monotonic(), leaves=beat.returns)

    def _is_open(self) -> bool:
        return not (self.executor.is_draining or self._shared.presence.is_draining)

    def _on_notice(self, notice: ShutdownNotice) -> None:
        _log.warning(
            "cortex_stops",
            extra={"site": self.name, "reason": notice.reason, "returns": notice.returns},
        )

    async def _on_reconnected(self) -> None:
        self._register_now.set()
        self._changed.set()
        await self.executor.republish()
