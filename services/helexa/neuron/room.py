# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""How much of a host bulk work may take: never the last seat, and nothing that others wait for."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from helexa.neuron.slots import SlotPool

SETTLE_S = 0.25
"""When a seat comes free on a full host, requests that wait at gateways have so long to take it."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Seats:
    """The slots of a host or of one model."""

    total: int
    busy: int

    @property
    def has_spare(self) -> bool:
        """Whether one is left beside the next; the only one there is goes to who finds it idle."""
        free = self.total - self.busy
        return free >= 2 or (free == 1 and self.total == 1)


def may_take(host: Seats, model: Seats, bulk: int, most: int | None) -> bool:
    """Whether one more piece of bulk work may begin.

    Args:
        host: All slots.
        model: The slots of the work's model.
        bulk: Slots that have bulk work already.
        most: Slots that may have it; `None`: all but one.
    """
    limit = max(1, host.total - 1) if most is None else most
    return bulk < limit and host.has_spare and model.has_spare


class BulkRoom:
    """The room of one host for bulk work of all its sites."""

    def __init__(
        self, slots: SlotPool, most: int | None = None, clock: Clock = time.monotonic
    ) -> None:
        """Let bulk work have at most `most` of `slots`; `None`: all but one."""
        self.bulk = 0
        """Slots that bulk work has, or is being given."""
        self._slots = slots
        self._most = most
        self._clock = clock
        self._free_at_s: dict[str, float | None] = {}
        """Since when each model has had a free slot; `None`: it has none."""
        self._listeners: list[Callable[[], None]] = []
        # A model becomes full, or is full no more, only where few slots are left: that is news.
        slots.on_news(self._look)

    def wait_s(self, model: str) -> float | None:
        """Return in how many seconds there is room, 0 for now; `None`: not unless things change."""
        if model not in self._free_at_s:
            self._free_at_s[model] = None if self._slots.is_full(model) else self._clock()
        free_at_s = self._free_at_s[model]
        host, seats = self._host(), self._seats(model)
        if free_at_s is None or not may_take(host, seats, self.bulk, self._most):
            return None
        return max(0.0, free_at_s + SETTLE_S - self._clock())

    def begin(self) -> None:
        """Count a slot that bulk work gets."""
        self.bulk += 1

    def end(self) -> None:
        """Count a slot that bulk work gives back."""
        self.bulk -= 1
        for listener in self._listeners:
            listener()

    def on_end(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever bulk work has given back a slot."""
        self._listeners.append(listener)

    def _look(self) -> None:
        for model, free_at_s in self._free_at_s.items():
            if self._slots.is_full(model):
                self._free_at_s[model] = None
            elif free_at_s is None:
                self._free_at_s[model] = self._clock()

    def _host(self) -> Seats:
        return Seats(self._slots.total, self._slots.busy)

    def _seats(self, model: str) -> Seats:
        return Seats(self._slots.offered_of(model), self._slots.busy_of(model))
