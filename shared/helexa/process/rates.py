# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""How much of something may be done in a time. Times are those of one monotonic clock.

An allowance that is full lets `Rate.capacity` through at once and `Rate.per_s` a second after
that: over any `t` seconds no more than ``capacity + per_s * t``, and one piece besides where pieces
are larger than what it can hold.
"""

from dataclasses import dataclass
from typing import NamedTuple

NEVER_S = 86_400.0
"""How long to wait for what does not come."""
LOOKED_THROUGH = 4096


class Rate(NamedTuple):
    """How fast an allowance fills, and how much it holds."""

    capacity: float
    per_s: float


def rate_of(limit: float, period_s: float, parts: int = 1) -> Rate:
    """Return one of so many equal parts of `limit` in each `period_s`.

    A part holds at least one, or it would never let anything through.
    """
    return Rate(max(1.0, limit / parts), limit / parts / period_s)


@dataclass(slots=True)
class Allowance:
    """What may be done still."""

    rate: Rate
    level: float
    """Negative after a piece that was larger than what it can hold."""
    at_s: float
    """The time for which that holds."""

    def fill(self, rate: Rate, now_s: float) -> None:
        """Add what has come since it was last filled, at `rate`."""
        passed_s = max(0.0, now_s - self.at_s)
        self.rate = rate
        self.level = min(rate.capacity, self.level + passed_s * rate.per_s)
        self.at_s = now_s

    def wait_s(self, amount: float) -> float:
        """Return how long to wait until `amount` may be used: 0 if at once.

        What is more than it can hold may be used when it is full.
        """
        lacks = min(amount, self.rate.capacity) - self.level
        if lacks <= 0:
            return 0.0
        return lacks / self.rate.per_s if self.rate.per_s else NEVER_S

    def full_in_s(self) -> float:
        """Return how long it takes to fill."""
        return self.wait_s(self.rate.capacity)

    def use(self, amount: float) -> None:
        """Take `amount` out, or put it back where it is negative."""
        self.level -= amount


class Allowances:
    """One allowance a name, full at first; those that are full again are forgotten."""

    def __init__(self) -> None:
        """Begin with none."""
        self._found: dict[str, Allowance] = {}
        self._look_at = LOOKED_THROUGH

    def __len__(self) -> int:
        """Return how many are not known to be full."""
        return len(self._found)

    def of(self, name: str, rate: Rate, now_s: float) -> Allowance:
        """Return what `name` may do still, at `rate`."""
        found = self._found.get(name)
        if found is None:
            self._forget(now_s)
            found = self._found[name] = Allowance(rate, rate.capacity, now_s)
        else:
            found.fill(rate, now_s)
        return found

    def _forget(self, now_s: float) -> None:
        if len(self._found) < self._look_at:
            return
        for each in self._found.values():
            each.fill(each.rate, now_s)
        self._found = {
            name: each for name, each in self._found.items() if each.level < each.rate.capacity
        }
        self._look_at = max(LOOKED_THROUGH, 2 * len(self._found))
