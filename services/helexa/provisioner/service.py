# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One replica of the provisioner: its parts, put together, and what it answers on the bus."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from helexa.bus.client import Bus
from helexa.bus.lease import Lease
from helexa.bus.reports import hear_reports
from helexa.bus.service import Service
from helexa.process.metrics import Metrics
from helexa.protocol import subjects
from helexa.protocol.errors import HelexaError, UnavailableError
from helexa.protocol.messages.events import EventType, StateEvent
from helexa.protocol.messages.neurons import ShutdownNotice
from helexa.protocol.messages.provisioning import Ensured, EnsureRequest
from helexa.protocol.subjects import Role
from helexa.provisioner.announcer import Announcer
from helexa.provisioner.backoff import Backoff
from helexa.provisioner.catalogue import Catalogue
from helexa.provisioner.commands import Commands
from helexa.provisioner.demand import Demand
from helexa.provisioner.enrolment import Enrolment
from helexa.provisioner.identities import Identities
from helexa.provisioner.outlook import outlook
from helexa.provisioner.placements import DecisionLog, Placements
from helexa.provisioner.reconcile import Reconciler, State
from helexa.provisioner.records import MODEL_WANTED, Decision, ModelWanted, wall_ms
from helexa.provisioner.registry import Registry
from helexa.provisioner.seed import seed_catalogue
from helexa.provisioner.wishes import Wishes

_log = logging.getLogger(__name__)

QUEUE = "provisioner"
LEASE = "provisioner"
TELL_LEADER_S = 0.5
"""A replica that does not lead passes demand for a model on at most this often."""
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """Times and choices that differ between sites."""

    neuron_timeout_s: float = 10.0
    tick_s: float = 2.0
    load_s: float = 900.0
    retry_first_s: float = 5.0
    retry_most_s: float = 300.0
    seed_default_model: bool = True


class Provisioner:
    """A replica. All of them answer; the one with the lease gives orders."""

    def __init__(
        self,
        bus: Bus,
        metrics: Metrics,
        *,
        instance: str,
        options: Options | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Put the parts together; `jobs` have to be run, then `bind` makes it answer."""
        self.options = options or Options()
        self.bus = bus
        self.instance = instance
        self.enrolment: Enrolment | None = None
        """Set before `bind`, where this process can change who may join."""
        self.announcer = Announcer(bus)
        self.identities = Identities(bus)
        self.demand = Demand()
        self.decisions = DecisionLog()
        self.lease = Lease(bus, LEASE, instance)
        catalogue = Catalogue(bus)
        placements = Placements(bus)
        backoff = Backoff(first_s=self.options.retry_first_s, most_s=self.options.retry_most_s)
        self.state = State(
            catalogue,
            placements,
            Registry(
                bus,
                self.identities,
                self.announcer,
                timeout_s=self.options.neuron_timeout_s,
                clock=clock,
            ),
            Wishes(catalogue, placements, self.demand, backoff, clock),
        )
        self.reconciler = Reconciler(
            self.state,
            self.lease,
            Commands(
                bus,
                self.announcer,
                metrics,
                look=self.state.registry.host,
                fence=lambda: self.lease.fence if self.lease.is_held else 0,
                load_s=self.options.load_s,
            ),
            self.announcer,
            self.decisions,
            tick_s=self.options.tick_s,
            clock=clock,
        )
        self._clock = clock
        self._told_at: dict[str, float] = {}
        self._ensures = metrics.counter("provisioner_ensures", "Asked for a model.", "outcome")
        neurons = metrics.gauge("provisioner_neurons", "Neurons that are there.")
        neurons.set_function(lambda: self.state.registry.size)
        leads = metrics.gauge("provisioner_leads", "1 where this replica leads.")
        leads.set_function(lambda: int(self.lease.is_held))

    def jobs(self) -> Mapping[str, Coroutine[Any, Any, None]]:
        """Return what has to run beside the handlers; without `lease`, which ends first."""
        found: dict[str, Coroutine[Any, Any, None]] = {
            "catalogue": self.state.catalogue.mirror.run(),
            "placements": self.state.placements.mirror.run(),
            "registrations": self.state.registry.mirror.run(),
            "announcer": self.announcer.run(),
            "reconciler": self.reconciler.run(),
            "beginning": self._begin(),
        }
        if self.enrolment is not None:
            found["enrolment"] = self.enrolment.run()
        return found

    async def wait_fresh(self) -> None:
        """Return when the copies of all buckets are up to date."""
        await self.state.catalogue.mirror.wait_fresh()
        await self.state.placements.mirror.wait_fresh()
        await self.state.registry.mirror.wait_fresh()

    async def bind(self, service: Service) -> None:
        """Hear neurons and other replicas, then answer."""
        registry = self.state.registry
        await hear_reports(self.bus, registry.take_report)
        await self.bus.subscribe(subjects.STATE_EVENT, self._take_event, service=Role.PROVISIONER)
        await service.serve(subjects.REGISTER, registry.register, queue=QUEUE)
        await service.serve(subjects.DEPART, registry.depart, queue=QUEUE)
        await service.serve(subjects.ENSURE, self.ensure, queue=QUEUE)
        if self.enrolment is not None:
            await service.serve(subjects.ENROL, self.enrolment.enrol, queue=QUEUE)

    async def ensure(self, request: EnsureRequest) -> Ensured:
        """Make sure that a model gets loaded; many callers cause one load.

        Raises:
            UnknownModelError: there is no such model.
            ModelFailedError: it fails wherever it could be loaded.
            NoCapacityError: there is no room for it now.
            UnavailableError: the catalogue has not been read yet.
        """
        outcome = "error"
        try:
            if not self.state.is_fresh:
                raise UnavailableError("the site's state is being read", retry_after_s=1.0)
            model = self.state.catalogue.resolve(request.model).model
            self.want(model, max(1, request.waiting))
            found = outlook(self.state, model)
            outcome = found.state
        except HelexaError as error:
            outcome = error.code
            raise
        finally:
            self._ensures.labels(outcome).inc()
        return found

    def want(self, model: str, waiting: int) -> None:
        """Note that requests wait for a model, wherever the leader is."""
        now = self._clock()
        self.demand.note(model, waiting, now)
        if self.lease.is_held:
            self.reconciler.wake()
        elif now - self._told_at.get(model, float("-inf")) >= TELL_LEADER_S:
            self._told_at[model] = now
            self.announcer.tell(
                ModelWanted(type=MODEL_WANTED, at_ms=wall_ms(), model=model, waiting=waiting)
            )

    async def say_goodbye(self, reason: str) -> None:
        """Tell neurons and dashboards that this replica stops, and is expected back."""
        try:
            await self.bus.publish(subjects.NOTICE, ShutdownNotice(reason=reason))
        except HelexaError as error:
            _log.debug("notice_lost", extra={"error": error.message})
        self.announcer.say(EventType.CORTEX_SHUTDOWN_NOTICE, reason=reason)
        await self.announcer.flush()

    def _take_event(self, event: StateEvent) -> None:
        extra = event.model_extra or {}
        if event.type == MODEL_WANTED and event.model is not None:
            wanted = ModelWanted.model_validate(event.model_dump())
            self.demand.note(event.model, wanted.waiting, self._clock())
            self.reconciler.wake()
        elif event.type == EventType.PLACEMENT_CHANGED and "decision" in extra:
            decision = Decision.model_validate(extra["decision"])
            if decision.decided_by != self.instance:
                self.decisions.add(decision)

    async def _begin(self) -> None:
        """Fill an empty catalogue, and look whether it is sound, once this replica leads."""
        await self.lease.wait_held()
        await self.wait_fresh()
        while self.options.seed_default_model:
            try:
                await seed_catalogue(self.state.catalogue, self.state.placements)
                break
            except HelexaError as error:
                _log.warning("seeding_failed", extra={"error": error.message})
                await asyncio.sleep(RETRY_S)
        self.state.catalogue.report_conflicts()
