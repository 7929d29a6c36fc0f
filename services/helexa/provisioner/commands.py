# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Sends orders to neurons: one at a time for a model on a neuron, a bounded number in all."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from helexa.bus.client import Bus
from helexa.process.metrics import Metrics
from helexa.protocol.errors import (
    ERRORS_BY_CODE,
    HelexaError,
    ModelFailedError,
    StaleCommandError,
)
from helexa.protocol.messages.events import EventType
from helexa.protocol.messages.models import ModelConfig
from helexa.protocol.messages.provisioning import ProvisioningError, ProvisioningResponse
from helexa.provisioner.announcer import Announcer
from helexa.provisioner.catalogue import config_digest
from helexa.provisioner.hosts import Host
from helexa.provisioner.neuron_client import RemoteNeuron
from helexa.provisioner.watch import Goal, answer_or_report

_log = logging.getLogger(__name__)

AT_ONCE = 32
"""Orders under way at the same time."""
LOAD_BUCKETS_S = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)


class Step(StrEnum):
    """One command of an order."""

    CONFIGURE = "upsert_model_config"
    LOAD = "load_model"
    UNLOAD = "unload_model"
    FORGET = "forget_model"


@dataclass(frozen=True, slots=True)
class Order:
    """Commands for one model on one neuron, in order; the first that fails ends it."""

    neuron_id: str
    config: ModelConfig
    steps: tuple[Step, ...]

    @property
    def key(self) -> tuple[str, str]:
        """What may have one order at a time."""
        return (self.neuron_id, self.config.model)


Done = Callable[[Order, HelexaError | None], None]


class Commands:
    """The orders under way."""

    def __init__(
        self,
        bus: Bus,
        announcer: Announcer,
        metrics: Metrics,
        *,
        look: Callable[[str], Host | None],
        fence: Callable[[], int],
        load_s: float,
    ) -> None:
        """Send over `bus`, each command with the leader's `fence` of that moment.

        `look` returns a neuron as it is now.
        """
        self._bus = bus
        self._announcer = announcer
        self._look = look
        self._fence = fence
        self._load_s = load_s
        self._room = asyncio.Semaphore(AT_ONCE)
        self._under_way: set[tuple[str, str]] = set()
        self._count = metrics.counter(
            "provisioning_commands", "Commands sent to neurons.", "command", "outcome"
        )
        self._load_time = metrics.histogram(
            "model_load_seconds", "Time of a successful load.", buckets=LOAD_BUCKETS_S
        )

    def is_under_way(self, neuron_id: str, model: str) -> bool:
        """Whether a model on a neuron has an order that has not ended."""
        return (neuron_id, model) in self._under_way

    def send(self, order: Order, group: asyncio.TaskGroup, done: Done) -> None:
        """Carry out `order` in `group`, then call `done` with what went wrong.

        Nothing happens if its model has an order on that neuron already.
        """
        if order.key not in self._under_way:
            self._under_way.add(order.key)
            group.create_task(self._carry_out(order, done), name=f"order-{order.neuron_id}")

    async def _carry_out(self, order: Order, done: Done) -> None:
        failure: HelexaError | None = None
        try:
            async with self._room:
                for step in order.steps:
                    await self._command(order, step)
        except HelexaError as error:
            failure = error
            _log.warning(
                "order_failed",
                extra={
                    "neuron": order.neuron_id,
                    "model": order.config.model,
                    "code": error.code,
                    "error": error.message,
                },
            )
        finally:
            self._under_way.discard(order.key)
        done(order, failure)

    async def _command(self, order: Order, step: Step) -> None:
        fence = self._fence()
        if not fence:
            raise StaleCommandError("this provisioner does not lead any more")
        model = order.config.model
        self._announcer.say(
            EventType.PROVISIONING_SENT, neuron_id=order.neuron_id, model=model, reason=step
        )
        began = time.perf_counter()
        outcome = "ok"
        try:
            message = _checked(await self._ask(order, step, fence))
            if step is Step.LOAD:
                self._load_time.observe(time.perf_counter() - began)
        except HelexaError as error:
            outcome, message = error.code, error.message
            raise
        finally:
            self._count.labels(str(step), outcome).inc()
            self._announcer.say(
                EventType.PROVISIONING_RESPONSE,
                neuron_id=order.neuron_id,
                model=model,
                state=outcome,
                reason=message if outcome != "ok" else step,
            )

    async def _ask(self, order: Order, step: Step, fence: int) -> ProvisioningResponse:
        neuron = RemoteNeuron(self._bus, order.neuron_id, load_s=self._load_s)
        model = order.config.model
        if step is Step.CONFIGURE:
            return await neuron.configure_model(order.config, fence=fence)
        if step is Step.LOAD:
            asked = neuron.load_model(model, fence=fence)
            goal = Goal(model, loaded=True, digest=config_digest(order.config))
        else:
            asked = neuron.unload_model(model, forget=step is Step.FORGET, fence=fence)
            goal = Goal(model, loaded=False)
        return await answer_or_report(asked, goal, lambda: self._look(order.neuron_id))


def _checked(response: ProvisioningResponse) -> str:
    outcome = response.outcome
    if isinstance(outcome, ProvisioningError):
        kind = ERRORS_BY_CODE.get(outcome.code, ModelFailedError)
        raise kind(outcome.error)
    return outcome.message
