# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a gateway says of itself: each second that it lives and what it saw, sooner what it used."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from helexa.bus.client import Bus
from helexa.gateway.leases import Leases
from helexa.gateway.outcomes import Outcomes
from helexa.gateway.peers import BEAT_S
from helexa.gateway.rates import Rates
from helexa.protocol import subjects
from helexa.protocol.errors import HelexaError
from helexa.protocol.messages.routing import Feedback, GatewayBeat

TELL_S = 0.25
"""How long what was used of the limits of keys stays untold."""


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


async def tell_uses(bus: Bus, me: str, rates: Rates) -> None:
    """Tell the other gateways what is used here of the limits of keys, until cancelled."""
    while True:
        await rates.has_news.wait()
        await asyncio.sleep(TELL_S)
        told = rates.take_untold(time.monotonic())
        with contextlib.suppress(HelexaError):
            await bus.publish(subjects.KEY_USES, told, gateway=me)
