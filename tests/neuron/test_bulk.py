# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Bulk work at the neuron: pulled while there is room, claimed, carried out, put back or done."""

import asyncio

import pytest
from msgspec.structs import replace

from helexa.bus.context import SUBJECT
from helexa.bus.service import Service
from helexa.bus.workqueue import WorkQueue
from helexa.protocol import resources, subjects
from helexa.protocol.codec import pack
from helexa.protocol.errors import (
    BackendError,
    BusyError,
    HelexaError,
    NotFoundError,
    RefusedError,
)
from helexa.protocol.frames import FrameKind
from helexa.protocol.messages.bulk import BulkJob, ClaimRequest
from helexa.protocol.messages.execution import CancelRequest, ExecuteRequest
from helexa.protocol.messages.neurons import DrainRequest
from helexa.protocol.messages.provisioning import UnloadModel
from helexa.protocol.messages.routing import GatewayBeat
from helexa.protocol.naming import encode_token, random_id
from helexa.protocol.subjects import subject_of

from .conftest import PATIENCE_S, Rig, RigMaker, scripted


class Lane:
    """A gateway's part in bulk work: what it offers, and what it says to who claims it."""

    def __init__(self, rig: Rig, model: str) -> None:
        self.gateway = rig.gateway
        self.model = model
        self.queue = WorkQueue(rig.gateway.bus, resources.BULK)
        self.orders: dict[str, ExecuteRequest | HelexaError] = {}
        self.claims: asyncio.Queue[ClaimRequest] = asyncio.Queue()
        self.subjects: list[str] = []
        self.sequence = 0
        self._service = Service(rig.gateway.bus, "gateway", instance=random_id(40), version="0")

    async def serve(self) -> None:
        await self._service.serve(subjects.CLAIM, self._claim, gateway=self.gateway.name)

    async def offer(self, answer: HelexaError | None = None, **changes: object) -> ExecuteRequest:
        """Put a job into the queue; it can be claimed unless `answer` says otherwise."""
        request = self.gateway.request(model=self.model, **changes)
        self.orders[request.request_id] = answer or request
        # Tickets have names of their own; here they are called like the requests.
        job = BulkJob(ticket=request.request_id, gateway=self.gateway.name, model=request.model)
        subject = subject_of(subjects.BULK, model=encode_token(self.model))
        self.sequence = await self.queue.put(subject, pack(job))
        return request

    async def claimed(self) -> ClaimRequest:
        return await asyncio.wait_for(self.claims.get(), PATIENCE_S)

    async def until_empty(self) -> None:
        """Return when no job is left for the model."""
        subject = subject_of(subjects.BULK, model=encode_token(self.model))
        async with asyncio.timeout(PATIENCE_S):
            while (
                await self.gateway.bus.jetstream.stream_info(
                    resources.BULK.name, subjects_filter=subject
                )
            ).state.subjects:
                await asyncio.sleep(0.02)

    async def leave(self) -> None:
        await self._service.drain(0)

    async def _claim(self, asked: ClaimRequest) -> ExecuteRequest:
        self.subjects.append(SUBJECT.get())
        self.claims.put_nowait(asked)
        answer = self.orders[asked.ticket]
        if isinstance(answer, HelexaError):
            raise answer
        return answer


async def open_lane(rig: Rig, *, slots: int = 2) -> Lane:
    """Load a model of its own, so that tests beside each other do not share a queue."""
    model = f"org/bulk {random_id(40)}"
    await rig.gateway.load(scripted(model, slots=slots))
    lane = Lane(rig, model)
    await lane.serve()
    return lane


@pytest.fixture
async def lane(rig: Rig) -> Lane:
    return await open_lane(rig)


async def test_a_job_is_pulled_claimed_carried_out_and_done(rig: Rig, lane: Lane) -> None:
    request = await lane.offer()
    asked = await lane.claimed()
    assert asked.neuron_id == rig.gateway.neuron_id
    assert lane.subjects[0].endswith(f".claim.{rig.gateway.token}")
    (await rig.runtimes.script()).answer("Hel", "lo")
    frames = await rig.gateway.ended(request)
    assert frames[-1].kind == FrameKind.DONE
    await lane.until_empty()
    assert lane.claims.empty()


async def test_bulk_work_leaves_a_slot_to_interactive_requests(rig: Rig, lane: Lane) -> None:
    jobs = [await lane.offer() for _ in range(3)]
    first = await lane.claimed()
    script = await rig.runtimes.script()
    await rig.gateway.execute(rig.gateway.request(model=lane.model))
    interactive = await rig.runtimes.script()
    assert lane.claims.empty()
    script.answer("one")
    await rig.gateway.ended(next(job for job in jobs if job.request_id == first.ticket))
    interactive.answer("mine")
    for _ in range(2):
        await lane.claimed()
        (await rig.runtimes.script()).answer("more")
    await lane.until_empty()


async def test_a_job_follows_another_where_only_bulk_work_has_no_room(
    new_rig: RigMaker, nats_url: str
) -> None:
    async with new_rig({"home": nats_url}, bulk_slots=1) as rig:
        lane = await open_lane(rig, slots=80)
        for _ in range(3):
            await lane.offer()
        for _ in range(3):
            await lane.claimed()
            script = await rig.runtimes.script()
            assert lane.claims.empty()
            script.answer("one")
        await lane.until_empty()


async def test_a_model_with_one_slot_takes_bulk_work_when_it_is_idle(rig: Rig) -> None:
    lane = await open_lane(rig, slots=1)
    interactive = rig.gateway.request(model=lane.model)
    await rig.gateway.execute(interactive)
    script = await rig.runtimes.script()
    job = await lane.offer()
    await rig.gateway.reported(lambda status: status.slots_busy == 1)
    assert lane.claims.empty()
    script.answer("mine")
    await rig.gateway.ended(interactive)
    await lane.claimed()
    (await rig.runtimes.script()).answer("bulk")
    await rig.gateway.ended(job)
    await lane.until_empty()


async def test_a_drained_neuron_pulls_nothing_until_it_is_back(rig: Rig, lane: Lane) -> None:
    async def drain(*, draining: bool) -> None:
        await rig.gateway.orders.request(
            subjects.DRAIN,
            DrainRequest(draining=draining),
            deadline_s=PATIENCE_S,
            neuron=rig.gateway.token,
        )

    await drain(draining=True)
    await rig.gateway.reported(lambda status: status.draining)
    job = await lane.offer()
    await rig.gateway.reported(lambda status: status.slots_busy == 0)
    assert lane.claims.empty()
    await drain(draining=False)
    await lane.claimed()
    (await rig.runtimes.script()).answer("late")
    await rig.gateway.ended(job)


async def test_a_job_of_an_unloaded_model_waits_for_who_has_it(rig: Rig, lane: Lane) -> None:
    await rig.gateway.order(UnloadModel(model=lane.gateway.request(model=lane.model).model))
    await lane.offer()
    assert lane.claims.empty()
    await rig.gateway.load(scripted(lane.model))
    await lane.claimed()
    (await rig.runtimes.script()).answer("loaded")
    await lane.until_empty()


async def test_a_job_that_is_void_is_forgotten(rig: Rig, lane: Lane) -> None:
    await lane.offer(NotFoundError("the client left"))
    await lane.claimed()
    await lane.until_empty()
    assert rig.node.presence.host.slots.busy == 0
    assert lane.claims.empty()


async def test_a_job_that_is_not_ours_now_is_put_back(rig: Rig, lane: Lane) -> None:
    request = await lane.offer(BusyError("not now", retry_after_s=0.3))
    first = await lane.claimed()
    lane.orders[request.request_id] = request
    second = await lane.claimed()
    assert (first.ticket, first.deliveries, second.ticket, second.deliveries) == (
        second.ticket,
        1,
        first.ticket,
        2,
    )
    (await rig.runtimes.script()).answer("now")
    await rig.gateway.ended(request)
    await lane.until_empty()


async def test_the_job_of_a_gateway_that_left_is_dropped(rig: Rig, lane: Lane) -> None:
    await lane.leave()
    beat = GatewayBeat(gateway=rig.gateway.name, returns=True)
    await rig.gateway.bus.publish(subjects.GATEWAY_BEAT, beat, gateway=rig.gateway.name)
    await lane.offer()
    await lane.until_empty()
    assert rig.node.presence.host.slots.busy == 0


async def test_work_that_another_neuron_may_do_better_goes_back(rig: Rig, lane: Lane) -> None:
    request = await lane.offer()
    await lane.claimed()
    (await rig.runtimes.script()).fail(BackendError("out of luck"))
    await rig.gateway.ended(request)
    lane.orders[request.request_id] = replace(request, attempt=2)
    assert (await lane.claimed()).deliveries == 2
    (await rig.runtimes.script()).answer("again")
    await lane.until_empty()


async def test_cancelled_work_frees_its_slot_and_is_for_its_gateway_to_withdraw(
    rig: Rig, lane: Lane
) -> None:
    request = await lane.offer()
    await lane.claimed()
    await rig.runtimes.script()
    await rig.gateway.bus.request(
        subjects.CANCEL,
        CancelRequest(request_id=request.request_id, owner=rig.gateway.name, attempt=1),
        deadline_s=PATIENCE_S,
        neuron=rig.gateway.token,
    )
    await lane.queue.withdraw(lane.sequence)
    await rig.gateway.ended(request)
    await lane.until_empty()
    assert lane.claims.empty()
    assert rig.node.presence.host.slots.busy == 0


async def test_what_was_cancelled_before_it_came_is_not_begun(rig: Rig, lane: Lane) -> None:
    request = rig.gateway.request(model=lane.model)
    reply = await rig.gateway.bus.request(
        subjects.CANCEL,
        CancelRequest(request_id=request.request_id, owner=rig.gateway.name, attempt=1),
        deadline_s=PATIENCE_S,
        neuron=rig.gateway.token,
    )
    assert reply.state == "unknown"
    with pytest.raises(RefusedError):
        await rig.gateway.execute(request)
    await rig.gateway.execute(replace(request, attempt=2))
    (await rig.runtimes.script()).answer("anew")
    await rig.gateway.ended(request)


async def test_a_large_body_comes_with_the_claim(rig: Rig, lane: Lane) -> None:
    body = b"x" * (rig.gateway.bus.max_payload_bytes + 1)
    request = await lane.offer(body=body)
    await lane.claimed()
    (await rig.runtimes.script()).answer("much")
    await rig.gateway.ended(request)
    assert rig.runtimes.bodies[-1] == body
