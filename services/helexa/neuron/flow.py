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
        self.heard_at_s = time.monotonic()
        """When the backend last sent something; at first, when the work began."""
        self.first_token_at_s: float | None = None
        self.uncounted = 0
        """Events for the client since whoever counts them set this to 0."""
        self._outbox = outbox
        self._departures = departures
        self._interval_s = interval_s
        self._early_s = interval_s * EARLY
        self._due_s = 0.0
        """When the next frame may go."""
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._will_depart = False
        self._failure: HelexaError | None = None

    def take(self, events: list[bytes]) -> bool:
        """Take in what the backend has sent, and return whether more may come at once.

        Raises:
            HelexaError: as `flush`.
        """
        now_s = self.heard_at_s = time.monotonic()
        for event in self.splicer.take(events):
            self._waiting.append(event)
            self._waiting_bytes += len(event)
            self.uncounted += 1
        if self.first_token_at_s is None:
            # What comes up to the first token is waited for and goes out at once.
            if self.splicer.content_events:
                self.first_token_at_s = now_s
            self.flush(now_s)
        elif self._waiting_bytes >= FLUSH_BYTES:
            self.flush(now_s)
        elif self._waiting and not self._will_depart:
            self._will_depart = True
            self._departures.add(self, self._due_s - self._early_s, now_s)
        return not self._outbox.is_behind

    def depart(self, now_s: float) -> None:
        """Publish what waits; a failure is for whoever brings the next events."""
        self._will_depart = False
        events = self._waiting
        if not events or self._failure is not None:
            return
        self._waiting = []
        self._waiting_bytes = 0
        # A frame that is late moves those after it, but by half of the interval at most.
        due_s = self._due_s or now_s
        self._due_s = max(due_s, now_s - self._interval_s / 2) + self._interval_s
        try:
            self._outbox.send_events(events)
        except HelexaError as error:
            self._failure = error

    def flush(self, now_s: float) -> None:
        """Publish what waits.

        Raises:
            HelexaError: it cannot be published, or what came before could not.
        """
        self.depart(now_s)
        if self._failure is not None:
            raise self._failure

    def drop(self) -> None:
        """Forget what waits."""
        self._waiting = []
        self._waiting_bytes = 0

    @property
    def published(self) -> int:
        """Tokens that have been published, as far as events tell."""
        published = max(0, self._outbox.events - self.splicer.other_events)
        return min(self.splicer.content_events, published)
