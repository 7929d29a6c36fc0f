# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Requests that wait for room: a bounded line for each model, woken by what neurons report."""

import asyncio
from collections.abc import Callable

from helexa.protocol.errors import (
    HelexaError,
    NoCapacityError,
    QueueFullError,
    ShuttingDownError,
)

RETRY_AFTER_S = 5.0


class Place:
    """One request's place in the line for its model."""

    def __init__(self, lines: "Lines", model: str) -> None:
        """Stand at the end of the line for `model`."""
        self.model = model
        self.is_awake = False
        self._lines = lines
        self._turn: asyncio.Future[None] | None = None
        self._closed: HelexaError | None = None

    @property
    def is_first(self) -> bool:
        """Whether nobody has waited longer."""
        return self._lines.first(self.model) is self

    async def turn(self, timeout_s: float, *, look_again_s: float | None = None) -> None:
        """Return when there may be room, or after `look_again_s` if this is the first in line.

        Raises:
            NoCapacityError: there was none for `timeout_s`.
            ShuttingDownError: the gateway stops.
        """
        self.is_awake = False
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not self.is_awake:
            if self._closed is not None:
                raise self._closed
            remaining = deadline - loop.time()
            if remaining <= 0:
                raise NoCapacityError("No room came free in time.", retry_after_s=RETRY_AFTER_S)
            self._turn = loop.create_future()
            await asyncio.wait({self._turn}, timeout=min(remaining, look_again_s or remaining))
            if look_again_s is not None and not self._turn.done() and self.is_first:
                return
        if self._closed is not None:
            raise self._closed

    def wake(self) -> None:
        """Let the request try."""
        self.is_awake = True
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    def close(self, error: HelexaError) -> None:
        """End the wait with `error`."""
        self._closed = error
        self.wake()

    def leave(self, *, served: bool) -> None:
        """Free the place. A turn that was not used goes to the next one."""
        self._lines.leave(self, pass_on=self.is_awake and not served)


class Lines:
    """The lines of all models."""

    def __init__(self, limit: Callable[[], int]) -> None:
        """Allow `limit()` places a model."""
        self._limit = limit
        self._lines: dict[str, dict[Place, None]] = {}
        self._closed = False

    def enter(self, model: str) -> Place:
        """Return a place at the end of the line.

        Raises:
            QueueFullError: the line is at its bound.
            ShuttingDownError: the gateway stops.
        """
        if self._closed:
            raise ShuttingDownError(retry_after_s=1)
        line = self._lines.setdefault(model, {})
        if len(line) >= self._limit():
            raise QueueFullError(
                f"Too many requests wait for the model {model!r}.", retry_after_s=RETRY_AFTER_S
            )
        place = Place(self, model)
        line[place] = None
        return place

    def leave(self, place: Place, *, pass_on: bool) -> None:
        """Remove `place`, and wake the next one if it leaves room unused."""
        line = self._lines.get(place.model, {})
        line.pop(place, None)
        if not line:
            self._lines.pop(place.model, None)
        elif pass_on:
            self.wake(place.model, 1)

    def wake(self, model: str, room: int) -> None:
        """Let the first `room` that sleep try; all of them when `room` is 0: there is bad news."""
        sleeping = [place for place in self._lines.get(model, {}) if not place.is_awake]
        for place in sleeping[: room or None]:
            place.wake()

    def close(self) -> None:
        """Send everybody away."""
        self._closed = True
        for line in list(self._lines.values()):
            for place in line:
                place.close(ShuttingDownError(retry_after_s=1))

    def first(self, model: str) -> Place | None:
        """Return the place of who has waited longest."""
        return next(iter(self._lines.get(model, {})), None)

    def is_busy(self, model: str) -> bool:
        """Whether somebody waits who is not being served right now."""
        return any(not place.is_awake for place in self._lines.get(model, {}))

    def depth(self, model: str) -> int:
        """Return how many wait."""
        return len(self._lines.get(model, {}))

    def depths(self) -> dict[str, int]:
        """Return how many wait, by model."""
        return {model: len(line) for model, line in self._lines.items()}
