# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Which loads are not tried again yet.

Kept apart by neuron and model: one host's failure says nothing of the others.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known of the failed loads of one model on one neuron."""

    count: int
    reason: str
    until: float
    """No load is tried before this time."""


class Backoff:
    """Failures in a row, each doubling the time until the next attempt."""

    def __init__(self, *, first_s: float = 5.0, most_s: float = 300.0, factor: float = 2.0) -> None:
        """Wait `first_s` after the first failure, and never longer than `most_s`."""
        self._first_s = first_s
        self._most_s = most_s
        self._factor = factor
        self._failures: dict[tuple[str, str], Failure] = {}

    def fail(self, neuron_id: str, model: str, reason: str, now: float) -> Failure:
        """Note a failure and return what is known now."""
        before = self._failures.get((neuron_id, model))
        count = before.count + 1 if before else 1
        wait_s = min(self._first_s * self._factor ** min(count - 1, 32), self._most_s)
        made = Failure(count, reason, now + wait_s)
        self._failures[(neuron_id, model)] = made
        return made

    def succeed(self, neuron_id: str, model: str) -> None:
        """Forget the failures of a model that was loaded after all."""
        self._failures.pop((neuron_id, model), None)

    def forget_model(self, model: str) -> None:
        """Forget all failures of a model: its configuration has changed."""
        for key in [key for key in self._failures if key[1] == model]:
            del self._failures[key]

    def of(self, neuron_id: str, model: str) -> Failure | None:
        """Return what is known of a model on a neuron, waiting or not."""
        return self._failures.get((neuron_id, model))

    def next_end(self, now: float) -> float | None:
        """Return when the first wait that is still running ends."""
        return min(
            (each.until for each in self._failures.values() if each.until > now), default=None
        )
