# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Many streams over two gateways, one of which is killed in the middle.

`HELEXA_STREAMS=200x20` makes it 200 streams of 20 seconds; the default is 1,000 of 60.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import psutil
import pytest
from tests.faults.bare_site import BareSite, bare_site
from tests.faults.conftest import Record
from tests.faults.engine import PacedEngine, paced_engine
from tests.faults.order import Order
from tests.faults.streams import Dialect, Stream

from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.process.settings import current_environment
from helexa.protocol import resources
from helexa.protocol.subjects import Role, inbox_prefix
from helexa.site.binary import find_server
from helexa.site.config import ANY_PORT, SiteConfig
from helexa.site.keys import Identity
from helexa.site.layout import DataDir
from helexa.site.server import NatsServer

PACE = 5.0
"""Tokens a second of each stream."""
COUNT, LENGTH_S = map(int, current_environment().get("HELEXA_STREAMS", "1000x60").split("x"))
ALL = ("provisioner-1", "scheduler-1", "neuron-1", "gateway-1", "gateway-2")
BEGIN_AT_ONCE = 100
BEGUN_WITHIN_S = 20.0
RESUMES = 3
OWNER_SILENCE_S = 30.0
"""A neuron takes an owner that has been silent for so long for gone."""
ORPHANS = 20


class Bench:
    """A site, its server and its engine, and what they cost."""

    def __init__(self, site: BareSite, server: NatsServer, engine: PacedEngine) -> None:
        self.site = site
        self.engine = engine
        self._others = {"nats": server.pid, "engine": engine.pid, "clients": psutil.Process().pid}

    @property
    def gateways(self) -> tuple[str, str]:
        return self.site.urls["gateway-1"], self.site.urls["gateway-2"]

    def used_s(self) -> dict[str, float]:
        """Return the processor time of each process so far, in seconds."""
        found = self.site.used_s()
        for name, pid in self._others.items():
            times = psutil.Process(pid).cpu_times()
            found[name] = times.user + times.system
        return found

    async def log(self) -> str:
        """Return what the token log holds."""
        seed = Identity.load(self.site.data.role_key(Role.PROVISIONER)).seed
        prefix = inbox_prefix(Role.PROVISIONER)
        servers = tuple(self.site.nats_urls)
        async with Bus(Connection(servers, "bench", seed, prefix)) as bus:
            await bus.wait_connected()
            state = (await bus.jetstream.stream_info(resources.TOKENS.name)).state
        return f"{state.messages} frames, {state.bytes / resources.MIB:.0f} MiB"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    data = DataDir(tmp_path / "data")
    config = SiteConfig("thousand", port=ANY_PORT)
    async with paced_engine() as engine, NatsServer(find_server(), data, config) as server:
        site = BareSite(data, (server.url,), engine.url, tmp_path / "logs", slots=COUNT + 100)
        async with bare_site(site, *ALL):
            yield Bench(site, server, engine)


def orders(count: int, length_s: float) -> list[Order]:
    tokens = int(PACE * length_s)
    return [Order(tokens=tokens, pace=PACE, seed=f"s{number}") for number in range(count)]


async def begin(streams: Sequence[Stream]) -> list[asyncio.Task[None]]:
    """Ask for all streams, so many at a time; returns when each has begun."""
    reading = []
    for first in range(0, len(streams), BEGIN_AT_ONCE):
        some = streams[first : first + BEGIN_AT_ONCE]
        reading += [asyncio.create_task(stream.ask()) for stream in some]
        async with asyncio.timeout(BEGUN_WITHIN_S):
            await asyncio.gather(*(stream.began.wait() for stream in some))
    return reading


async def follow(stream: Stream, asking: asyncio.Task[None], other: str, dialect: Dialect) -> None:
    """Return when a stream has come to its end, if need be at the other gateway."""
    await asking
    while stream.broke and stream.resumed < RESUMES:
        await stream.resume(other, dialect)


def shares(before: dict[str, float], after: dict[str, float], seconds: float) -> str:
    """Return the part of a core that each process has used."""
    parts = {name: (used - before.get(name, 0.0)) / seconds for name, used in after.items()}
    return ", ".join(f"{name} {part:.2f}" for name, part in parts.items())


@pytest.mark.accepts("NET-3")
async def test_every_stream_of_a_killed_gateway_goes_on_at_the_other_one(
    bench: Bench, record: Record
) -> None:
    wanted = orders(COUNT, LENGTH_S)
    first, second = bench.gateways
    streams = [
        Stream((first, second)[number % 2], order.prompt()) for number, order in enumerate(wanted)
    ]
    before, began = bench.used_s(), time.monotonic()
    dialects: tuple[Dialect, Dialect] = ("from", "last-event-id")
    asking = await begin(streams)
    reading = [
        asyncio.create_task(follow(stream, asking[number], second, dialects[number // 2 % 2]))
        for number, stream in enumerate(streams)
    ]
    await asyncio.sleep(max(0.0, LENGTH_S / 2 - (time.monotonic() - began)))
    assert not any(stream.is_complete or stream.broke for stream in streams)
    half = bench.used_s()
    killed_at_s = time.monotonic()
    bench.site.kill("gateway-1")
    await asyncio.wait_for(asyncio.gather(*reading), 2 * LENGTH_S + 60)
    after, ended = bench.used_s(), time.monotonic()

    waits = sorted(stream.longest_wait_s for stream in streams[::2])
    record(
        case=f"{COUNT} streams of {LENGTH_S} s, a gateway killed",
        first_event_s=round(max(stream.first_event_s or 0 for stream in streams), 2),
        pause_p50_s=round(waits[len(waits) // 2], 2),
        pause_max_s=round(waits[-1], 2),
        others_pause_max_s=round(max(stream.longest_wait_s for stream in streams[1::2]), 2),
        log=await bench.log(),
        cores_before=shares(before, half, killed_at_s - began),
        cores_after=shares(half, after, ended - killed_at_s),
    )
    assert [stream.error for stream in streams if stream.error] == []
    assert all(stream.is_complete for stream in streams)
    assert [stream.faults for stream in streams if stream.faults] == []
    assert [stream.text for stream in streams] == [order.text() for order in wanted]
    assert [stream.resumed for stream in streams] == [1, 0] * (COUNT // 2)
    counted = await bench.engine.counters()
    assert (counted["in_flight"], counted["cancelled"]) == (0, 0)


async def test_what_nobody_resumes_is_cancelled(bench: Bench) -> None:
    first, second = bench.gateways
    wanted = orders(2 * ORPHANS, 2 * OWNER_SILENCE_S)
    streams = [
        Stream((first, second)[number % 2], order.prompt()) for number, order in enumerate(wanted)
    ]
    reading = await begin(streams)
    bench.site.kill("gateway-1")
    # What had arrived by then is read first: the rest is asked for from there on.
    await reading[0]
    resuming = [asyncio.create_task(streams[0].resume(second))]
    waited_s = await bench.engine.until(
        lambda now: now["cancelled"] == ORPHANS - 1, 2 * OWNER_SILENCE_S
    )
    await asyncio.gather(*reading, *resuming)
    assert 0.8 * OWNER_SILENCE_S < waited_s < 1.4 * OWNER_SILENCE_S
    served = [streams[0], *streams[1::2]]
    assert [stream.text for stream in served] == [o.text() for o in (wanted[0], *wanted[1::2])]
    assert (await bench.engine.counters())["cancelled"] == ORPHANS - 1
