# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A backend's events on their way into frames: those that come fast share one."""

import time

from helexa.neuron.departures import Departures
from helexa.neuron.outbox import Outbox
from helexa.neuron.splice import Splicer
from helexa.protocol.errors import HelexaError

FLUSH_BYTES = 256 * 1024
"""So much text goes out without waiting for the interval."""
EARLY = 0.6
"""A frame may be early by such a part of the interval; the next one is due no sooner for it. So the
mean holds, and tokens that come at just that pace wait for no timer, whatever their phase."""


class Flow:
    """The events of one answer."""

    def __init__(
        self, splicer: Splicer, outbox: Outbox, departures: Departures, interval_s: float
    ) -> None:
        """Make events ours by `splicer`, and let them share frames for `interval_s`."""
        self.splicer = splicer
        self._outbox = outbox
        self._departures = departures
        self._interval_s = interval_s
        self._has_token = False
        self._due_s = 0.0
        """When the next frame may go."""
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._will_depart = False
        self._is_closed = False
        self._failure: HelexaError | None = None

    def take(self, events: list[bytes], now_s: float) -> int:
        """Take in what a backend has sent, and return how many events of it are the client's.

        Raises:
            HelexaError: as `flush`.
        """
        kept = self.splicer.take(events)
        if not kept:
            return 0
        # What comes up to the first token is waited for and goes out at once.
        at_once = not self._has_token
        self._has_token = self.splicer.content_events > 0
        self._waiting += kept
        self._waiting_bytes += sum(map(len, kept))
        if at_once or self._waiting_bytes >= FLUSH_BYTES:
            self.flush()
        elif not self._will_depart:
            self._will_depart = True
            self._departures.add(self, self._due_s - self._interval_s * EARLY, now_s)
        return len(kept)

    def depart(self) -> None:
        """Publish what waits, unless that is over."""
        self._will_depart = False
        if self._is_closed:
            return
        try:
            self.flush()
        except HelexaError as error:
            # Nobody is there to be told; whoever brings the next events is.
            self._failure = error

    def flush(self) -> None:
        """Publish what waits.

        Raises:
            HelexaError: it cannot be published, or what came before could not.
        """
        if self._failure is not None:
            raise self._failure
        events, self._waiting = self._waiting, []
        self._waiting_bytes = 0
        if events:
            self._due_s = self._next_due_s(time.monotonic())
            self._outbox.send_events(events)

    def close(self) -> None:
        """Publish nothing more by itself."""
        self._is_closed = True

    @property
    def published(self) -> int:
        """Tokens that have been published, as far as events tell."""
        published = max(0, self._outbox.events - self.splicer.other_events)
        return min(self.splicer.content_events, published)

    def _next_due_s(self, now_s: float) -> float:
        if not self._due_s:
            return now_s + self._interval_s
        return max(self._due_s, now_s - self._interval_s / 2) + self._interval_s
