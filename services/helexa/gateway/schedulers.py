# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Asking the schedulers: one that hangs costs a moment, a restart of all of them a short wait."""

import time

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from helexa.bus.client import Bus
from helexa.protocol import errors, subjects
from helexa.protocol.messages.routing import RoutingDecision, ScheduleRequest

ONE_WITHIN_S = 0.5
"""One scheduler has so long to answer; then all of them are asked."""
ANY_WITHIN_S = 3.0


class Schedulers:
    """The schedulers of the site, as requests need them."""

    def __init__(self, bus: Bus, away_timeout_s: float) -> None:
        """Ask over `bus`; from the first time that nobody answers, wait so long for one who does.

        That is counted once for all requests: the later ones need not wait in vain.
        """
        self._bus = bus
        self._away_timeout_s = away_timeout_s
        self._silent_since: float | None = None

    async def ask(self, asked: ScheduleRequest) -> RoutingDecision:
        """Return what a scheduler decides.

        Raises:
            NoRespondersError: there is none.
            UnavailableError: none answers, or the site's servers cannot be reached.
            HelexaError: what it says of the request.
        """
        try:
            decision = await self._ask(asked)
        except errors.HelexaError as error:
            if not self._nobody_answered(error):
                raise
            decision = await self._ask_again(asked)
        self._silent_since = None
        return decision

    async def _ask_again(self, asked: ScheduleRequest) -> RoutingDecision:
        # Made only when it is needed: retrying machinery costs as much as the request itself.
        retrying = AsyncRetrying(
            stop=self._is_too_long,
            wait=wait_random_exponential(multiplier=0.1, max=1.0),
            retry=retry_if_exception(self._nobody_answered),
            reraise=True,
        )
        try:
            return await retrying(self._ask, asked)
        except errors.NoRespondersError as error:
            raise errors.NoRespondersError("No scheduler is running.", retry_after_s=2) from error
        except errors.DeadlineExceededError as error:
            raise errors.UnavailableError("The scheduler does not answer.") from error

    async def _ask(self, asked: ScheduleRequest) -> RoutingDecision:
        try:
            return await self._bus.request(subjects.SCHEDULE, asked, deadline_s=ONE_WITHIN_S)
        except errors.DeadlineExceededError:
            return await self._bus.request(subjects.SCHEDULE_ANY, asked, deadline_s=ANY_WITHIN_S)

    def _nobody_answered(self, error: BaseException) -> bool:
        """Note, and return, whether the error is that nobody answered; others are an answer."""
        is_silence = type(error) in (
            errors.UnavailableError,
            errors.NoRespondersError,
            errors.DeadlineExceededError,
        )
        if not is_silence:
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = time.monotonic()
        return is_silence

    def _is_too_long(self, _: RetryCallState) -> bool:
        since = self._silent_since
        return since is not None and time.monotonic() - since > self._away_timeout_s
