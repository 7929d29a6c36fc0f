# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Reads of a token log of three copies, one of which has just started and holds nothing yet."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.faults.cluster import RunningCluster, cluster

from helexa.bus.batches import Kept
from helexa.bus.client import Bus
from helexa.bus.resources import Durability, ensure_resources
from helexa.bus.tokenlog import last_sequence, read_log, read_matching
from helexa.protocol import resources, subjects
from helexa.protocol.errors import UnavailableError
from helexa.protocol.naming import random_id
from helexa.protocol.subjects import Role, subject_of

FRAMES = 5000
READS = 12
FRAME = bytes(500)
WITHIN_S = 60.0


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[RunningCluster]:
    async with cluster(tmp_path) as running:
        for role in (Role.PROVISIONER, Role.GATEWAY):
            async with running.bus(role) as bus, asyncio.timeout(WITHIN_S):
                await ensure_resources(bus, role, Durability(replicas=3))
        yield running


@contextlib.asynccontextmanager
async def gateway_at(servers: RunningCluster, name: str) -> AsyncIterator[Bus]:
    """Be a gateway whose server is `name`."""
    url = servers.servers[name].url
    connection = dataclasses.replace(servers.connection(Role.GATEWAY), servers=(url,))
    async with Bus(connection) as bus, asyncio.timeout(WITHIN_S):
        await bus.wait_connected()
        yield bus


async def roles_of(bus: Bus) -> tuple[str, list[str]]:
    """Return the log's leader and the others, once all have all of it."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            with contextlib.suppress(TimeoutError):
                found = (await bus.jetstream.stream_info(resources.TOKENS.name)).cluster
                others = (found and found.replicas) or []
                if found and found.leader and len([each for each in others if each.current]) == 2:
                    return found.leader, [each.name for each in others if each.name]
            await asyncio.sleep(0.1)


async def fill(bus: Bus, subject: str) -> None:
    """Publish many frames and return when the log has them."""
    for _ in range(FRAMES):
        await bus.publish_raw(subject, FRAME)
    async with asyncio.timeout(WITHIN_S):
        while await last_sequence(bus, subject) <= FRAMES:
            await asyncio.sleep(0.05)


async def count(bus: Bus, pattern: str) -> int:
    """Return how many frames a read of `pattern` finds."""
    places: list[int] = []

    def take(_: str, kept: Kept) -> bool:
        places.append(kept.sequence)
        return True

    await read_matching(bus, pattern, take)
    assert places == sorted(set(places))
    return len(places)


async def wait_led(bus: Bus) -> None:
    """Return when consumers can be made: the servers' leader may be the one that has died."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            with contextlib.suppress(UnavailableError):
                await count(bus, subjects.ALL_TOKENS)
                return


async def test_reads_are_whole_while_a_server_catches_up(servers: RunningCluster) -> None:
    subject = subject_of(subjects.TOKENS, home="g1", author="ctl", request=random_id())
    async with servers.bus(Role.GATEWAY) as bus:
        leader, (late, _) = await roles_of(bus)
    async with gateway_at(servers, leader) as writer:
        await servers.kill(late)
        await writer.publish_raw(subject, b"first")
        await fill(writer, subject)
        await wait_led(writer)
        await servers.restart(late)
        async with gateway_at(servers, late) as reader:
            together = [count(reader, subjects.ALL_TOKENS) for _ in range(READS)]
            assert set(await asyncio.gather(*together)) == {FRAMES + 1}
            kept = await read_log(reader, subject)
    assert [each.sequence for each in kept] == list(range(1, FRAMES + 2))
