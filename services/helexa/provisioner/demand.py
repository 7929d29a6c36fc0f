# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Who waits for which model.

Gateways repeat themselves while requests wait; what is not repeated ends.
"""

from dataclasses import dataclass

FRESH_S = 30.0
"""How long one word from a gateway counts."""


@dataclass(slots=True)
class Asked:
    """The demand for one model."""

    at: float
    waiting: int
    count: int = 1
    """How often it was asked for, since this process began."""


class Demand:
    """The demand for each model, as this replica has heard it."""

    def __init__(self) -> None:
        """Begin without any."""
        self._asked: dict[str, Asked] = {}

    def note(self, model: str, waiting: int, now: float) -> None:
        """Take a gateway's word that `waiting` requests wait for `model`."""
        known = self._asked.get(model)
        if known is None:
            self._asked[model] = Asked(now, waiting)
            return
        known.at = now
        known.waiting = waiting
        known.count += 1

    def waiting(self, model: str, now: float) -> int:
        """Return how many wait for `model` now."""
        known = self._asked.get(model)
        return known.waiting if known and now - known.at <= FRESH_S else 0

    def settle(self, model: str) -> None:
        """Take it that nobody waits any more: the model is there and has room."""
        if known := self._asked.get(model):
            known.waiting = 0

    def last_at(self, model: str) -> float | None:
        """Return when `model` was last asked for."""
        known = self._asked.get(model)
        return known.at if known else None

    def count(self, model: str) -> int:
        """Return how often `model` was asked for."""
        known = self._asked.get(model)
        return known.count if known else 0
