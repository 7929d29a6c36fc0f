# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The host's slots: one pool over all models and all sites, so that none of them is promised twice.

There is no queue: work waits in the gateway, and what does not fit is refused at once.
"""

from collections.abc import Callable
from dataclasses import dataclass

from helexa.protocol.errors import BusyError

RETRY_AFTER_S = 1.0
OF_ALL, OF_FREE = 8, 2
"""Others hear at once when such a part of all slots, or of the free ones, has changed hands. What
they do not know of is then too little to make a host look full that is not."""


@dataclass(slots=True)
class Places:
    """The slots of one model."""

    offered: int = 0
    busy: int = 0


class Slot:
    """One request's place."""

    __slots__ = ("_places", "_pool")

    def __init__(self, pool: "SlotPool", places: Places) -> None:
        """Hold the place until `release`."""
        self._pool: SlotPool | None = pool
        self._places = places

    def release(self) -> bool:
        """Give the place back, and return whether it was held until now."""
        pool, self._pool = self._pool, None
        if pool is None:
            return False
        pool.move(self._places, -1)
        return True


class SlotPool:
    """Who may work now."""

    def __init__(self, limit: int = 0) -> None:
        """Offer `limit` slots in all; 0: as many as the loaded models have together."""
        self.limit = limit
        self.total = 0
        """Requests that the host takes at once."""
        self.busy = 0
        """Requests that the host serves now."""
        self._places: dict[str, Places] = {}
        """By model; of each that was ever offered."""
        self._untold = 0
        """Changes since the last news."""
        self._news_listeners: list[Callable[[], None]] = []

    def on_news(self, listener: Callable[[], None]) -> None:
        """Call `listener` when so much has changed that others should know of it at once.

        That is also whenever at most two slots are left free, of a model or of the host.
        """
        self._news_listeners.append(listener)

    def offer(self, model: str, slots: int) -> None:
        """Set how many requests `model` takes at once; 0 withdraws it."""
        self._of(model).offered = slots
        offered = sum(places.offered for places in self._places.values())
        self.total = min(self.limit, offered) if self.limit else offered
        self._tell()

    def take(self, model: str) -> Slot:
        """Return a slot for one request to `model`.

        Raises:
            BusyError: the model or the host has none left.
        """
        # Both limits are looked at before either is charged, so that nothing is held in vain.
        places = self._places.get(model)
        if places is None or places.busy >= places.offered:
            raise BusyError(f"all slots of {model} are taken", retry_after_s=RETRY_AFTER_S)
        if self.busy >= self.total:
            raise BusyError("all slots of the host are taken", retry_after_s=RETRY_AFTER_S)
        self.move(places, 1)
        return Slot(self, places)

    def busy_of(self, model: str) -> int:
        """Return how many requests `model` serves now."""
        places = self._places.get(model)
        return places.busy if places else 0

    def offered_of(self, model: str) -> int:
        """Return how many requests `model` serves at once."""
        places = self._places.get(model)
        return places.offered if places else 0

    @property
    def free(self) -> int:
        """Requests that the host could take now."""
        return max(0, self.total - self.busy)

    def is_full(self, model: str) -> bool:
        """Whether `model` could take no request now."""
        return self.busy >= self.total or self.busy_of(model) >= self.offered_of(model)

    def move(self, places: Places, change: int) -> None:
        """Count that a slot among `places` was taken, 1, or given back, -1."""
        places.busy += change
        self.busy += change
        self._untold += 1
        # The first slot that a full host has again is news too: it is the only one.
        free = min(self.total - self.busy, places.offered - places.busy)
        if self._untold * OF_ALL >= places.offered or self._untold * OF_FREE >= free:
            self._tell()

    def _of(self, model: str) -> Places:
        return self._places.setdefault(model, Places())

    def _tell(self) -> None:
        self._untold = 0
        for listener in self._news_listeners:
            listener()
