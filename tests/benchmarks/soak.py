# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Whether a site under steady load keeps its memory: a table of every process, and its slope.

Run from the project's root: ``python -m tests.benchmarks.soak --minutes 10``. It starts a site of
its own (two of everything, a paced engine as the backend) and asks it at a steady rate: whole
answers, streams, streams that their client leaves, and streams that go on at the other gateway.

Bounded by its minutes. The first four tenths are not judged: so long the interpreters' allocators
grow, and the logs and caches that keep a bounded past fill up (the longest, the token log's, keeps
two minutes; a scheduler keeps its last thousand decisions). Of the rest the slope is that of the
straight line with the least squares, and a process is flat if the line rises by less than two
hundredths of the median in that time, or by less than two of the interpreter's pieces of memory (2
MiB), which one step of it can be. Exits with 1 if one is not, or if a request failed.

The server is not judged: it keeps what its streams are to keep, up to their bounds, and these are
listed. (What is used is kept until a portal settles it.)
"""

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import httpx
import psutil
from tests.benchmarks.memory import KIB, sample, table
from tests.faults.engine import MODEL
from tests.faults.order import Order
from tests.faults.site import Site, running_site
from tests.faults.streams import Stream
from typing_extensions import override

WARM_UP_PART = 0.4
TOKENS, PACE = 24, 40.0
MOST_AT_ONCE = 64


@dataclass
class Load:
    """Requests at a steady rate, one kind after the other."""

    site: Site
    http: httpx.AsyncClient
    rate: float
    done: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    _asking: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Ask until cancelled."""
        kinds: tuple[tuple[str, Callable[[int], Awaitable[str]]], ...] = (
            ("whole", self._whole),
            ("streamed", self._streamed),
            ("whole", self._whole),
            ("left", self._left),
            ("streamed", self._streamed),
            ("resumed", self._resumed),
        )
        loop = asyncio.get_running_loop()
        due = loop.time()
        for number, (kind, ask) in enumerate(itertools.cycle(kinds)):
            due = max(due + 1 / self.rate, loop.time() - 1)
            await asyncio.sleep(max(0.0, due - loop.time()))
            if len(self._asking) < MOST_AT_ONCE:
                task = asyncio.create_task(self._ask(kind, ask, number))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)

    async def end(self) -> None:
        """Return when what was asked has been answered."""
        await asyncio.gather(*self._asking)

    async def _ask(self, kind: str, ask: Callable[[int], Awaitable[str]], number: int) -> None:
        try:
            async with asyncio.timeout(60):
                wrong = await ask(number)
        except (TimeoutError, httpx.HTTPError) as error:
            wrong = repr(error)
        if wrong:
            self.failures.append(f"{kind}: {wrong}")
        else:
            self.done[kind] += 1

    def _gateway(self, number: int) -> str:
        return self.site.gateways[number % len(self.site.gateways)]

    def _order(self, number: int) -> Order:
        return Order(tokens=TOKENS, pace=PACE, delay=0.05, seed=f"s{number}")

    def _stream(self, number: int) -> Stream:
        return Stream(self._gateway(number), self._order(number).prompt())

    async def _whole(self, number: int) -> str:
        order = self._order(number)
        answer = await self.http.post(
            f"{self._gateway(number)}/v1/chat/completions",
            json={"model": MODEL, "messages": [{"role": "user", "content": order.prompt()}]},
        )
        if answer.status_code != httpx.codes.OK:
            return answer.text
        text = json.loads(answer.content)["choices"][0]["message"]["content"]
        return "" if text == order.text() else text

    async def _streamed(self, number: int) -> str:
        stream = self._stream(number)
        await stream.ask()
        return self._check(stream, number)

    async def _left(self, number: int) -> str:
        stream = self._stream(number)
        asking = asyncio.create_task(stream.ask())
        await asyncio.wait({asking}, timeout=TOKENS / PACE / 2)
        stream.leave()
        await asking
        return "" if stream.error is None else str(stream.error)

    async def _resumed(self, number: int) -> str:
        order = self._order(number)
        stays = {"x-helexa-resumable": "true"}
        stream = Stream(self._gateway(number), order.prompt(), headers=stays)
        asking = asyncio.create_task(stream.ask())
        # Before the first event there is no name to ask for the rest by.
        await stream.began.wait()
        await asyncio.wait({asking}, timeout=TOKENS / PACE / 2)
        stream.leave()
        await asking
        await stream.resume(self._gateway(number + 1))
        return self._check(stream, number)

    def _check(self, stream: Stream, number: int) -> str:
        whole = stream.text == self._order(number).text() and not stream.faults
        return "" if whole else f"{stream.status} {stream.error} {stream.text!r}"


@dataclass
class Calm:
    """Whether the site stayed as it was."""

    site: Site
    looks: int = 0
    unwell: Counter[str] = field(default_factory=Counter)
    """How often each neuron was not healthy."""
    decisions: Counter[int] = field(default_factory=Counter)
    """How many placements had been decided, at each look."""

    async def look(self) -> None:
        """Ask a provisioner."""
        self.looks += 1
        neurons = await self.site.orchestrate("GET", "/api/neurons")
        shown = cast("list[dict[str, str]]", neurons["neurons"])
        seen = {each["id"] for each in shown if each["health"] == "healthy"}
        self.unwell.update(set(self.site.neuron_names) - seen)
        decided = await self.site.orchestrate("GET", "/api/decisions?limit=500")
        self.decisions[len(cast("list[object]", decided["decisions"]))] += 1

    @override
    def __str__(self) -> str:
        placed = f"{max(self.decisions) - min(self.decisions)} placements changed"
        return f"{self.looks} looks; neurons not healthy: {dict(self.unwell) or 'never'}; {placed}"


async def soak(minutes: float, rate: float, replicas: int, neurons: int) -> int:
    """Run the load and print what it did to each process; return the exit code."""
    limits = httpx.Limits(max_connections=MOST_AT_ONCE)
    with tempfile.TemporaryDirectory() as directory:
        async with (
            running_site(Path(directory), replicas=replicas, neurons=neurons) as site,
            httpx.AsyncClient(timeout=60, limits=limits) as http,
        ):
            load, calm = Load(site, http, rate), Calm(site)
            running = asyncio.create_task(load.run())
            watched = {
                name: psutil.Process(process.pid)
                for name, process in site.processes.items()
                if name != "backend"
            }
            series = await sample(watched, minutes * 60, calm.look)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await load.end()
            kept = await streams(site)
    print(f"{minutes:g} minutes, {rate:g} requests a second; {dict(load.done)}")
    print(f"{len(load.failures)} failed; {calm}")
    for failure in load.failures[:10]:
        print(f"failed: {failure}")
    flat = table(series, minutes * 60 * WARM_UP_PART)
    print(f"streams: {kept}")
    return 0 if flat - {"nats"} == series.keys() - {"nats"} and not load.failures else 1


async def streams(site: Site) -> str:
    """Return what the server keeps, by stream."""
    asked = f"{site.monitor_url}/jsz?streams=true&accounts=true"
    told = (await site.http.get(asked)).json()
    found = [
        (each["name"], each["state"]["messages"], each["state"]["bytes"])
        for account in told["account_details"]
        for each in account.get("stream_detail", ())
        if each["state"]["messages"]
    ]
    return ", ".join(f"{name} {count} ({size / KIB:.0f} KiB)" for name, count, size in found)


def main() -> int:
    """Read the arguments and soak."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=12.0, help="requests a second")
    parser.add_argument("--replicas", type=int, default=2, help="of all that can be scaled")
    parser.add_argument("--neurons", type=int, default=2)
    told = parser.parse_args()
    return asyncio.run(soak(told.minutes, told.rate, told.replicas, told.neurons))


if __name__ == "__main__":
    sys.exit(main())
