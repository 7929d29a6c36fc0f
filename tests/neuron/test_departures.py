# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import asyncio
import time

from helexa.neuron.departures import Departures

INTERVAL_S = 0.1


class Traveller:
    """Says when it left."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.left_s = 0.0
        self.times = 0

    def depart(self, now_s: float) -> None:
        self.left_s = now_s
        self.times += 1
        self.left.set()


async def test_who_comes_alone_leaves_at_once() -> None:
    departures, alone = Departures(INTERVAL_S), Traveller()
    now_s = time.monotonic()
    departures.add(alone, now_s, now_s)
    assert alone.times == 1


async def test_who_comes_soon_after_another_leaves_together_with_the_next() -> None:
    departures = Departures(INTERVAL_S)
    first, *others = (Traveller() for _ in range(5))
    for traveller in (first, *others):
        now_s = time.monotonic()
        departures.add(traveller, now_s, now_s)
    assert first.times == 1
    await asyncio.wait_for(asyncio.gather(*(each.left.wait() for each in others)), 10)
    left_s = [each.left_s for each in others]
    assert max(left_s) - min(left_s) < INTERVAL_S / 2
    assert [each.times for each in others] == [1] * 4


async def test_nobody_leaves_before_his_time_and_who_comes_for_an_earlier_turn_gets_it() -> None:
    departures, late, early = Departures(INTERVAL_S), Traveller(), Traveller()
    now_s = time.monotonic()
    departures.add(late, now_s + 5 * INTERVAL_S, now_s)
    departures.add(early, now_s + INTERVAL_S, now_s)
    await asyncio.wait_for(early.left.wait(), 10)
    assert late.times == 0
    await asyncio.wait_for(late.left.wait(), 10)
    # A timer of the loop may be early by its resolution.
    assert early.left_s - now_s >= INTERVAL_S - 0.002
    assert late.left_s - now_s >= 5 * INTERVAL_S - 0.002
