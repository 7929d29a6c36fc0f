# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Turns the difference between plans and reports into orders, and learns from their answers."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from helexa.protocol.errors import (
    DrainingError,
    HelexaError,
    ShuttingDownError,
    StaleCommandError,
)
from helexa.protocol.messages.models import ModelConfig, ModelId, ModelState
from helexa.provisioner.backoff import Backoff
from helexa.provisioner.commands import Commands, Order, Step
from helexa.provisioner.hosts import Host, Plan, Wish
from helexa.provisioner.registry import Registry
from helexa.provisioner.wishes import Wishes

_log = logging.getLogger(__name__)

PACED = (DrainingError, ShuttingDownError, StaleCommandError)
"""Refusals that are no failure of the model. The next look, not their arrival, tries again."""
UNLOAD_RETRY_S = 5.0


class Orders:
    """Decides which commands to send now. What is under way is left alone."""

    def __init__(
        self,
        registry: Registry,
        wishes: Wishes,
        commands: Commands,
        wake: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        """Send by `commands`; call `wake` when an order has ended."""
        self._registry = registry
        self._wishes = wishes
        self._commands = commands
        self._wake = wake
        self._clock = clock
        self._unloads = Backoff(first_s=UNLOAD_RETRY_S)
        self._answered: dict[tuple[str, str], tuple[str, int]] = {}

    def give(
        self,
        wishes: Sequence[Wish],
        plans: Mapping[str, Plan],
        hosts: Sequence[Host],
        group: asyncio.TaskGroup,
    ) -> None:
        """Send what is needed to come nearer to `plans`."""
        reachable = [host for host in hosts if host.status and host.steady and not host.draining]
        known = {wish.model: wish.config for wish in wishes}
        places = {model: frozenset(plan.neurons) for model, plan in plans.items()}
        for host in reachable:
            self._clear(host, known, places, group)
        by_name = {host.neuron_id: host for host in reachable}
        for wish in wishes:
            self._load(wish, plans[wish.model], by_name, group)

    def failed(self, neuron_id: str, model: str, error: HelexaError) -> None:
        """Note that a model cannot be had on a neuron for now."""
        failure = self._wishes.backoff.fail(neuron_id, model, error.message, self._clock())
        _log.warning(
            "load_failed",
            extra={
                "neuron": neuron_id,
                "model": model,
                "failures": failure.count,
                "error": error.message,
            },
        )
        self._wake()

    def reported_failed(self, neuron_id: str, model: str, error: HelexaError) -> None:
        """Note a failure that a report tells of.

        While a load rests after a failure none is ordered: what a report tells then is the failure
        that an answer, which was faster, has told already.
        """
        if not self._rests(neuron_id, model):
            self.failed(neuron_id, model, error)

    def _clear(
        self,
        host: Host,
        known: Mapping[str, ModelConfig],
        places: Mapping[str, frozenset[str]],
        group: asyncio.TaskGroup,
    ) -> None:
        for reported in host.status.models if host.status else ():
            model = reported.model
            if self._must_wait(host, model) or reported.state == ModelState.UNLOADING:
                continue
            config = known.get(model)
            if config is None:
                if self._wishes.is_removed(model) and reported.state != ModelState.LOADING:
                    bare = ModelConfig(model=ModelId(model), backend_kind="")
                    self._send(Order(host.neuron_id, bare, (Step.FORGET,)), group)
            elif reported.state == ModelState.LOADED and host.neuron_id not in places[model]:
                self._send(Order(host.neuron_id, config, (Step.UNLOAD,)), group)

    def _load(
        self, wish: Wish, plan: Plan, reachable: Mapping[str, Host], group: asyncio.TaskGroup
    ) -> None:
        places = [reachable[name] for name in plan.neurons if name in reachable]
        whole = len(places) == len(plan.neurons) and all(
            host.has_loaded(wish.model)
            and not self._commands.is_under_way(host.neuron_id, wish.model)
            for host in places
        )
        for host in places:
            # The failure may be newer than the plan, whose decisions had to be written first.
            if self._rests(host.neuron_id, wish.model) or self._must_wait(host, wish.model):
                continue
            steps = self._steps(wish, host, whole=whole)
            if steps:
                self._send(Order(host.neuron_id, wish.config, steps), group)
                # A new configuration goes round: the next replica waits for this one.
                whole = False

    def _steps(self, wish: Wish, host: Host, *, whole: bool) -> tuple[Step, ...]:
        found = host.model(wish.model)
        state = found.state if found else ModelState.UNCONFIGURED
        if state in (ModelState.LOADING, ModelState.UNLOADING):
            return ()
        if state != ModelState.LOADED:
            return () if self._is_clearing(host) else (Step.CONFIGURE, Step.LOAD)
        digest = found.config_digest if found else ""
        if not digest or digest == wish.digest or not whole:
            return ()
        return (Step.CONFIGURE, Step.UNLOAD, Step.LOAD)

    def _is_clearing(self, host: Host) -> bool:
        """Whether a model is leaving the host: its memory is not free before it has left."""
        return any(
            each.state == ModelState.UNLOADING
            or (
                each.state == ModelState.LOADED
                and self._commands.is_under_way(host.neuron_id, each.model)
            )
            for each in (host.status.models if host.status else ())
        )

    def _rests(self, neuron_id: str, model: str) -> bool:
        failure = self._wishes.backoff.of(neuron_id, model)
        return failure is not None and failure.until > self._clock()

    def _must_wait(self, host: Host, model: str) -> bool:
        name = host.neuron_id
        if self._commands.is_under_way(name, model):
            return True
        failure = self._unloads.of(name, model)
        if failure is not None and failure.until > self._clock():
            return True
        # The neuron's answer may be ahead of its report.
        answered = self._answered.get((name, model))
        status = host.status
        return status is not None and (status.instance, status.sequence) == answered

    def _send(self, order: Order, group: asyncio.TaskGroup) -> None:
        self._commands.send(order, group, self._on_done)

    def _on_done(self, order: Order, error: HelexaError | None) -> None:
        loads = Step.LOAD in order.steps
        if isinstance(error, PACED):
            return
        if error is None:
            self._note_lag(order, loaded=loads)
            (self._wishes.backoff if loads else self._unloads).succeed(*order.key)
        elif loads:
            self.failed(*order.key, error)
        else:
            self._unloads.fail(*order.key, error.message, self._clock())
        self._wake()

    def _note_lag(self, order: Order, *, loaded: bool) -> None:
        host = self._registry.host(order.neuron_id)
        if host is None or host.status is None:
            return
        there = host.model(order.config.model) is not None
        forgotten = Step.FORGET in order.steps and there
        if forgotten or host.has_loaded(order.config.model) != loaded:
            self._answered[order.key] = (host.status.instance, host.status.sequence)
