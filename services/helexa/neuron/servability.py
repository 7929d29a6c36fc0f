# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Whether a loaded model would serve a request: what its runtime says when it is asked.

It is asked now and then while nothing runs, and at once after a request has failed: until it is
known better, nothing more is sent to a runtime that failed. What waits meanwhile waits in the
gateway, which hears of the return in a moment.
"""

import asyncio
from collections.abc import Callable

from helexa.neuron.backends.interface import Backend
from helexa.protocol.errors import BackendError

PROBE_TIMEOUT_S = 10.0
DOUBT_TIMEOUT_S = 2.0
FIRST_PAUSE_S = 0.5
PAUSE_COEFFICIENT = 1.5
LONGEST_PAUSE_S = 5.0

Told = Callable[[bool, str], bool]
"""Takes whether the runtime serves, and why not; returns whether it is still the one in use."""


class Servability:
    """What is known of one loaded runtime."""

    def __init__(self, backend: Backend, is_busy: Callable[[], bool], told: Told) -> None:
        """Ask `backend`, and say by `told` what it says."""
        self._backend = backend
        self._is_busy = is_busy
        self._told = told
        self._asking: asyncio.Task[None] | None = None
        self.is_doubted = False
        """Whether a request has just failed, and it is not known yet what that means."""

    async def probe(self) -> None:
        """Find out, unless requests tell it all the time."""
        if not self._is_busy() and self._asking is None:
            await self._ask(PROBE_TIMEOUT_S)

    def doubt(self) -> None:
        """Ask because a request has failed, and go on asking until the runtime is well."""
        if self._asking is None:
            self.is_doubted = True
            self._asking = asyncio.create_task(self._until_well(), name="until-well")

    async def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _until_well(self) -> None:
        pause_s = FIRST_PAUSE_S
        try:
            while not await self._ask(DOUBT_TIMEOUT_S):
                self.is_doubted = False
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * PAUSE_COEFFICIENT, LONGEST_PAUSE_S)
        finally:
            self.is_doubted = False
            self._asking = None

    async def _ask(self, timeout_s: float) -> bool:
        """Return whether there is nothing more to ask."""
        reason = ""
        try:
            async with asyncio.timeout(timeout_s):
                await self._backend.probe()
        except TimeoutError:
            # One that answers requests may have no time for questions.
            reason = "" if self._is_busy() else "the probe took too long"
        except BackendError as error:
            reason = error.message or "the probe failed"
        return not (self._told(not reason, reason) and reason)
