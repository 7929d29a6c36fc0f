# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""When a process that failed is started again, and when it has failed too often. Pure."""

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How often a child may fail, and the waits between its starts."""

    initial_interval_s: float = 0.5
    backoff_coefficient: float = 2.0
    maximum_interval_s: float = 10.0
    maximum_failures: int = 5
    window_s: float = 60.0
    """The failures of this last span count."""


class Restarts:
    """The failures of one child, and what follows from them."""

    def __init__(self, policy: RestartPolicy) -> None:
        """Begin without failures."""
        self.policy = policy
        self._failed_at: deque[float] = deque()

    def next_wait_s(self, now_s: float, chance: float) -> float | None:
        """Note a failure at `now_s` and return the wait before the next start.

        `chance`, from 0 to 1, spreads the wait. `None` means that the child failed too often.
        """
        policy = self.policy
        self._failed_at.append(now_s)
        while self._failed_at[0] <= now_s - policy.window_s:
            self._failed_at.popleft()
        if len(self._failed_at) >= policy.maximum_failures:
            return None
        grown = policy.backoff_coefficient ** (len(self._failed_at) - 1)
        return chance * min(policy.initial_interval_s * grown, policy.maximum_interval_s)
