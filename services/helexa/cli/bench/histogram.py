# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Durations as counts in buckets, so that an hour of tokens takes as much memory as a second."""

import math

_FINEST_S = 1e-6
_PER_FACTOR_E = 200
"""Buckets for each factor e: a bucket is half a percent wide."""


class Histogram:
    """Durations, known to half a percent; what is shorter than a microsecond counts as one."""

    def __init__(self) -> None:
        """Begin with none."""
        self.count = 0
        self._sum_s = 0.0
        self._least_s = math.inf
        self._most_s = 0.0
        self._buckets: dict[int, int] = {}

    def add(self, duration_s: float, times: int = 1) -> None:
        """Take in a duration, or `times` of it."""
        shortest = duration_s <= _FINEST_S
        bucket = 0 if shortest else int(math.log(duration_s / _FINEST_S) * _PER_FACTOR_E) + 1
        self._buckets[bucket] = self._buckets.get(bucket, 0) + times
        self.count += times
        self._sum_s += duration_s * times
        self._least_s = min(self._least_s, duration_s)
        self._most_s = max(self._most_s, duration_s)

    @property
    def mean_s(self) -> float | None:
        """The mean; `None` of nothing."""
        return self._sum_s / self.count if self.count else None

    @property
    def most_s(self) -> float | None:
        """The longest; `None` of nothing."""
        return self._most_s if self.count else None

    def percentile_s(self, share: float) -> float | None:
        """Return the shortest duration that `share` (0 to 1) of all do not exceed.

        `None` of nothing.
        """
        if not self.count:
            return None
        rank = max(1, math.ceil(share * self.count))
        for bucket in sorted(self._buckets):
            rank -= self._buckets[bucket]
            if rank <= 0:
                return min(max(_middle_s(bucket), self._least_s), self._most_s)
        return self._most_s


def _middle_s(bucket: int) -> float:
    return 0.0 if bucket == 0 else _FINEST_S * math.exp((bucket - 0.5) / _PER_FACTOR_E)
