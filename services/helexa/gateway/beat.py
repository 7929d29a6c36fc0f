# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a gateway says of itself each second: that it lives, and what it saw."""

import asyncio
import contextlib
from collections.abc import Callable

from helexa.bus.client import Bus
from helexa.gateway.leases import Leases
from helexa.gateway.outcomes import Outcomes
from helexa.gateway.peers import BEAT_S
from helexa.protocol import subjects
from helexa.protocol.errors import HelexaError
from helexa.protocol.messages.routing import Feedback, GatewayBeat


class Pulse:
    """The beats and reports of one gateway."""

    def __init__(
        self,
        bus: Bus,
        me: str,
        outcomes: Outcomes,
        leases: Leases,
        requests: Callable[[], int],
    ) -> None:
        """Speak for the gateway `me`, which serves `requests()` now."""
        self._bus = bus
        self._me = me
        self._outcomes = outcomes
        self._leases = leases
        self._requests = requests

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            await self.beat()
            await self.report()
            await asyncio.sleep(BEAT_S)

    async def beat(self, *, last: bool = False) -> None:
        """Say that this gateway lives, or that it stops."""
        if self._bus.is_connected:
            beat = GatewayBeat(gateway=self._me, requests=self._requests(), returns=last)
            with contextlib.suppress(HelexaError):
                await self._bus.publish(subjects.GATEWAY_BEAT, beat, gateway=self._me)

    async def report(self) -> None:
        """Tell the schedulers what was seen since the last time."""
        if self._bus.is_connected:
            outcomes, leased = self._outcomes.take_all(), self._leases.take_told()
            if outcomes or leased:
                feedback = Feedback(gateway=self._me, outcomes=outcomes, leased=leased)
                with contextlib.suppress(HelexaError):
                    await self._bus.publish(subjects.FEEDBACK, feedback, gateway=self._me)
