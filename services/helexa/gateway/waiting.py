# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Requests that wait for room: a bounded line for each model, woken by what neurons report."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from helexa.gateway.fleet import Seats
from helexa.gateway.priority import Standing
from helexa.gateway.turns import Turns
from helexa.protocol.errors import (
    HelexaError,
    NoCapacityError,
    QueueFullError,
    RateLimitedError,
    ShuttingDownError,
)

RETRY_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many may wait for one model."""

    places: int
    places_of_key: int


class _State(Enum):
    ASLEEP = auto()
    TRYING = auto()
    SERVED = auto()
    GONE = auto()


class Place:
    """One request at one model: it waits, it tries, it is served."""

    __slots__ = ("_end", "_line", "_lines", "_woken", "is_counted", "returns", "standing", "state")

    def __init__(self, lines: "Lines", line: "_Line", standing: Standing, *, returns: bool) -> None:
        """Come to `line`; the lines say whether to try or to wait."""
        self.standing = standing
        self.returns = returns
        """Whether it was being served already."""
        self.state = _State.ASLEEP
        self.is_counted = False
        """Whether it takes one of the places of its line."""
        self._lines = lines
        self._line = line
        self._woken: asyncio.Future[None] | None = None
        self._end: HelexaError | None = None

    @property
    def is_awake(self) -> bool:
        """Whether the request may try now."""
        return self.state is not _State.ASLEEP

    async def turn(self, timeout_s: float) -> None:
        """Return when there may be room.

        Raises:
            NoCapacityError: there was none for `timeout_s`.
            QueueFullError: it has had to give its place to a caller with a key.
            ShuttingDownError: the gateway stops.
        """
        if self.is_awake:
            return
        self._woken = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await self._woken
        except TimeoutError:
            raise NoCapacityError(
                "No room came free in time.", retry_after_s=RETRY_AFTER_S
            ) from None
        if self._end is not None:
            raise self._end

    def served(self) -> None:
        """Note that a neuron has accepted the request. It counts for its key until `leave`."""
        self.state = _State.SERVED
        self._line.trying -= 1
        if self.is_counted:
            self._line.turns.use(self)
            self._line.free(self)

    def rest(self, look_again_s: float) -> None:
        """Wait again: there was no room. After `look_again_s`, if not 0, somebody tries anyway.

        Raises:
            QueueFullError: it has not waited so far, and may not now.
            RateLimitedError: the same, because of others of its key.
            ShuttingDownError: the gateway stops.
        """
        self._lines.rest(self._line, self, look_again_s)

    def leave(self) -> None:
        """Give up the place, or the share of the key; once is enough and more does no harm."""
        self._lines.leave(self._line, self)

    def wake(self, end: HelexaError | None = None) -> None:
        """Let the request try, or end its wait with `end`."""
        self._end = end
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)


class _Line:
    """Everybody at one model."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.turns: Turns[Place] = Turns()
        self.trying = 0
        """Who asks neurons right now."""
        self.places: Counter[str] = Counter()
        """Places that are taken, by key."""
        self.look_again: asyncio.TimerHandle | None = None

    @property
    def depth(self) -> int:
        return self.places.total()

    def free(self, place: Place) -> None:
        """Let somebody else have the place that `place` took."""
        place.is_counted = False
        key = place.standing.key
        self.places[key] -= 1
        if not self.places[key]:
            del self.places[key]


class Lines:
    """The lines of all models. A line that was used once is kept: there are as many as models."""

    def __init__(self, bounds: Callable[[], Bounds], seats: Callable[[str], Seats]) -> None:
        """Allow `bounds()` places a model; `seats(model)` tells what neurons report."""
        self._bounds = bounds
        self._seats = seats
        self._lines: dict[str, _Line] = {}
        self._is_closed = False
        self._listeners: list[Callable[[str, Callable[[], int]], None]] = []

    def on_line(self, listener: Callable[[str, Callable[[], int]], None]) -> None:
        """Call `listener` with each model that is new, and with what tells how many wait."""
        self._listeners.append(listener)

    def arrive(self, model: str, standing: Standing, *, returns: bool = False) -> Place:
        """Return a place for a request: awake if it may try at once, else in the line.

        Args:
            model: What it wants.
            standing: Whose it is, and how urgent.
            returns: It was being served already: no bound keeps it out, and it goes before others
                of its key.

        Raises:
            QueueFullError: the line is at its bound.
            RateLimitedError: the key has its share of the line already.
            ShuttingDownError: the gateway stops.
        """
        line = self._lines.get(model)
        if line is None:
            line = self._begin(model)
        place = Place(self, line, standing, returns=returns)
        if not line.turns.waiting and (not standing.yields or self._may_try(line, standing)):
            line.turns.hold(place)
            line.trying += 1
            place.state = _State.TRYING
        else:
            self._enter(line, place)
            if self._next(line) is place:
                self._rouse(line, place)
        return place

    def wake(self, model: str, room: int) -> None:
        """Let the next `room` that sleep try; all of them when `room` is 0: there is bad news."""
        line = self._lines.get(model)
        if line is None:
            return
        for _ in range(room or line.turns.waiting):
            place = line.turns.next() if not room else self._next(line)
            if place is None:
                return
            self._rouse(line, place)

    def rest(self, line: _Line, place: Place, look_again_s: float) -> None:
        """Put `place` to sleep again: where it was, or at the end if it has only just come."""
        line.trying -= 1
        if place.is_counted and not self._is_closed:
            place.state = _State.ASLEEP
            line.turns.put_back(place)
        else:
            line.turns.take_back(place)
            place.state = _State.GONE
            self._enter(line, place)
        if look_again_s and line.look_again is None:
            loop = asyncio.get_running_loop()
            line.look_again = loop.call_later(look_again_s, self._look_again, line)

    def leave(self, line: _Line, place: Place) -> None:
        """Forget `place`. A turn that was not used goes to the next one."""
        state, place.state = place.state, _State.GONE
        if place.is_counted:
            line.free(place)
        if state is _State.ASLEEP:
            line.turns.remove(place)
        elif state is not _State.GONE:
            line.turns.take_back(place)
        if state is _State.TRYING:
            line.trying -= 1
            self.wake(line.model, 1)
        if line.look_again is not None and not line.depth:
            line.look_again.cancel()
            line.look_again = None

    def close(self) -> None:
        """Send everybody away."""
        self._is_closed = True
        for line in self._lines.values():
            for place in list(line.turns):
                self._send_away(line, place, ShuttingDownError(retry_after_s=1))

    def depth(self, model: str) -> int:
        """Return how many wait."""
        line = self._lines.get(model)
        return line.depth if line is not None else 0

    def held(self, model: str, key: str) -> int:
        """Return how many requests of `key` try or are served."""
        line = self._lines.get(model)
        return line.turns.held(key) if line is not None else 0

    def _begin(self, model: str) -> _Line:
        line = self._lines[model] = _Line(model)
        for listener in self._listeners:
            listener(model, lambda: line.depth)
        return line

    def _enter(self, line: _Line, place: Place) -> None:
        if self._is_closed:
            raise ShuttingDownError(retry_after_s=1)
        if not place.returns:
            self._check_bounds(line, place.standing)
        place.is_counted = True
        place.state = _State.ASLEEP
        line.places[place.standing.key] += 1
        line.turns.add(place, first=place.returns)

    def _check_bounds(self, line: _Line, standing: Standing) -> None:
        bounds = self._bounds()
        if standing.key and line.places[standing.key] >= bounds.places_of_key:
            raise RateLimitedError(
                f"Too many requests of this key wait for the model {line.model!r}.",
                retry_after_s=RETRY_AFTER_S,
            )
        full = QueueFullError(
            f"Too many requests wait for the model {line.model!r}.", retry_after_s=RETRY_AFTER_S
        )
        # The last place is not for those who yield.
        if line.depth < bounds.places - int(standing.yields):
            return
        other = None if standing.yields else line.turns.last_yielding()
        if other is None:
            raise full
        self._send_away(line, other, full)

    def _may_try(self, line: _Line, standing: Standing) -> bool:
        """Whether a request may ask for a seat: those who yield leave the last one free.

        Where there is only one, or none is known of, they may have it: they could never be served.
        """
        if not standing.yields:
            return True
        seats = self._seats(line.model)
        return seats.total <= 1 or seats.free - line.trying > 1

    def _next(self, line: _Line) -> Place | None:
        """Return who may try next."""
        place = line.turns.next()
        if place is None or self._may_try(line, place.standing):
            return place
        return None

    def _rouse(self, line: _Line, place: Place) -> None:
        line.turns.give(place)
        line.trying += 1
        place.state = _State.TRYING
        place.wake()

    def _send_away(self, line: _Line, place: Place, error: HelexaError) -> None:
        line.turns.remove(place)
        line.free(place)
        place.state = _State.GONE
        place.wake(error)

    def _look_again(self, line: _Line) -> None:
        line.look_again = None
        self.wake(line.model, 1)
