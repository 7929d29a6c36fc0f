# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The load of one step: clients that ask again when they are answered, or requests at a rate."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator

from helexa.cli.bench import trouble
from helexa.cli.bench.answer import Answer
from helexa.cli.bench.arrivals import arrivals, paced
from helexa.cli.bench.effort import Effort
from helexa.cli.bench.endpoint import Endpoint
from helexa.cli.bench.level import Figures, Level
from helexa.cli.bench.plan import Limits, Step
from helexa.cli.bench.pool import Pool

TICK_S = 0.5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
"""A client whose request had no answer waits before it asks again, each time twice as long."""
OnTick = Callable[[Level, float], None]
"""Called now and then with what has been counted, and the seconds since the begin."""


class Load:
    """One step of a run.

    Args:
        endpoint: Who is asked.
        requests: What is asked.
        step: How many at once, or how many a second.
        limits: How long.
    """

    def __init__(
        self, endpoint: Endpoint, requests: Iterator[bytes], step: Step, limits: Limits
    ) -> None:
        self.level = Level(step)
        self._requests = requests
        self._step = step
        self._limits = limits
        self._clock = time.perf_counter
        self._pool = Pool(endpoint, self._clock)
        self._began_s = 0.0
        self._ended_s = 0.0
        self._effort = Effort(0.0, 0.0)

    async def run(self, on_tick: OnTick) -> None:
        """Put the load on until its limit. One that is cancelled has figures, too."""
        step = self._step
        clients = step.concurrency if step.rate is None else 1
        await asyncio.gather(*(self._pool.warm() for _ in range(clients)))
        before = Effort.now()
        self._began_s = self._ended_s = self._clock()
        watch = asyncio.create_task(self._watch(on_tick))
        try:
            await (self._closed(clients) if step.rate is None else self._open(step.rate))
        finally:
            self._ended_s = self._clock()
            self._effort = Effort.now().since(before)
            watch.cancel()
            self._pool.close()

    def figures(self) -> Figures:
        """Return what was measured."""
        self.level.connections = self._pool.opened
        return self.level.figures(self._ended_s - self._began_s, self._effort)

    async def _closed(self, clients: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._client())

    async def _client(self) -> None:
        pause_s = FIRST_PAUSE_S
        while self._goes_on(self.level.started, self._clock()):
            if await self._ask(self._clock()):
                pause_s = FIRST_PAUSE_S
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _open(self, rate: float) -> None:
        room = asyncio.Semaphore(self._step.concurrency)
        async with asyncio.TaskGroup() as group:
            await paced(
                self._arrivals(rate),
                self._clock,
                lambda due_s: group.create_task(self._ask_when_free(due_s, room)),
            )

    def _arrivals(self, rate: float) -> Iterator[float]:
        # The seed is fixed, so that two runs are met by the same arrivals.
        chance = random.Random(0)  # noqa: S311 - nothing is guarded by it
        for number, after_s in enumerate(arrivals(rate, chance)):
            due_s = self._began_s + after_s
            if not self._goes_on(number, due_s):
                return
            yield due_s

    def _goes_on(self, started: int, at_s: float) -> bool:
        requests, seconds = self._limits.requests, self._limits.seconds
        is_in_time = seconds is None or at_s - self._began_s < seconds
        return is_in_time and (requests is None or started < requests)

    async def _ask_when_free(self, due_s: float, room: asyncio.Semaphore) -> None:
        try:
            async with asyncio.timeout(due_s + self._limits.timeout_s - self._clock()):
                await room.acquire()
        except TimeoutError:
            answer = self._answer(due_s)
            answer.fail(trouble.NO_CONNECTION, self._clock())
            self.level.started += 1
            self.level.take(answer)
            return
        try:
            await self._ask(due_s)
        finally:
            room.release()

    async def _ask(self, began_s: float) -> bool:
        """Ask once and return whether that was answered."""
        self.level.started += 1
        answer = self._answer(began_s)
        await self._pool.exchange(next(self._requests), answer)
        self.level.take(answer)
        return answer.trouble is None

    def _answer(self, began_s: float) -> Answer:
        return Answer(began_s, streamed=self._step.streamed, gaps=self.level.gaps)

    async def _watch(self, on_tick: OnTick) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._pool.end_silent(self._limits.timeout_s)
            on_tick(self.level, self._clock() - self._began_s)
