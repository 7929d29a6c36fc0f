# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The host's slots: one pool over all models and all sites, so that none of them is promised twice.

There is no queue: work waits in the gateway, and what does not fit is refused at once.
"""

from collections import Counter
from collections.abc import Callable

from helexa.protocol.errors import BusyError

RETRY_AFTER_S = 1.0


class Slot:
    """One request's place."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        """Hold the place until `release`."""
        self._give_back: Callable[[], None] | None = give_back

    def release(self) -> None:
        """Give the place back; once is enough and more does no harm."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()


OF_ALL, OF_FREE = 8, 2
"""Others hear at once when such a part of all slots, or of the free ones, has changed hands. What
they do not know of is then too little to make a host look full that is not."""


class SlotPool:
    """Who may work now."""

    def __init__(self, limit: int = 0) -> None:
        """Offer `limit` slots in all; 0: as many as the loaded models have together."""
        self.limit = limit
        self.total = 0
        """Requests that the host takes at once."""
        self.busy = 0
        """Requests that the host serves now."""
        self._offered: dict[str, int] = {}
        self._busy: Counter[str] = Counter()
        self._untold = 0
        """Changes since the last news."""
        self._listeners: list[Callable[[], None]] = []
        self._news_listeners: list[Callable[[], None]] = []

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever a slot is taken or given back."""
        self._listeners.append(listener)

    def on_news(self, listener: Callable[[], None]) -> None:
        """Call `listener` when so much has changed that others should know of it at once."""
        self._news_listeners.append(listener)

    def offer(self, model: str, slots: int) -> None:
        """Set how many requests `model` takes at once; 0 withdraws it."""
        if slots:
            self._offered[model] = slots
        else:
            self._offered.pop(model, None)
        offered = sum(self._offered.values())
        self.total = min(self.limit, offered) if self.limit else offered
        self._changed(is_news=True)

    def take(self, model: str) -> Slot:
        """Return a slot for one request to `model`.

        Raises:
            BusyError: the model or the host has none left.
        """
        # Both limits are looked at before either is charged, so that nothing is held in vain.
        if self._busy[model] >= self._offered.get(model, 0):
            raise BusyError(f"all slots of {model} are taken", retry_after_s=RETRY_AFTER_S)
        if self.busy >= self.total:
            raise BusyError("all slots of the host are taken", retry_after_s=RETRY_AFTER_S)
        self._move(model, 1)
        return Slot(lambda: self._move(model, -1))

    def busy_of(self, model: str) -> int:
        """Return how many requests `model` serves now."""
        return self._busy[model]

    def offered_of(self, model: str) -> int:
        """Return how many requests `model` serves at once."""
        return self._offered.get(model, 0)

    @property
    def free(self) -> int:
        """Requests that the host could take now."""
        return max(0, self.total - self.busy)

    def is_full(self, model: str) -> bool:
        """Whether `model` could take no request now."""
        return self.busy >= self.total or self._busy[model] >= self._offered.get(model, 0)

    def _move(self, model: str, change: int) -> None:
        was_full = self.is_full(model)
        self.busy += change
        self._busy[model] += change
        self._untold += 1
        offered = self._offered.get(model, 0)
        free = min(self.free, offered - self._busy[model])
        is_much = self._untold * OF_ALL >= offered or self._untold * OF_FREE >= free
        self._changed(is_news=is_much or was_full)

    def _changed(self, *, is_news: bool) -> None:
        for listener in self._listeners:
            listener()
        if is_news:
            self._untold = 0
            for listener in self._news_listeners:
                listener()
