# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""When requests are due that do not wait for each other."""

import asyncio
import random
import threading
from collections.abc import Callable, Iterable, Iterator

from helexa.cli.bench.connection import Clock


def arrivals(rate: float, chance: random.Random) -> Iterator[float]:
    """Yield the seconds after the begin at which requests are due, `rate` a second on average.

    They come independently of each other, as those of many users do: a Poisson process.
    """
    due_s = 0.0
    while True:
        due_s += chance.expovariate(rate)
        yield due_s


async def paced(due: Iterable[float], clock: Clock, start: Callable[[float], object]) -> None:
    """Call `start` with each time of `due` when it has come, in the event loop's thread."""
    loop = asyncio.get_running_loop()
    stopped = threading.Event()

    def pace() -> None:
        for each_s in due:
            if stopped.wait(max(0.0, each_s - clock())):
                return
            loop.call_soon_threadsafe(start, each_s)

    # A thread, because the timers of an event loop are a millisecond late: as long as a token.
    try:
        await asyncio.to_thread(pace)
    finally:
        stopped.set()
