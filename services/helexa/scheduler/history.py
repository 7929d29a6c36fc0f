# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What gateways saw of each replica, with old observations fading away.

Fading is what lets a replica recover: one that is avoided makes no new observations.
"""

import math
from dataclasses import dataclass

HEAVIEST = 20.0
"""Weight of all past observations together; bounds how long a long bad time is remembered."""
DOUBT = 2.0
"""Weight of the assumption that a replica is as good as any, before there are observations."""


@dataclass(slots=True)
class _Fading:
    """A weighted sum of observations, each halved in weight every half-life."""

    half_life_s: float
    weight: float = 0.0
    total: float = 0.0
    at: float = 0.0

    def observe(self, value: float, weight: float, now: float) -> None:
        self.fade(now)
        self.weight += weight
        self.total += value * weight
        if self.weight > HEAVIEST:
            self.total *= HEAVIEST / self.weight
            self.weight = HEAVIEST

    def fade(self, now: float) -> None:
        kept = math.exp2(-max(0.0, now - self.at) / self.half_life_s)
        self.weight *= kept
        self.total *= kept
        self.at = now


@dataclass(frozen=True, slots=True)
class Experience:
    """What is known of one replica now."""

    first_token_s: float | None = None
    """Mean of the faded observations; `None` where there are none."""
    confidence: float = 0.0
    """How much the mean is worth, from 0 (nothing) to nearly 1."""
    error_rate: float = 0.0
    """Part of the attempts that failed, pulled towards 0 where there were few."""


class History:
    """The experience with the replicas of one model or more, by (neuron, model)."""

    def __init__(self, half_life_s: float) -> None:
        """Let observations count half after `half_life_s`."""
        self._half_life_s = half_life_s
        self._latency: dict[tuple[str, str], _Fading] = {}
        self._failures: dict[tuple[str, str], _Fading] = {}

    def first_token(self, neuron_id: str, model: str, seconds: float, now: float) -> None:
        """Note the time to the first token of one answer."""
        self._of(self._latency, neuron_id, model, now).observe(seconds, 1.0, now)

    def attempts(
        self, neuron_id: str, model: str, *, completed: int, failed: int, now: float
    ) -> None:
        """Note how attempts ended. Being refused for want of room is no failure."""
        if completed + failed:
            share = failed / (completed + failed)
            seen = self._of(self._failures, neuron_id, model, now)
            seen.observe(share, float(completed + failed), now)

    def of(self, neuron_id: str, model: str, now: float) -> Experience:
        """Return what is known of one replica."""
        latency = self._latency.get((neuron_id, model))
        failures = self._failures.get((neuron_id, model))
        first_token_s, confidence, error_rate = None, 0.0, 0.0
        if latency is not None and latency.weight:
            latency.fade(now)
            first_token_s = latency.total / latency.weight if latency.weight else None
            confidence = latency.weight / (latency.weight + DOUBT)
        if failures is not None:
            failures.fade(now)
            error_rate = failures.total / (failures.weight + DOUBT)
        return Experience(first_token_s, confidence, error_rate)

    def forget(self, neuron_id: str) -> None:
        """Drop everything about a neuron."""
        for kept in (self._latency, self._failures):
            for key in [key for key in kept if key[0] == neuron_id]:
                del kept[key]

    def _of(
        self, kept: dict[tuple[str, str], _Fading], neuron_id: str, model: str, now: float
    ) -> _Fading:
        return kept.setdefault((neuron_id, model), _Fading(self._half_life_s, at=now))
