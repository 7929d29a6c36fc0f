# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The leader's loop: makes what neurons report become what the catalogue and demand want."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from helexa.bus.buckets import Entry
from helexa.bus.lease import Lease
from helexa.protocol.errors import ConflictError, HelexaError, UnavailableError
from helexa.protocol.messages.events import EventType
from helexa.protocol.messages.models import ModelId, ModelState
from helexa.protocol.reports import ModelReport
from helexa.provisioner.announcer import Announcer
from helexa.provisioner.catalogue import Catalogue
from helexa.provisioner.commands import Commands
from helexa.provisioner.hosts import Plan, Wish
from helexa.provisioner.orders import Orders
from helexa.provisioner.placement import plan_all
from helexa.provisioner.placements import DecisionLog, Placements
from helexa.provisioner.records import Decision, Desired, PlacementChanged, wall_ms
from helexa.provisioner.registry import Registry
from helexa.provisioner.wishes import Wishes

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class State:
    """What a replica knows, leading or not."""

    catalogue: Catalogue
    placements: Placements
    registry: Registry
    wishes: Wishes

    @property
    def is_fresh(self) -> bool:
        """Whether the copies of all buckets are up to date."""
        return (
            self.catalogue.mirror.is_fresh
            and self.placements.mirror.is_fresh
            and self.registry.mirror.is_fresh
        )

    def think(self) -> dict[str, Plan]:
        """Return where every model should be by now."""
        hosts = self.registry.hosts()
        return plan_all(self.wishes.all(hosts), hosts)


class Reconciler:
    """Compares and orders while this replica holds the lease; else it only keeps watch."""

    def __init__(
        self,
        state: State,
        lease: Lease,
        commands: Commands,
        announcer: Announcer,
        decisions: DecisionLog,
        *,
        tick_s: float,
        clock: Callable[[], float],
    ) -> None:
        """Look at the whole state on each change, and every `tick_s` seconds."""
        self._state = state
        self._lease = lease
        self._commands = commands
        self._announcer = announcer
        self._decisions = decisions
        self._tick_s = tick_s
        self._clock = clock
        self._wake = asyncio.Event()
        self._orders = Orders(state.registry, state.wishes, commands, self.wake, clock)
        state.registry.on_change(self.wake)
        state.registry.on_state(self._on_state)
        state.catalogue.mirror.on_change(lambda _model, _config: self.wake())
        state.placements.mirror.on_change(lambda _model, _desired: self.wake())

    def wake(self) -> None:
        """Look at the whole state soon: something has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Reconcile until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._wake_when_held(), name="reconcile-lead")
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._tick_s):
                        await self._wake.wait()
                self._wake.clear()
                began = time.monotonic()
                self._watch()
                if self._lease.is_held and self._state.is_fresh:
                    await self._reconcile(group)
                # When a large site starts, changes come faster than they can be looked at one by
                # one: half of the time is for those who bring them.
                await asyncio.sleep(min(time.monotonic() - began, self._tick_s))

    async def _wake_when_held(self) -> None:
        await self._lease.wait_held()
        self.wake()

    def _watch(self) -> None:
        for neuron_id, event in self._state.registry.sweep():
            if self._lease.is_held:
                _log.warning(event, extra={"neuron": neuron_id})
                self._announcer.say(event, neuron_id=neuron_id, reason="it has fallen silent")

    async def _reconcile(self, group: asyncio.TaskGroup) -> None:
        try:
            hosts = self._state.registry.hosts()
            wishes = self._state.wishes.all(hosts)
            entries = {wish.model: self._state.placements.get(wish.model) for wish in wishes}
            plans = plan_all(wishes, hosts)
            for wish in wishes:
                await self._decide(wish, plans[wish.model], entries[wish.model])
            await self._bury()
        except ConflictError:
            # Another writer was first: an operator, or a leader that came or went.
            self.wake()
        except UnavailableError as error:
            _log.warning("reconcile_waits", extra={"error": error.message})
        else:
            # What neurons have reported while decisions were written counts.
            self._orders.give(wishes, plans, self._state.registry.hosts(), group)

    async def _decide(self, wish: Wish, plan: Plan, before: Entry[Desired] | None) -> None:
        if tuple(plan.neurons) == wish.current:
            return
        reason = "; ".join(plan.reasons)
        desired = Desired(
            model=ModelId(wish.model),
            neurons=tuple(plan.neurons),
            reason=reason,
            decided_at_ms=wall_ms(),
            asked=wish.asked,
            asked_neurons=wish.asked_neurons,
            stopped=wish.stopped,
        )
        await self._state.placements.write(desired, before)
        self._state.wishes.changed(wish.model)
        decision = Decision(
            at_ms=desired.decided_at_ms,
            model=wish.model,
            before=wish.current,
            neurons=desired.neurons,
            reasons=tuple(plan.reasons),
            wanted=plan.wanted,
            waiting=wish.waiting,
            needs=plan.needs,
            rejected=plan.rejected,
            decided_by=self._lease.instance,
        )
        self._decisions.add(decision)
        _log.info("placement_changed", extra=decision.model_dump(exclude={"at_ms"}))
        self._announcer.tell(
            PlacementChanged(
                type=EventType.PLACEMENT_CHANGED,
                at_ms=decision.at_ms,
                model=wish.model,
                reason=reason,
                decision=decision,
            )
        )

    async def _bury(self) -> None:
        """Mark the placements of models that are no longer in the catalogue."""
        known = self._state.catalogue.models
        for model in self._state.placements.models:
            if model in known:
                continue
            entry = self._state.placements.get(model)
            if entry and not entry.value.removed:
                gone = Desired(model=ModelId(model), removed=True, decided_at_ms=wall_ms())
                await self._state.placements.write(gone, entry)

    def _on_state(self, neuron_id: str, model: ModelReport, before: str | None) -> None:
        if not self._lease.is_held:
            return
        self._announcer.say(
            EventType.MODEL_STATE_CHANGED,
            neuron_id=neuron_id,
            model=model.model,
            state=model.state,
            reason=model.error or (f"was {before}" if before else ""),
        )
        failed = model.state == ModelState.FAILED
        if failed and not self._commands.is_under_way(neuron_id, model.model):
            # It broke by itself; where an order fails, its answer says so.
            error = HelexaError(model.error or "it failed")
            self._orders.reported_failed(neuron_id, model.model, error)
