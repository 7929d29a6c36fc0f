# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The gateways that pulled work belongs to: which of them are gone."""

ORPHAN_S = 30.0
"""The work of a gateway that has been silent for so long is nobody's."""


class Owners:
    """Who beats. Times are those of one monotonic clock."""

    def __init__(self, now_s: float) -> None:
        """Listen from `now_s` on."""
        self._since_s = now_s
        self._heard_s: dict[str, float] = {}
        self._left: set[str] = set()

    def hear(self, gateway: str, now_s: float, *, leaves: bool) -> None:
        """Note that a gateway lives, or that it stops."""
        if leaves:
            self._left.add(gateway)
        self._heard_s[gateway] = now_s

    def is_gone(self, gateway: str, now_s: float) -> bool:
        """Whether a gateway has stopped or fallen silent, as far as one can tell by now."""
        if gateway in self._left:
            return True
        return now_s - max(self._since_s, self._heard_s.get(gateway, 0.0)) > ORPHAN_S

    def listen_anew(self, now_s: float) -> None:
        """Forget the silence of a time in which nothing could be heard."""
        self._since_s = now_s
        # One that is not heard again is gone after its time, known or not.
        self._heard_s.clear()
        self._left.clear()
