# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import asyncio
import json
import time
from collections.abc import AsyncIterator

import nats.errors
import pytest
from tests.conftest import Broker

from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.bus.context import DEADLINE, REQUEST_ID
from helexa.bus.resources import Durability, ensure_resources
from helexa.bus.service import Service
from helexa.protocol import subjects
from helexa.protocol.codec import pack
from helexa.protocol.errors import (
    BusyError,
    DeadlineExceededError,
    InternalError,
    MalformedError,
    NoRespondersError,
    RequestTooLargeError,
    ShuttingDownError,
    UnavailableError,
)
from helexa.protocol.messages.execution import ExecuteReply, ExecuteRequest
from helexa.protocol.messages.models import ModelId
from helexa.protocol.naming import random_id
from helexa.protocol.subjects import Role


def ask(body: bytes = b"") -> ExecuteRequest:
    return ExecuteRequest(
        request_id="g.r",
        home="g",
        owner="g",
        model=ModelId("m"),
        operation="chat",
        public_id="x",
        body=body,
    )


@pytest.fixture
def neuron() -> str:
    """A subject of this test's own."""
    return random_id(40)


@pytest.fixture
async def service(bus: Bus) -> AsyncIterator[Service]:
    made = Service(bus, "test", instance=random_id(40), version="1.2.3")
    yield made
    await made.drain(0)


async def test_a_request_is_answered_with_the_handlers_reply(
    bus: Bus, service: Service, neuron: str
) -> None:
    async def handle(request: ExecuteRequest) -> ExecuteReply:
        return ExecuteReply(neuron_id=request.model, slots_free=len(request.body))

    await service.serve(subjects.EXECUTE, handle, neuron=neuron)
    reply = await bus.request(subjects.EXECUTE, ask(b"123"), deadline_s=5, neuron=neuron)
    assert reply == ExecuteReply(neuron_id="m", slots_free=3)


async def test_requests_of_one_endpoint_are_handled_at_once(
    bus: Bus, service: Service, neuron: str
) -> None:
    all_in = asyncio.Barrier(4)

    async def handle(_: ExecuteRequest) -> ExecuteReply:
        await all_in.wait()
        return ExecuteReply(neuron_id="n")

    await service.serve(subjects.EXECUTE, handle, neuron=neuron)
    asked = [bus.request(subjects.EXECUTE, ask(), deadline_s=5, neuron=neuron) for _ in range(4)]
    assert len(await asyncio.gather(*asked)) == 4


async def test_an_error_reaches_the_caller_as_the_class_that_was_raised(
    bus: Bus, service: Service, neuron: str
) -> None:
    async def handle(_: ExecuteRequest) -> ExecuteReply:
        raise BusyError("4 of 4 slots", retry_after_s=2, slots=4)

    await service.serve(subjects.EXECUTE, handle, neuron=neuron)
    with pytest.raises(BusyError, match="4 of 4 slots") as caught:
        await bus.request(subjects.EXECUTE, ask(), deadline_s=5, neuron=neuron)
    assert caught.value.retry_after_s == 2
    assert caught.value.details == {"slots": 4}


async def test_a_defect_reaches_the_caller_without_its_details(
    bus: Bus, service: Service, neuron: str
) -> None:
    async def handle(_: ExecuteRequest) -> ExecuteReply:
        raise ZeroDivisionError("the password is hunter2")

    await service.serve(subjects.EXECUTE, handle, neuron=neuron)
    with pytest.raises(InternalError) as caught:
        await bus.request(subjects.EXECUTE, ask(), deadline_s=5, neuron=neuron)
    assert "hunter2" not in repr(caught.value.to_reply())
    with pytest.raises(InternalError):
        await bus.request(subjects.EXECUTE, ask(), deadline_s=5, neuron=neuron)


async def test_a_request_that_does_not_decode_is_answered(
    bus: Bus, service: Service, neuron: str
) -> None:
    async def handle(_: ExecuteRequest) -> ExecuteReply:
        return ExecuteReply(neuron_id="n")

    await service.serve(subjects.EXECUTE, handle, neuron=neuron)
    subject = subjects.subject_of(subjects.EXECUTE.subject, neuron=neuron)
    answer = await bus.client.request(subject, b"\xc1 not a message", timeout=5)
    assert (answer.headers or {})["Nats-Service-Error-Code"] == MalformedError.code


async def test_a_subject_that_nobody_serves_is_told_at_once(bus: Bus, neuron: str) -> None:
    began = time.monotonic()
    with pytest.raises(NoRespondersError):
        await bus.request(subjects.EXECUTE, ask(), deadline_s=30, neuron=neuron)
    assert time.monotonic() - began < 5


async def test_a_handler_that_is_too_slow_is_cancelled_at_the_callers_deadline(
    bus: Bus, service: Service, neuron: str
) -> None:
    cancelled = asyncio.Event()

    async def handle(_: ExecuteRequest) -> ExecuteReply:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    await service.serve(subjects.EXECUTE, handle, neuron=neuron)
    with pytest.raises(DeadlineExceededError):
        await bus.request(subjects.EXECUTE, ask(), deadline_s=0.2, neuron=neuron)
    await asyncio.wait_for(cancelled.wait(), 5)


@pytest.mark.accepts("X-6")
async def test_the_request_id_and_the_remaining_time_travel_along(
    bus: Bus, service: Service, neuron: str
) -> None:
    seen: list[tuple[str, float]] = []

    async def handle(_: ExecuteRequest) -> ExecuteReply:
        deadline = DEADLINE.get()
        assert deadline is not None
        seen.append((REQUEST_ID.get(), deadline.remaining_s))
        return ExecuteReply(neuron_id="n")

    await service.serve(subjects.EXECUTE, handle, neuron=neuron)
    token = REQUEST_ID.set("gate.req")
    try:
        await bus.request(subjects.EXECUTE, ask(), deadline_s=7, neuron=neuron)
    finally:
        REQUEST_ID.reset(token)
    assert seen[0][0] == "gate.req"
    assert 5 < seen[0][1] <= 7


async def test_a_handler_that_never_waits_is_asked_where_the_request_is_read(
    bus: Bus, service: Service, neuron: str
) -> None:
    seen: list[tuple[str, float, asyncio.Task[object] | None]] = []

    def handle(request: ExecuteRequest) -> ExecuteReply:
        deadline = DEADLINE.get()
        assert deadline is not None
        seen.append((REQUEST_ID.get(), deadline.remaining_s, asyncio.current_task()))
        return ExecuteReply(neuron_id=request.model, slots_free=len(request.body))

    await service.serve_at_once(subjects.EXECUTE, handle, neuron=neuron)
    token = REQUEST_ID.set("gate.req")
    try:
        reply = await bus.request(subjects.EXECUTE, ask(b"123"), deadline_s=7, neuron=neuron)
    finally:
        REQUEST_ID.reset(token)
    assert reply == ExecuteReply(neuron_id="m", slots_free=3)
    [(request_id, remaining_s, task)] = seen
    assert (request_id, task) == ("gate.req", None)
    assert 5 < remaining_s <= 7
    assert service.endpoints[0].requests == 1


async def test_what_a_handler_that_never_waits_raises_reaches_the_caller(
    bus: Bus, service: Service, neuron: str
) -> None:
    raised: list[Exception] = [BusyError("4 of 4 slots"), ZeroDivisionError("hunter2")]

    def handle(_: ExecuteRequest) -> ExecuteReply:
        raise raised.pop(0)

    await service.serve_at_once(subjects.EXECUTE, handle, neuron=neuron)
    with pytest.raises(BusyError, match="4 of 4 slots"):
        await bus.request(subjects.EXECUTE, ask(), deadline_s=5, neuron=neuron)
    with pytest.raises(InternalError) as caught:
        await bus.request(subjects.EXECUTE, ask(), deadline_s=5, neuron=neuron)
    assert "hunter2" not in repr(caught.value.to_reply())
    assert service.endpoints[0].errors == 2


async def test_a_reply_at_once_that_fits_no_message_is_an_error(
    bus: Bus, service: Service, neuron: str
) -> None:
    def handle(_: ExecuteRequest) -> ExecuteReply:
        return ExecuteReply(neuron_id="n" * (bus.max_payload_bytes + 64 * 1024))

    await service.serve_at_once(subjects.EXECUTE, handle, neuron=neuron)
    with pytest.raises(RequestTooLargeError):
        await bus.request(subjects.EXECUTE, ask(), deadline_s=5, neuron=neuron)


async def test_a_stopping_service_finishes_what_it_accepted(bus: Bus, neuron: str) -> None:
    service = Service(bus, "test", instance="a", version="1")
    accepted, release = asyncio.Event(), asyncio.Event()

    async def handle(_: ExecuteRequest) -> ExecuteReply:
        accepted.set()
        await release.wait()
        return ExecuteReply(neuron_id="late")

    await service.serve(subjects.EXECUTE, handle, neuron=neuron)
    asked = asyncio.create_task(bus.request(subjects.EXECUTE, ask(), deadline_s=10, neuron=neuron))
    await accepted.wait()
    draining = asyncio.create_task(service.drain(10))
    release.set()
    assert (await asked).neuron_id == "late"
    await draining
    with pytest.raises(NoRespondersError):
        await bus.request(subjects.EXECUTE, ask(), deadline_s=5, neuron=neuron)


async def test_what_does_not_finish_in_its_grace_is_answered_as_shutting_down(
    bus: Bus, neuron: str
) -> None:
    service = Service(bus, "test", instance="a", version="1")
    accepted = asyncio.Event()

    async def handle(_: ExecuteRequest) -> ExecuteReply:
        accepted.set()
        await asyncio.Event().wait()
        raise AssertionError

    await service.serve(subjects.EXECUTE, handle, neuron=neuron)
    asked = asyncio.create_task(bus.request(subjects.EXECUTE, ask(), deadline_s=10, neuron=neuron))
    await accepted.wait()
    await service.drain(0.05)
    with pytest.raises(ShuttingDownError):
        await asked


async def test_more_than_the_concurrency_is_refused_as_busy(
    bus: Bus, service: Service, neuron: str
) -> None:
    accepted, release = asyncio.Event(), asyncio.Event()

    async def handle(_: ExecuteRequest) -> ExecuteReply:
        accepted.set()
        await release.wait()
        return ExecuteReply(neuron_id="n")

    await service.serve(subjects.EXECUTE, handle, concurrency=1, neuron=neuron)
    first = asyncio.create_task(bus.request(subjects.EXECUTE, ask(), deadline_s=10, neuron=neuron))
    await accepted.wait()
    with pytest.raises(BusyError):
        await bus.request(subjects.EXECUTE, ask(), deadline_s=10, neuron=neuron)
    release.set()
    await first


async def test_a_body_larger_than_a_message_travels_through_the_object_store(
    broker: Broker,
) -> None:
    async with Bus(Connection((broker.url,), "test")) as bus:
        await ensure_resources(bus, Role.GATEWAY, Durability())
        service = Service(bus, "test", instance="a", version="1")

        async def handle(request: ExecuteRequest) -> ExecuteReply:
            return ExecuteReply(neuron_id="n", slots_free=sum(request.body))

        def handle_at_once(request: ExecuteRequest) -> ExecuteReply:
            return ExecuteReply(neuron_id="n", slots_free=-sum(request.body))

        await service.serve(subjects.EXECUTE, handle, neuron="n")
        await service.serve_at_once(subjects.EXECUTE, handle_at_once, neuron="o")
        large = b"\x01" * (bus.max_payload_bytes * 3)
        reply = await bus.request(subjects.EXECUTE, ask(large), deadline_s=20, neuron="n")
        assert reply.slots_free == len(large)
        reply = await bus.request(subjects.EXECUTE, ask(large), deadline_s=20, neuron="o")
        assert reply.slots_free == -len(large)
        with pytest.raises(RequestTooLargeError):
            await bus.request(
                subjects.EXECUTE, ask(bytes(129 * 1024 * 1024)), deadline_s=20, neuron="n"
            )


async def test_a_service_is_found_by_the_standard_discovery(
    bus: Bus, service: Service, neuron: str
) -> None:
    async def handle(_: ExecuteRequest) -> ExecuteReply:
        return ExecuteReply(neuron_id="n")

    await service.serve(subjects.EXECUTE, handle, queue="workers", neuron=neuron)
    await bus.request(subjects.EXECUTE, ask(), deadline_s=5, neuron=neuron)
    answers = {}
    for verb in ("PING", "INFO", "STATS"):
        subject = f"$SRV.{verb}.helexa-test.{service.instance}"
        answers[verb] = json.loads((await bus.client.request(subject, b"", timeout=5)).data)
    assert answers["PING"]["type"] == "io.nats.micro.v1.ping_response"
    assert answers["PING"]["version"] == "1.2.3"
    assert answers["INFO"]["endpoints"][0]["queue_group"] == "workers"
    assert answers["STATS"]["endpoints"][0]["num_requests"] == 1


async def test_only_inboxes_are_answered(bus: Bus, service: Service, neuron: str) -> None:
    handled = asyncio.Event()
    overheard: list[bytes] = []

    async def handle(_: ExecuteRequest) -> ExecuteReply:
        handled.set()
        return ExecuteReply(neuron_id="n")

    await service.serve(subjects.EXECUTE, handle, neuron=neuron)
    order = await bus.subscribe_raw(f"test.order.{neuron}", lambda _, data: overheard.append(data))
    subject = subjects.subject_of(subjects.EXECUTE.subject, neuron=neuron)
    await bus.publish_raw(subject, pack(ask()), reply=f"test.order.{neuron}")
    await asyncio.wait_for(handled.wait(), 5)
    await bus.request(subjects.EXECUTE, ask(), deadline_s=5, neuron=neuron)
    assert overheard == []
    await order.unsubscribe()


async def test_a_subscriber_that_raises_does_not_end_the_connection(bus: Bus, neuron: str) -> None:
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    def take(_: str, data: bytes) -> None:
        if data == b"bad":
            raise ValueError(data)
        seen.put_nowait(data)

    subscription = await bus.subscribe_raw(f"test.{neuron}", take)
    await bus.publish_raw(f"test.{neuron}", b"bad")
    await bus.publish_raw(f"test.{neuron}", b"good")
    assert await asyncio.wait_for(seen.get(), 5) == b"good"
    await subscription.unsubscribe()


async def test_a_process_may_start_before_its_broker(broker: Broker) -> None:
    broker.stop()
    async with Bus(Connection((broker.url,), "test")) as bus:
        with pytest.raises(UnavailableError):
            await bus.request(subjects.EXECUTE, ask(), deadline_s=1, neuron="n")
        broker.start()
        await asyncio.wait_for(bus.wait_connected(), 10)
        assert bus.is_connected


async def test_a_service_serves_again_after_the_broker_has_been_restarted(broker: Broker) -> None:
    async with Bus(Connection((broker.url,), "test")) as bus:
        service = Service(bus, "test", instance="a", version="1")
        back = asyncio.Event()

        async def handle(_: ExecuteRequest) -> ExecuteReply:
            return ExecuteReply(neuron_id="n")

        async def note() -> None:
            back.set()

        await service.serve(subjects.EXECUTE, handle, neuron="n")
        bus.on_reconnected(note)
        broker.stop(kill=True)
        broker.start()
        await asyncio.wait_for(back.wait(), 10)
        reply = await bus.request(subjects.EXECUTE, ask(), deadline_s=5, neuron="n")
        assert reply.neuron_id == "n"


async def test_leaving_closes_the_connection(nats_url: str) -> None:
    bus = Bus(Connection((nats_url,), "test"))
    async with bus:
        await bus.wait_connected()
    assert not bus.is_connected
    with pytest.raises(nats.errors.Error):
        await bus.client.publish("x", b"")
