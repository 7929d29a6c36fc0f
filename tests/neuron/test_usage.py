# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Signed counts on their way to the portals' books."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from tests.conftest import Broker

from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.bus.resources import Durability, ensure_resources
from helexa.neuron.usage import UsageSender
from helexa.protocol import subjects
from helexa.protocol.codec import unpack
from helexa.protocol.messages.usage import SignedFields, UsageBatch
from helexa.protocol.subjects import Role

STORED_WITHIN_S = 30.0


def signed(record: bytes) -> SignedFields:
    return {"record": record, "key": "U", "signature": b"s"}


@contextlib.asynccontextmanager
async def running(sender: UsageSender) -> AsyncIterator[None]:
    task = asyncio.create_task(sender.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def stored(bus: Bus) -> list[bytes]:
    subject = subjects.subject_of(subjects.USAGE.subject, portal="p", neuron="n")
    kept = await bus.jetstream.get_last_msg("USAGE", subject)
    return [each.record for each in unpack(UsageBatch, kept.data or b"").records]


@pytest.fixture
async def site(broker: Broker) -> AsyncIterator[Bus]:
    """A site that has no place for records yet."""
    async with Bus(Connection((broker.url,), "test")) as bus:
        await bus.wait_connected()
        yield bus


async def test_a_record_is_sent_until_it_is_stored(site: Bus) -> None:
    sender = UsageSender(site, "n")
    async with running(sender):
        sender.add("p", signed(b"one"))
        assert not await sender.flush(0.3)
        assert sender.waiting == 1
        await ensure_resources(site, Role.PORTAL, Durability())
        assert await sender.flush(STORED_WITHIN_S)
    assert sender.waiting == 0
    assert await stored(site) == [b"one"]


async def test_the_oldest_records_go_when_too_many_wait(site: Bus) -> None:
    await ensure_resources(site, Role.PORTAL, Durability())
    sender = UsageSender(site, "n", max_waiting=2)
    for record in (b"one", b"two", b"three"):
        sender.add("p", signed(record))
    assert (sender.waiting, sender.dropped) == (2, 1)
    async with running(sender):
        assert await sender.flush(STORED_WITHIN_S)
    assert await stored(site) == [b"two", b"three"]
