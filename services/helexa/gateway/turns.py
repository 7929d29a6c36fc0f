# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Whose turn it is among those who wait for one model."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from helexa.gateway.priority import Priority, Standing

PASSED_OVER_LIMIT = 8
"""A class that others have gone before so often goes next."""


class Waiter(Protocol):
    """Somebody who waits."""

    @property
    def standing(self) -> Standing:
        """What decides on its turn."""


W = TypeVar("W", bound=Waiter)


class Turns(Generic[W]):
    """Those who wait, and what their keys hold already.

    Three rules, in this order:

    1. Who yields goes after everybody who does not.
    2. A lower class goes after the higher ones, but not more than `PASSED_OVER_LIMIT` times in a
       row: then one of it goes first.
    3. In a class the key that holds the fewest turns goes next, keys that hold as many in rotation;
       requests of one key go in the order in which they came.

    What is being served counts as held, so that no key keeps more than its share of the slots while
    others wait, however many of its requests came first.
    """

    def __init__(self) -> None:
        """Begin with nobody."""
        self._held: dict[str, int] = {}
        self._spent: dict[W, int] = {}
        """How often its class had been passed over, of who has a turn and has not used it yet."""
        self._ranks = tuple(_Rank[W]() for _ in range(2 * len(Priority)))
        self.waiting = 0
        """How many wait."""

    def __iter__(self) -> Iterator[W]:
        """Return all who wait, the foremost class first."""
        return (waiter for rank in self._ranks for waiter in rank)

    def held(self, key: str) -> int:
        """Return how many turns `key` holds."""
        return self._held.get(key, 0)

    def add(self, waiter: W, *, first: bool = False) -> None:
        """Let `waiter` wait behind the others of its key, or before them."""
        self._rank_of(waiter).add(waiter, first=first)
        self.waiting += 1

    def remove(self, waiter: W) -> None:
        """Let `waiter` wait no longer."""
        if self._rank_of(waiter).remove(waiter):
            self.waiting -= 1

    def next(self) -> W | None:
        """Return who goes next."""
        for group in (self._ranks[: len(Priority)], self._ranks[len(Priority) :]):
            rank = _foremost(group)
            if rank is not None:
                return rank.next(self._held)
        return None

    def last_yielding(self) -> W | None:
        """Return who came last of the least who yield."""
        for rank in reversed(self._ranks[len(Priority) :]):
            if rank:
                return rank.last()
        return None

    def give(self, waiter: W) -> None:
        """Give `waiter`, who waits, a turn: to hold it until `take_back`."""
        rank = self._rank_of(waiter)
        if rank.passed_over:
            self._spent[waiter], rank.passed_over = rank.passed_over, 0
        self.remove(waiter)
        rank.rotate(waiter.standing.key)
        self.hold(waiter)

    def use(self, waiter: W) -> None:
        """Note that `waiter`, who was given a turn, is served."""
        self._spent.pop(waiter, None)
        for lower in self._group_of(waiter)[waiter.standing.priority + 1 :]:
            if lower:
                lower.passed_over += 1

    def hold(self, waiter: W) -> None:
        """Note that `waiter`, who did not wait, has a turn."""
        key = waiter.standing.key
        self._held[key] = self._held.get(key, 0) + 1

    def take_back(self, waiter: W) -> None:
        """Note that `waiter` holds its turn no longer, used or not."""
        key = waiter.standing.key
        left = self._held.pop(key) - 1
        if left:
            self._held[key] = left
        self._spent.pop(waiter, None)

    def put_back(self, waiter: W) -> None:
        """Let `waiter`, whose turn was of no use, wait again where it was."""
        spent = self._spent.pop(waiter, 0)
        self.take_back(waiter)
        self.add(waiter, first=True)
        self._rank_of(waiter).passed_over += spent

    def _group_of(self, waiter: W) -> "tuple[_Rank[W], ...]":
        start = len(Priority) if waiter.standing.yields else 0
        return self._ranks[start : start + len(Priority)]

    def _rank_of(self, waiter: W) -> "_Rank[W]":
        return self._group_of(waiter)[waiter.standing.priority]


class _Rank(Generic[W]):
    """Who waits in one class, by key; the key whose turn was longest ago comes first."""

    def __init__(self) -> None:
        self.passed_over = 0
        self._keys: OrderedDict[str, OrderedDict[W, None]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __iter__(self) -> Iterator[W]:
        return (waiter for line in self._keys.values() for waiter in line)

    def add(self, waiter: W, *, first: bool) -> None:
        key = waiter.standing.key
        line = self._keys.setdefault(key, OrderedDict())
        line[waiter] = None
        if first:
            line.move_to_end(waiter, last=False)
            self._keys.move_to_end(key, last=False)

    def remove(self, waiter: W) -> bool:
        key = waiter.standing.key
        line = self._keys.get(key)
        if line is None or waiter not in line:
            return False
        del line[waiter]
        if not line:
            del self._keys[key]
        if not self._keys:
            self.passed_over = 0
        return True

    def rotate(self, key: str) -> None:
        """Note that `key` has had a turn."""
        if key in self._keys:
            self._keys.move_to_end(key)

    def next(self, held: dict[str, int]) -> W:
        key = min(self._keys, key=lambda each: held.get(each, 0))
        return next(iter(self._keys[key]))

    def last(self) -> W:
        return next(reversed(self._keys[next(reversed(self._keys))]))


def _foremost(ranks: "tuple[_Rank[W], ...]") -> "_Rank[W] | None":
    """Return the rank that goes next: one that was passed over too often, or else the highest."""
    waiting = [rank for rank in ranks if rank]
    for rank in waiting:
        if rank.passed_over >= PASSED_OVER_LIMIT:
            return rank
    return waiting[0] if waiting else None
