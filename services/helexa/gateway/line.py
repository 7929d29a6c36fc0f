# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One model's line: requests come, wait, try, are served and leave, and all of it is counted."""

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

    __slots__ = (
        "_end",
        "_line",
        "_woken",
        "is_counted",
        "returns",
        "roused_by",
        "standing",
        "state",
    )

    def __init__(self, line: "Line", standing: Standing, *, returns: bool) -> None:
        """Come to `line`, which says whether to try or to wait."""
        self.standing = standing
        self.returns = returns
        """Whether it was being served already."""
        self.state = _State.GONE
        self.is_counted = False
        """Whether it takes one of the places of its line."""
        self.roused_by = ""
        """The neuron whose report let it try."""
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
        self._line.serve(self)

    def rest(self, look_again_s: float) -> None:
        """Wait again: there was no room. After `look_again_s`, if not 0, somebody tries anyway.

        Raises:
            QueueFullError: it has not waited so far, and may not now.
            RateLimitedError: the same, because of others of its key.
            ShuttingDownError: the gateway stops.
        """
        self._line.rest(self, look_again_s)

    def leave(self) -> None:
        """Give up the place, or the share of the key; once is enough and more does no harm."""
        self._line.leave(self)

    def wake(self, end: HelexaError | None = None) -> None:
        """Let the request try, or end its wait with `end`."""
        self._end = end
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)


class Line:
    """Everybody at one model."""

    def __init__(
        self, model: str, bounds: Callable[[], Bounds], seats: Callable[[str], Seats]
    ) -> None:
        """Allow `bounds()` places; `seats(model)` tells what neurons report."""
        self._model = model
        self._bounds = bounds
        self._seats = seats
        self._turns: Turns[Place] = Turns()
        self._is_closed = False
        self._trying = 0
        self._roused_by: Counter[str] = Counter()
        """Who tries because of a neuron's report, by neuron."""
        self._places: Counter[str] = Counter()
        """Places that are taken, by key."""
        self._again: asyncio.TimerHandle | None = None

    @property
    def depth(self) -> int:
        """How many places are taken."""
        return self._places.total()

    def held(self, key: str) -> int:
        """Return how many requests of `key` try or are served."""
        return self._turns.held(key)

    def arrive(self, standing: Standing, *, returns: bool) -> Place:
        """Return a place: awake if the request may try at once, else in the line."""
        place = Place(self, standing, returns=returns)
        if returns or (not self._turns.waiting and self._may_try(standing)):
            self._turns.hold(place)
            self._begin_try(place, "")
        else:
            self._enter(place)
            if self._next() is place:
                self._rouse(place, "")
        return place

    def wake(self, room: int, neuron: str) -> None:
        """Let the next `room` that sleep try; all of them when `room` is 0."""
        waiting = self._turns.waiting
        if not waiting:
            return
        for _ in range(room - self._roused_by[neuron] if room else waiting):
            place = self._next() if room else self._turns.next()
            if place is None:
                return
            self._rouse(place, neuron)

    def serve(self, place: Place) -> None:
        """Count `place` among those who are served."""
        self._end_try(place)
        place.state = _State.SERVED
        if place.is_counted:
            self._turns.use(place)
            self._free(place)

    def rest(self, place: Place, look_again_s: float) -> None:
        """Put `place` to sleep again: where it was, or at the end if it has only just come."""
        self._end_try(place)
        if place.is_counted and not self._is_closed:
            place.state = _State.ASLEEP
            self._turns.put_back(place)
        else:
            place.state = _State.GONE
            self._turns.take_back(place)
            self._enter(place)
        if look_again_s and self._again is None:
            loop = asyncio.get_running_loop()
            self._again = loop.call_later(look_again_s, self._look_again)

    def leave(self, place: Place) -> None:
        """Forget `place`. A turn that was not used goes to the next one."""
        state, place.state = place.state, _State.GONE
        if place.is_counted:
            self._free(place)
        if state is _State.ASLEEP:
            self._turns.remove(place)
        elif state is not _State.GONE:
            self._turns.take_back(place)
        if state is _State.TRYING:
            self._end_try(place)
            self.wake(1, "")
        if self._again is not None and not self.depth:
            self._again.cancel()
            self._again = None

    def close(self) -> None:
        """Send away everybody who waits, and whoever comes to."""
        self._is_closed = True
        for place in list(self._turns):
            self._send_away(place, ShuttingDownError(retry_after_s=1))

    def _enter(self, place: Place) -> None:
        if self._is_closed:
            raise ShuttingDownError(retry_after_s=1)
        if not place.returns:
            self._make_room(place.standing)
        place.is_counted = True
        place.state = _State.ASLEEP
        self._places[place.standing.key] += 1
        self._turns.add(place, first=place.returns)

    def _make_room(self, standing: Standing) -> None:
        bounds = self._bounds()
        if standing.key and self._places[standing.key] >= bounds.places_of_key:
            raise RateLimitedError(
                f"Too many requests of this key wait for the model {self._model!r}.",
                retry_after_s=RETRY_AFTER_S,
            )
        # The last place is not for those who yield.
        if self.depth < bounds.places - int(standing.yields):
            return
        full = QueueFullError(
            f"Too many requests wait for the model {self._model!r}.", retry_after_s=RETRY_AFTER_S
        )
        other = None if standing.yields else self._turns.last_yielding()
        if other is None:
            raise full
        self._send_away(other, full)

    def _may_try(self, standing: Standing) -> bool:
        """Whether a request may ask for a seat: those who yield leave the last one free.

        Where there is only one, or none is known of, they may have it: they could never be served.
        """
        if not standing.yields:
            return True
        seats = self._seats(self._model)
        return seats.total <= 1 or seats.free - self._trying > 1

    def _next(self) -> Place | None:
        """Return who may try next."""
        place = self._turns.next()
        return place if place is not None and self._may_try(place.standing) else None

    def _rouse(self, place: Place, neuron: str) -> None:
        self._turns.give(place)
        self._begin_try(place, neuron)
        place.wake()

    def _begin_try(self, place: Place, neuron: str) -> None:
        self._trying += 1
        place.state = _State.TRYING
        if neuron:
            place.roused_by = neuron
            self._roused_by[neuron] += 1

    def _end_try(self, place: Place) -> None:
        self._trying -= 1
        if place.roused_by:
            _count_down(self._roused_by, place.roused_by)
            place.roused_by = ""

    def _free(self, place: Place) -> None:
        place.is_counted = False
        _count_down(self._places, place.standing.key)

    def _send_away(self, place: Place, error: HelexaError) -> None:
        self._turns.remove(place)
        self._free(place)
        place.state = _State.GONE
        place.wake(error)

    def _look_again(self) -> None:
        self._again = None
        self.wake(1, "")


def _count_down(counter: Counter[str], name: str) -> None:
    """Subtract one. A counter would keep what is zero, and keys and neurons come and go."""
    counter[name] -= 1
    if not counter[name]:
        del counter[name]
