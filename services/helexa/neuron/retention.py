# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""How many frames of answers that have ended are kept: so many bytes in all, the newest first."""

from collections import deque

from helexa.neuron.outbox import Outbox

MIB = 1024 * 1024


class Retention:
    """Bounds the memory of kept frames over all sites."""

    def __init__(self, max_bytes: int = 64 * MIB, keep_s: float = 60.0) -> None:
        """Keep at most `max_bytes`; whoever keeps an answer forgets it after `keep_s`."""
        self.max_bytes = max_bytes
        self.keep_s = keep_s
        self._ended: deque[Outbox] = deque()
        self._bytes = 0

    @property
    def kept_bytes(self) -> int:
        """Bytes of ended answers that are kept."""
        return self._bytes

    def add(self, outbox: Outbox) -> None:
        """Keep the frames of an answer that has just ended, at the cost of older ones."""
        self._ended.append(outbox)
        self._bytes += outbox.kept_bytes
        while self._bytes > self.max_bytes and self._ended:
            oldest = self._ended.popleft()
            self._bytes -= oldest.kept_bytes
            oldest.drop_oldest(oldest.kept_bytes)

    def release(self, outbox: Outbox) -> None:
        """Forget an answer."""
        if outbox in self._ended:
            self._ended.remove(outbox)
            self._bytes -= outbox.kept_bytes
            outbox.drop_oldest(outbox.kept_bytes)
