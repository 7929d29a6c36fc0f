# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Frames of many streams that leave together.

Most of what a frame costs is that it goes alone: a system call here, and one more at the server and
at the gateway each. So frames wait a few milliseconds for one another where there are many, and go
at once where there are few.
"""

import asyncio
import time
from typing import Protocol


class Departing(Protocol):
    """Has something to send."""

    def depart(self, now_s: float) -> None:
        """Send it."""


class Departures:
    """When frames may leave."""

    def __init__(self, interval_s: float) -> None:
        """Let frames leave together every `interval_s`."""
        self._interval_s = interval_s
        self._left_s = 0.0
        self._waiting: dict[int, list[Departing]] = {}
        """Who leaves at which multiple of the interval."""
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0

    def add(self, who: Departing, at_s: float, now_s: float) -> None:
        """Have `who` depart once, with others soon after `at_s`; at once if nothing left lately.

        Args:
            who: Whoever has something to send.
            at_s: On the clock of `time.monotonic`, as `now_s`.
            now_s: Now.
        """
        is_due = at_s <= now_s
        if is_due and now_s - self._left_s >= self._interval_s:
            self._left_s = now_s
            who.depart(now_s)
            return
        turn = int((now_s if is_due else at_s) / self._interval_s) + 1
        self._waiting.setdefault(turn, []).append(who)
        if self._timer is None or turn < self._next:
            self._arm(turn, now_s)

    def _arm(self, turn: int, now_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = turn
        wait_s = max(0.0, turn * self._interval_s - now_s)
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._on_turn)

    def _on_turn(self) -> None:
        self._timer = None
        now_s = self._left_s = time.monotonic()
        # A timer may be early by the loop's resolution.
        latest = max(self._next, int(now_s / self._interval_s))
        for turn in sorted(turn for turn in self._waiting if turn <= latest):
            for who in self._waiting.pop(turn):
                who.depart(now_s)
        if self._waiting and self._timer is None:
            self._arm(min(self._waiting), now_s)
