# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Queues of work: each message to one puller at a time, until it is done."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.conftest import Broker

from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.bus.resources import Durability, ensure_resources
from helexa.bus.workqueue import Delivery, Puller, WorkQueue, queue_name
from helexa.protocol import resources, subjects
from helexa.protocol.errors import NoRespondersError, QueueFullError
from helexa.protocol.naming import encode_token, random_id
from helexa.protocol.subjects import Role, subject_of


@pytest.fixture
async def subject(bus: Bus) -> str:
    await ensure_resources(bus, Role.GATEWAY, Durability())
    return subject_of(subjects.BULK, model=encode_token(f"org/{random_id(40)} v1"))


@pytest.fixture
def queue(bus: Bus) -> WorkQueue:
    return WorkQueue(bus, resources.BULK)


@pytest.fixture
async def puller(bus: Bus, subject: str) -> AsyncIterator[Puller]:
    async with Puller(bus, resources.BULK, subject) as made:
        yield made


async def pulled(puller: Puller, timeout_s: float = 5.0) -> Delivery:
    delivery = await puller.next(timeout_s)
    assert delivery is not None
    return delivery


async def test_a_message_is_pulled_once_and_gone_when_it_is_done(
    queue: WorkQueue, puller: Puller, subject: str
) -> None:
    sequence = await queue.put(subject, b"work")
    delivery = await pulled(puller)
    assert (delivery.data, delivery.sequence, delivery.deliveries) == (b"work", sequence, 1)
    assert await puller.next(0.2) is None
    assert await queue.holds(sequence, b"work")
    assert not await queue.holds(sequence, b"other work")
    await delivery.done()
    while await queue.holds(sequence, b"work"):
        await asyncio.sleep(0.01)


async def test_what_is_put_back_comes_again(queue: WorkQueue, puller: Puller, subject: str) -> None:
    await queue.put(subject, b"work")
    first = await pulled(puller)
    await first.put_back()
    second = await pulled(puller)
    assert (second.sequence, second.deliveries) == (first.sequence, 2)
    await second.put_back(0.5)
    assert await puller.next(0.1) is None
    third = await pulled(puller)
    assert third.deliveries == 3
    await third.done()


async def test_a_puller_that_waits_gets_what_is_put_later(
    queue: WorkQueue, puller: Puller, subject: str
) -> None:
    await queue.put(subject, b"first")
    await (await pulled(puller)).done()
    waiting = asyncio.create_task(puller.next(5.0))
    await asyncio.sleep(0)
    await queue.put(subject, b"later")
    delivery = await waiting
    assert delivery is not None
    assert delivery.data == b"later"
    await delivery.done()


async def test_a_queue_that_never_had_work_is_no_queue(puller: Puller) -> None:
    with pytest.raises(NoRespondersError):
        await puller.next(1.0)


async def test_what_is_withdrawn_is_not_pulled(
    queue: WorkQueue, puller: Puller, subject: str
) -> None:
    sequence = await queue.put(subject, b"work")
    await queue.withdraw(sequence)
    assert not await queue.holds(sequence, b"work")
    assert await puller.next(0.2) is None
    await queue.withdraw(sequence)


async def test_silence_hands_a_message_to_another_and_a_word_keeps_it(
    puller: Puller, bus: Bus, subject: str
) -> None:
    silence_s = 2.0
    await WorkQueue(bus, resources.BULK, ack_wait_s=silence_s).put(subject, b"work")
    delivery = await pulled(puller)
    for _ in range(2):
        await asyncio.sleep(silence_s / 2)
        await delivery.in_progress()
    async with Puller(bus, resources.BULK, subject) as other:
        assert await other.next(silence_s / 2) is None
        again = await pulled(other)
    assert (again.sequence, again.deliveries) == (delivery.sequence, 2)
    await again.done()


async def test_queues_of_two_subjects_do_not_mix(
    queue: WorkQueue, puller: Puller, bus: Bus, subject: str
) -> None:
    other = f"{subject}x"
    await queue.put(other, b"theirs")
    await queue.put(subject, b"ours")
    mine = await pulled(puller)
    assert mine.data == b"ours"
    assert await puller.next(0.2) is None
    await mine.done()
    async with Puller(bus, resources.BULK, other) as theirs:
        await (await pulled(theirs)).done()


async def test_what_was_put_and_who_waits_outlive_the_server(broker: Broker) -> None:
    subject = subject_of(subjects.BULK, model="m")
    async with Bus(Connection((broker.url,), "test")) as bus:
        await ensure_resources(bus, Role.GATEWAY, Durability())
        queue = WorkQueue(bus, resources.BULK)
        async with Puller(bus, resources.BULK, subject) as puller:
            await queue.put(subject, b"before")
            again = asyncio.Event()

            async def look_again() -> None:
                puller.look_again()
                again.set()

            bus.on_reconnected(look_again)
            broker.stop(kill=True)
            broker.start()
            await again.wait()
            assert await puller.next(5.0) is None
            delivery = await pulled(puller)
            assert delivery.data == b"before"
            await delivery.done()


async def test_a_full_stream_refuses_and_keeps_what_it_has(broker: Broker) -> None:
    subject = subject_of(subjects.BULK, model="m")
    async with Bus(Connection((broker.url,), "test")) as bus:
        await ensure_resources(bus, Role.GATEWAY, Durability())
        queue = WorkQueue(bus, resources.BULK)
        first = await queue.put(subject, b"first")
        with pytest.raises(QueueFullError) as refused:
            await fill(queue, subject)
        assert refused.value.retry_after_s
        assert await queue.holds(first, b"first")


async def fill(queue: WorkQueue, subject: str) -> None:
    while True:
        await queue.put(subject, bytes(900_000))


def test_a_queue_is_named_by_its_model_or_by_a_digest_of_a_long_one() -> None:
    assert queue_name(subject_of(subjects.BULK, model=encode_token("org/m 1"))) == "org=2Fm=201"
    long = subject_of(subjects.BULK, model=encode_token("ü" * 200))
    assert len(queue_name(long)) == 32
    assert queue_name(long) == queue_name(long)
