# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Many deadlines on one timer: nearly all of them are called off before they come."""

import asyncio
import math
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)


class Deadlines(Generic[KeyT]):
    """Tells what is over.

    One timer is set for the earliest deadline and moved when it fires: a timer for each request
    costs more than all else that is done to wait for its answer.
    """

    def __init__(self, when_over: Callable[[KeyT], object]) -> None:
        """Call `when_over` with each key whose time has come; it must not raise."""
        self._when_over = when_over
        self._due: dict[KeyT, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = math.inf

    def set(self, key: KeyT, at: float) -> None:
        """Let `key` be over once `time.monotonic()` reaches `at`."""
        self._due[key] = at
        if at < self._fires_at:
            self._arm(at)

    def call_off(self, key: KeyT) -> None:
        """Forget `key`; nothing happens where it is not known."""
        self._due.pop(key, None)

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._fires_at = at
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, at - time.monotonic()), self._fire)

    def _fire(self) -> None:
        self._timer, self._fires_at = None, math.inf
        now = time.monotonic()
        over = [key for key, at in self._due.items() if at <= now]
        for key in over:
            del self._due[key]
        if self._due:
            self._arm(min(self._due.values()))
        for key in over:
            self._when_over(key)


class TaskLimit:
    """The end of the time that a caller waits for a task."""

    __slots__ = ("_is_over", "_task")

    def __init__(self, task: asyncio.Task[object] | None) -> None:
        self._task = task
        self._is_over = False

    def end(self) -> None:
        """Cancel the task: nobody waits any more."""
        self._is_over = True
        if self._task is not None:
            self._task.cancel()

    def was_the_reason(self) -> bool:
        """Whether the task was cancelled by this, and by nothing else."""
        return self._is_over and self._task is not None and self._task.uncancel() == 0
