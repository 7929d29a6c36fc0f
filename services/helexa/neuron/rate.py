# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""How many a second, over the last seconds."""

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class Rate:
    """A count over a sliding window."""

    window_s: float = 5.0
    _seconds: deque[tuple[int, int]] = field(default_factory=deque)

    def add(self, count: int, now_s: float) -> None:
        """Count `count` at `now_s`."""
        second = int(now_s)
        if self._seconds and self._seconds[-1][0] == second:
            count += self._seconds.pop()[1]
        self._seconds.append((second, count))
        while self._seconds[0][0] < second - self.window_s:
            self._seconds.popleft()

    def per_second(self, now_s: float) -> float:
        """Return the mean over the window that ends at `now_s`."""
        since = now_s - self.window_s
        return sum(count for second, count in self._seconds if second >= since) / self.window_s
