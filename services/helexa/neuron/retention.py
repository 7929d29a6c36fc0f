# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""How many frames are kept: so many bytes in all, of answers that have ended the newest first.

The bound covers what runs too: when running answers have half of it, each keeps at most an equal
share of that half, its newest frames.
"""

from collections import OrderedDict

from helexa.neuron.outbox import Outbox

MIB = 1024 * 1024
ENDED_BYTES = 2048
"""What an answer that has ended costs beside its frames."""


class Retention:
    """Bounds the memory of kept frames over all sites."""

    def __init__(self, max_bytes: int = 24 * MIB, keep_s: float = 60.0) -> None:
        """Keep at most `max_bytes`; whoever keeps an answer forgets it after `keep_s`."""
        self.max_bytes = max_bytes
        self.keep_s = keep_s
        self.kept_bytes = 0
        """What all answers cost together."""
        self._ended_bytes = 0
        """Of that, what has ended costs."""
        self._running = 0
        self._ended: OrderedDict[Outbox, None] = OrderedDict()

    def begin(self) -> None:
        """Count an answer that is being made."""
        self._running += 1

    def charge(self, outbox: Outbox, size: int) -> None:
        """Note that `outbox` keeps `size` bytes more, or fewer, and make room if that is due."""
        self.kept_bytes += size
        if size > 0 and self.kept_bytes > self.max_bytes:
            self._make_room()
        half = self.max_bytes // 2
        if size > 0 and self.kept_bytes - self._ended_bytes > half:
            # So what runs has at most one half more, if everybody else takes his whole share.
            share = half // max(1, self._running)
            if outbox.kept_bytes > share:
                outbox.drop_oldest(outbox.kept_bytes - share)

    def add(self, outbox: Outbox) -> None:
        """Keep the frames of an answer that has just ended, at the cost of older ones."""
        self._running -= 1
        self._ended[outbox] = None
        self.kept_bytes += ENDED_BYTES
        self._ended_bytes += ENDED_BYTES + outbox.kept_bytes
        if self.kept_bytes > self.max_bytes:
            self._make_room()

    def holds(self, outbox: Outbox) -> bool:
        """Whether an answer that has ended is still kept."""
        return outbox in self._ended

    def release(self, outbox: Outbox) -> None:
        """Forget an answer; one that is forgotten already does no harm."""
        if outbox in self._ended:
            del self._ended[outbox]
            self._drop(outbox)

    def _make_room(self) -> None:
        while self._ended and self.kept_bytes > self.max_bytes:
            self._drop(self._ended.popitem(last=False)[0])

    def _drop(self, outbox: Outbox) -> None:
        self.kept_bytes -= ENDED_BYTES
        self._ended_bytes -= ENDED_BYTES + outbox.kept_bytes
        outbox.drop_oldest(outbox.kept_bytes)
