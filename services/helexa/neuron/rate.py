# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""How many a second, over the last seconds."""

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class Rate:
    """A count over a sliding window."""

    window_s: float = 5.0
    _second: int = 0
    _count: int = 0
    """Of that second, which is not among `_past`."""
    _past: deque[tuple[int, int]] = field(default_factory=deque)

    def add(self, count: int, now_s: float) -> None:
        """Count `count` at `now_s`."""
        second = int(now_s)
        if second != self._second:
            self._past.append((self._second, self._count))
            self._second, self._count = second, 0
            while self._past and self._past[0][0] < second - self.window_s:
                self._past.popleft()
        self._count += count

    def per_second(self, now_s: float) -> float:
        """Return the mean over the window that ends at `now_s`."""
        since = now_s - self.window_s
        seconds = (*self._past, (self._second, self._count))
        return sum(count for second, count in seconds if second >= since) / self.window_s
