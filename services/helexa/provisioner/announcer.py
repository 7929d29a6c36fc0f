# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Tells the site what has changed, in order, without holding up who noticed it."""

import asyncio
import logging

from helexa.bus.client import Bus
from helexa.protocol import subjects
from helexa.protocol.errors import HelexaError
from helexa.protocol.messages.events import StateEvent
from helexa.protocol.subjects import Role
from helexa.provisioner.records import wall_ms

_log = logging.getLogger(__name__)

MOST_WAITING = 10_000
"""Events kept while the servers cannot be reached; older ones go."""


class Announcer:
    """A line of events to publish. They inform; nothing depends on their arrival."""

    def __init__(self, bus: Bus) -> None:
        """Publish over `bus` once `run` runs."""
        self._bus = bus
        self._line: asyncio.Queue[StateEvent] = asyncio.Queue(MOST_WAITING)

    def say(
        self,
        kind: str,
        *,
        neuron_id: str | None = None,
        model: str | None = None,
        state: str | None = None,
        reason: str = "",
    ) -> None:
        """Tell of a change of the given `EventType`."""
        self.tell(
            StateEvent(
                type=kind,
                at_ms=wall_ms(),
                neuron_id=neuron_id,
                model=model,
                state=state,
                reason=reason,
            )
        )

    def tell(self, event: StateEvent) -> None:
        """Tell of a change."""
        if self._line.full():
            self._line.get_nowait()
        self._line.put_nowait(event)

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self._publish(await self._line.get())

    async def flush(self) -> None:
        """Publish what is waiting now."""
        while not self._line.empty():
            await self._publish(self._line.get_nowait())

    async def _publish(self, event: StateEvent) -> None:
        try:
            await self._bus.publish(
                subjects.STATE_EVENT, event, service=Role.PROVISIONER, past=event.type
            )
        except HelexaError as error:
            _log.debug("event_lost", extra={"type": event.type, "error": error.message})
