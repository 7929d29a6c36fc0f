# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Asking the schedulers: one that hangs costs a moment, a restart of all of them a short wait."""

from helexa.bus.client import Bus
from helexa.gateway.away import Away
from helexa.protocol import errors, subjects
from helexa.protocol.messages.routing import RoutingDecision, ScheduleRequest

ONE_WITHIN_S = 0.5
"""One scheduler has so long to answer; then all of them are asked."""
ANY_WITHIN_S = 3.0


class Schedulers:
    """The schedulers of the site, as requests need them."""

    def __init__(self, bus: Bus, away_timeout_s: float) -> None:
        """Ask over `bus`, and wait `away_timeout_s` for who does not answer."""
        self._bus = bus
        self._away = Away(away_timeout_s)

    async def ask(self, asked: ScheduleRequest) -> RoutingDecision:
        """Return what a scheduler decides.

        Raises:
            NoRespondersError: there is none.
            UnavailableError: none answers, or the site's servers cannot be reached.
            HelexaError: what it says of the request.
        """
        try:
            return await self._away.ask(lambda: self._ask(asked))
        except errors.NoRespondersError as error:
            raise errors.NoRespondersError("No scheduler is running.", retry_after_s=2) from error
        except errors.DeadlineExceededError as error:
            raise errors.UnavailableError("The scheduler does not answer.") from error

    async def _ask(self, asked: ScheduleRequest) -> RoutingDecision:
        try:
            return await self._bus.request(subjects.SCHEDULE, asked, deadline_s=ONE_WITHIN_S)
        except errors.DeadlineExceededError:
            return await self._bus.request(subjects.SCHEDULE_ANY, asked, deadline_s=ANY_WITHIN_S)
