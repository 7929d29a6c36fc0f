# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Requests that wait for room: a bounded line for each model, woken by what neurons report."""

from collections.abc import Callable

from helexa.gateway.fleet import Seats
from helexa.gateway.line import Bounds, Line, Place
from helexa.gateway.priority import Standing

Listener = Callable[[str, Callable[[], int]], None]


class Lines:
    """The lines of all models. A line that was used once is kept: there are as many as models."""

    def __init__(self, bounds: Callable[[], Bounds], seats: Callable[[str], Seats]) -> None:
        """Allow `bounds()` places a model; `seats(model)` tells what neurons report."""
        self._bounds = bounds
        self._seats = seats
        self._lines: dict[str, Line] = {}
        self._is_closed = False
        self._listeners: list[Listener] = []

    def on_line(self, listener: Listener) -> None:
        """Call `listener` with each model that is new, and with what tells how many wait."""
        self._listeners.append(listener)

    def arrive(self, model: str, standing: Standing, *, returns: bool = False) -> Place:
        """Return a place for a request: awake if it may try at once, else in the line.

        Args:
            model: What it wants.
            standing: Whose it is, and how urgent.
            returns: It was being served already: it may try at once, no bound keeps it out, and
                while it waits it goes before others of its key.

        Raises:
            QueueFullError: the line is at its bound.
            RateLimitedError: the key has its share of the line already.
            ShuttingDownError: the gateway stops.
        """
        line = self._lines.get(model) or self._begin(model)
        return line.arrive(standing, returns=returns)

    def wake(self, model: str, room: int, neuron: str = "") -> None:
        """Let the next ones that sleep try.

        Args:
            model: What they wait for.
            room: How many may try; 0 for all of them: there is bad news.
            neuron: Which neuron has reported the room, if one has. While somebody tries because of
                it, hearing of the same room once more wakes nobody else: who is next stays next.
        """
        line = self._lines.get(model)
        if line is not None:
            line.wake(room, neuron)

    def close(self) -> None:
        """Send everybody away."""
        self._is_closed = True
        for line in self._lines.values():
            line.close()

    def depth(self, model: str) -> int:
        """Return how many wait."""
        line = self._lines.get(model)
        return line.depth if line is not None else 0

    def held(self, model: str, key: str) -> int:
        """Return how many requests of `key` try or are served."""
        line = self._lines.get(model)
        return line.held(key) if line is not None else 0

    def _begin(self, model: str) -> Line:
        line = self._lines[model] = Line(model, self._bounds, self._seats)
        if self._is_closed:
            line.close()
        for listener in self._listeners:
            listener(model, lambda: line.depth)
        return line
