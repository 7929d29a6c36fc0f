# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Whether a loaded model would serve a request: what its runtime says when it is asked.

It is asked now and then while nothing runs, and at once after a request has failed: until it is
known better, nothing more is sent to a runtime that failed. What waits meanwhile waits in the
gateway, which hears of the return in a moment.
"""

import asyncio
import time
from collections.abc import Callable

from helexa.neuron.backends.interface import Backend
from helexa.protocol.errors import BackendError, HelexaError

PROBE_TIMEOUT_S = 10.0
DOUBT_TIMEOUT_S = 2.0
FIRST_PAUSE_S = 0.5
PAUSE_COEFFICIENT = 1.5
LONGEST_PAUSE_S = 5.0
CHECK_AFTER_S = 3.0
"""A whole answer shows nothing of its growth: after so long its runtime is asked beside it."""
CHECK_TIMEOUT_S = 4.0
CHECK_PAUSE_S = 1.0
CHECKS_TO_LOSE = 2
"""So many in a row without an answer mean that the runtime is gone."""

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
        self._heard_s = 0.0
        self._checking: asyncio.Task[None] | None = None
        self._checked_s = 0.0
        self._missed = 0
        """Checks in a row that have failed."""
        self._answers_at_work = False
        """Whether it has ever answered a check: some have no time for questions beside work."""

    async def probe(self) -> None:
        """Find out, unless requests tell it all the time."""
        if not self._is_busy() and self._asking is None:
            await self._ask(PROBE_TIMEOUT_S)

    def doubt(self) -> None:
        """Ask because a request has failed, and go on asking until the runtime is well."""
        if self._asking is None:
            self.is_doubted = True
            self._asking = asyncio.create_task(self._until_well(), name="until-well")

    def hear(self, now_s: float) -> None:
        """Note a sign of life."""
        self._heard_s = now_s
        self._missed = 0

    def check(self, now_s: float) -> None:
        """Ask beside the work, if that is due."""
        if self._checking is None and now_s - self._checked_s >= CHECK_PAUSE_S:
            self._checking = asyncio.create_task(self.ask_at_work(), name="ask-at-work")

    def loss(self, since_s: float, now_s: float, limit_s: float) -> BackendError | None:
        """Return why nothing more is to be expected of an answer, `None` if something is.

        Args:
            since_s: When the answer was asked for.
            now_s: Now, on the same clock.
            limit_s: How long the whole runtime may be silent.
        """
        if self._missed >= CHECKS_TO_LOSE:
            return BackendError("the backend does not answer any more")
        if now_s - max(since_s, self._heard_s) >= limit_s:
            return BackendError(f"the backend was silent for {limit_s:g} s")
        return None

    async def close(self) -> None:
        """Ask no more."""
        tasks = [task for task in (self._asking, self._checking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def ask_at_work(self) -> None:
        """Ask the runtime while it has requests, and note what comes of it."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await self._backend.probe()
        except TimeoutError:
            self._missed += self._answers_at_work
        except HelexaError:
            self._missed += 1
        else:
            self._answers_at_work = True
            self.hear(time.monotonic())
        finally:
            self._checked_s = time.monotonic()
            self._checking = None

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
        if not reason:
            self._missed = 0
        return not (self._told(not reason, reason) and reason)
