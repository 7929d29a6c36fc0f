# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The gateways of the site that are alive, by their beats."""

from helexa.protocol.messages.routing import GatewayBeat

BEAT_S = 1.0
SILENT_S = 3 * BEAT_S
"""A gateway that has not beaten for so long is gone."""


class Peers:
    """Who beats. Times are those of one monotonic clock."""

    def __init__(self, me: str, now: float) -> None:
        """Know oneself; the others are heard from `now` on."""
        self._me = me
        self._since = now
        self._heard_at = now
        self._heard: dict[str, float] = {}
        self._left: set[str] = set()

    def take(self, beat: GatewayBeat, now: float) -> None:
        """Take in one beat. The last one of a gateway that stops ends it at once."""
        self._heard_at = now
        if beat.returns:
            self._heard.pop(beat.gateway, None)
            self._left.add(beat.gateway)
        elif beat.gateway not in self._left:
            self._heard[beat.gateway] = now

    def count(self, now: float) -> int:
        """Return how many are alive, this one included."""
        for name in [name for name, at in self._heard.items() if now - at > SILENT_S]:
            del self._heard[name]
        return len(self._heard.keys() | {self._me})

    def is_gone(self, gateway: str, now: float) -> bool:
        """Whether `gateway` has fallen silent, as far as one can tell after listening so long.

        A gateway that does not even hear itself cannot tell.
        """
        if gateway == self._me:
            return False
        if gateway in self._left:
            return True
        return min(now, self._heard_at) - self._heard.get(gateway, self._since) > SILENT_S

    def listen_anew(self, now: float) -> None:
        """Forget the silence of a time in which nothing could be heard."""
        self._since = now
        self._heard = dict.fromkeys(self._heard, now)
