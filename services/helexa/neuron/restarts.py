# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""How often, and how soon, a runtime that died is started again."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Back-off between restarts, and the end of patience."""

    initial_interval_s: float = 0.5
    backoff_coefficient: float = 2.0
    maximum_interval_s: float = 30.0
    maximum_attempts: int = 5
    """Deaths in a row after which the model counts as failed."""
    healthy_after_s: float = 60.0
    """A runtime that lived so long starts a new row."""

    def pause_s(self, deaths: int, jitter: float) -> float | None:
        """Return how long to wait after the last of `deaths` in a row; `None`: give up.

        `jitter` is a random number from 0 to 1.
        """
        if deaths > self.maximum_attempts:
            return None
        longest = self.initial_interval_s * self.backoff_coefficient ** (deaths - 1)
        return min(longest, self.maximum_interval_s) * (0.5 + jitter / 2)
