# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Which loads are not tried again yet.

Kept apart by neuron and model: one host's failure says nothing of the others.
"""

from collections.abc import Mapping
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
        self._failures: dict[str, dict[str, Failure]] = {}
        """By model, then by neuron."""

    def fail(self, neuron_id: str, model: str, reason: str, now: float) -> Failure:
        """Note a failure and return what is known now."""
        before = self.of(neuron_id, model)
        count = before.count + 1 if before else 1
        wait_s = min(self._first_s * self._factor ** min(count - 1, 32), self._most_s)
        made = Failure(count, reason, now + wait_s)
        self._failures.setdefault(model, {})[neuron_id] = made
        return made

    def succeed(self, neuron_id: str, model: str) -> None:
        """Forget the failures of a model that was loaded after all."""
        self._failures.get(model, {}).pop(neuron_id, None)

    def forget_model(self, model: str) -> None:
        """Forget all failures of a model: its configuration has changed."""
        self._failures.pop(model, None)

    def of(self, neuron_id: str, model: str) -> Failure | None:
        """Return what is known of a model on a neuron, waiting or not."""
        return self._failures.get(model, {}).get(neuron_id)

    def of_model(self, model: str) -> Mapping[str, Failure]:
        """Return what is known of a model by neuron, waiting or not."""
        return self._failures.get(model, {})

    def next_end(self, now: float) -> float | None:
        """Return when the first wait that is still running ends."""
        failures = (each for of_model in self._failures.values() for each in of_model.values())
        return min((each.until for each in failures if each.until > now), default=None)
