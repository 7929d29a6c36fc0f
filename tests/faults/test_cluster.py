# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A site on three nats-servers that keep three copies of its streams, one of which dies."""

import asyncio
import contextlib
import re
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.faults.bare_site import BareSite, bare_site
from tests.faults.cluster import RunningCluster, cluster
from tests.faults.conftest import Record
from tests.faults.engine import PacedEngine, paced_engine
from tests.faults.order import Order
from tests.faults.streams import Stream

from helexa.bus.batches import Kept
from helexa.bus.client import Bus
from helexa.bus.tokenlog import read_matching
from helexa.protocol import resources, subjects
from helexa.protocol.frames import CONTROL_AUTHOR, unpack_frame
from helexa.protocol.subjects import Role

ALL = ("provisioner-1", "scheduler-1", "neuron-1", "gateway-1", "gateway-2")
PACE = 10.0
TOKENS = 120
STREAMS = 30
SHORT_EVERY_S = 0.2
REPLICATED_WITHIN_S = 60.0
_CONNECTED = re.compile(r'"event":"bus_connected".*"server":"[^"]*:(\d+)"')


class Ground:
    """A site on three servers, and its engine."""

    def __init__(self, servers: RunningCluster, site: BareSite, engine: PacedEngine) -> None:
        self.servers = servers
        self.site = site
        self.engine = engine

    @property
    def gateways(self) -> tuple[str, str]:
        return self.site.urls["gateway-1"], self.site.urls["gateway-2"]

    async def victim(self, kind: str) -> str:
        """Return the server that is to die: the log's leader, or the one of a process."""
        leader = await self.leader()
        if kind == "leader":
            return leader
        log = self.site.processes[kind].log.read_text()
        port = int(_CONNECTED.findall(log)[-1])
        return next(name for name, each in self.servers.servers.items() if each.config.port == port)

    async def leader(self, copies: int = 2) -> str:
        """Return the server that leads the token log, once so many other copies are whole."""
        async with self.servers.bus(Role.PROVISIONER) as bus:
            async with asyncio.timeout(REPLICATED_WITHIN_S):
                while (name := await _leader(bus, copies)) is None:
                    await asyncio.sleep(0.1)
                return name


async def _leader(bus: Bus, copies: int) -> str | None:
    # Nobody answers while there is none.
    with contextlib.suppress(TimeoutError):
        found = (await bus.jetstream.stream_info(resources.TOKENS.name)).cluster
        others = (found and found.replicas) or []
        whole = sum(bool(each.current) and not each.offline for each in others)
        return found.leader if found and whole >= copies else None
    return None


async def lost_frames(ground: Ground) -> int:
    """Return how many frames the log lacks, of those between the ones that it has."""
    kept: defaultdict[str, set[int]] = defaultdict(set)

    def take(subject: str, message: Kept) -> bool:
        if f".{CONTROL_AUTHOR}." not in subject:
            kept[subject].add(unpack_frame(message.data).seq)
        return True

    async with ground.servers.bus(Role.GATEWAY) as bus:
        await read_matching(bus, subjects.ALL_TOKENS, take)
    return sum(max(numbers) + 1 - len(numbers) for numbers in kept.values())


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    async with (
        paced_engine() as engine,
        cluster(tmp_path / "servers", neurons=("neuron-1",)) as servers,
    ):
        site = BareSite(
            servers.data,
            servers.urls,
            engine.url,
            tmp_path / "logs",
            slots=200,
            variables={"HELEXA_STREAM_REPLICAS": "3"},
        )
        async with bare_site(site, *ALL):
            yield Ground(servers, site, engine)


def begin(ground: Ground, count: int, kind: str) -> list[tuple[Order, Stream]]:
    made = []
    for number in range(count):
        order = Order(tokens=TOKENS, pace=PACE, seed=f"{kind}{number}")
        made.append((order, Stream(ground.gateways[number % 2], order.prompt())))
    return made


async def all_began(streams: list[tuple[Order, Stream]]) -> None:
    await asyncio.wait_for(asyncio.gather(*(each.began.wait() for _, each in streams)), 30)


async def short_chats(ground: Ground, until: asyncio.Event) -> list[Stream]:
    """Ask one short chat after the other, at both gateways in turn, each at its time."""
    asked: list[Stream] = []
    asking: list[asyncio.Task[None]] = []
    while not until.is_set():
        order = Order(tokens=3, seed=f"short{len(asked)}")
        asked.append(Stream(ground.gateways[len(asked) % 2], order.prompt()))
        asking.append(asyncio.create_task(asked[-1].ask()))
        await asyncio.sleep(SHORT_EVERY_S)
    await asyncio.wait_for(asyncio.gather(*asking), 60)
    return asked


@pytest.mark.parametrize("victim", ["leader", "gateway-1", "neuron-1", "scheduler-1"])
async def test_a_server_dies_and_requests_go_on(
    ground: Ground, victim: str, record: Record
) -> None:
    dying = await ground.victim(victim)
    streams = begin(ground, STREAMS, "long")
    reading = [asyncio.create_task(stream.ask()) for _, stream in streams]
    await all_began(streams)
    over = asyncio.Event()
    asking = asyncio.create_task(short_chats(ground, over))
    await asyncio.sleep(2)
    await ground.servers.kill(dying)
    await asyncio.wait_for(asyncio.gather(*reading), 60)
    over.set()
    chats = await asking
    record(
        case=f"three servers, the {victim}'s killed",
        streams=len(streams),
        streams_whole=sum(stream.is_complete for _, stream in streams),
        pause_max_s=round(max(stream.longest_wait_s for _, stream in streams), 2),
        chats=len(chats),
        chats_answered=sum(chat.is_complete for chat in chats),
        chats_slowest_s=round(max(chat.first_event_s or 0 for chat in chats), 2),
        errors=[str(each.error) for each in [*(s for _, s in streams), *chats] if each.error][:3],
    )
    for order, stream in streams:
        assert stream.faults == []
        assert not stream.broke
        assert stream.text == order.text() if stream.is_complete else stream.error
    assert [chat.error for chat in chats if not chat.is_complete] == []
    assert await ground.engine.idle(10) < 5


async def test_a_log_with_holes_serves_every_byte_elsewhere(ground: Ground, record: Record) -> None:
    leader = await ground.leader()
    streams = begin(ground, STREAMS, "long")
    _, second = ground.gateways
    reading = [asyncio.create_task(stream.ask()) for _, stream in streams]
    await all_began(streams)
    await asyncio.sleep(2)
    await ground.servers.kill(leader)
    streams += begin(ground, STREAMS, "late")
    reading += [asyncio.create_task(stream.ask()) for _, stream in streams[STREAMS:]]
    await all_began(streams)
    await ground.leader(copies=1)
    await asyncio.sleep(1)
    ground.site.kill("gateway-1")
    await asyncio.wait_for(asyncio.gather(*reading[::2]), 60)
    resuming = [asyncio.create_task(stream.resume(second)) for _, stream in streams[::2]]
    await asyncio.wait_for(asyncio.gather(*resuming, *reading), 90)
    anew = [Stream(second, "") for _ in streams]
    for again, (_, stream) in zip(anew, streams, strict=True):
        again.name = stream.name
    await asyncio.wait_for(asyncio.gather(*(again.resume(second) for again in anew)), 60)
    lost = await lost_frames(ground)
    record(
        frames_lost=lost,
        case="the token log's leader killed, then a gateway",
        streams=len(streams),
        streams_whole=sum(stream.is_complete for _, stream in streams),
        read_anew_whole=sum(again.is_complete for again in anew),
    )
    for (order, stream), again in zip(streams, anew, strict=True):
        assert (stream.error, stream.faults) == (None, [])
        assert stream.text == order.text()
        assert (again.error, again.text) == (None, order.text())
    assert lost
