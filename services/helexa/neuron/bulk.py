# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Bulk work at a neuron: pulled while there is room for it, claimed at its gateway, carried out.

A job that was pulled is this neuron's until it has ended: then it leaves the queue, or goes back
where another neuron may do better. If the neuron dies, it falls silent about the job, and the queue
hands it to another one.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from helexa.bus.client import Bus
from helexa.bus.workqueue import PROGRESS_S, Delivery, Puller
from helexa.neuron.executor import Executor
from helexa.neuron.meters import Meters
from helexa.neuron.models import ModelHost
from helexa.neuron.owners import Owners
from helexa.neuron.room import BulkRoom
from helexa.protocol import resources, subjects
from helexa.protocol.codec import unpack
from helexa.protocol.errors import (
    HelexaError,
    MalformedError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from helexa.protocol.messages.bulk import BulkJob, ClaimRequest
from helexa.protocol.messages.execution import ExecuteRequest
from helexa.protocol.messages.models import ModelState
from helexa.protocol.naming import encode_token
from helexa.protocol.subjects import subject_of

_log = logging.getLogger(__name__)

PULL_S = 30.0
"""How long one pull waits at the queue."""
NO_QUEUE_S = 2.0
"""A queue that does not exist, or cannot be reached, is looked for again after so long."""
CLAIM_DEADLINE_S = 5.0
NO_ANSWER_S = 5.0
"""How long a job whose gateway does not answer is kept from all."""
PUT_BACK_S = 1.0
"""How long a job that was put back is kept from all: until its gateway has seen why."""


@dataclass(frozen=True, slots=True)
class Shop:
    """What bulk work is done with."""

    host: ModelHost
    room: BulkRoom
    meters: Meters
    is_open: Callable[[], bool]
    """Whether new work may begin at all."""


class BulkWork:
    """The bulk work of one site."""

    def __init__(self, bus: Bus, executor: Executor, shop: Shop) -> None:
        """Pull over `bus` and carry out by `executor`."""
        self.owners = Owners(time.monotonic())
        self._bus = bus
        self._executor = executor
        self._shop = shop
        self._bells: dict[str, asyncio.Event] = {}
        """What wakes the pulling for each model."""
        self._changed = asyncio.Event()
        self._pullers: set[Puller] = set()
        self._carried: set[str] = set()

    async def run(self) -> None:
        """Pull for every model that is loaded, until cancelled."""
        self._shop.host.on_change(self._changed.set)
        self._shop.host.on_change(self._ring)
        self._shop.room.on_end(self._ring)
        self._bus.on_reconnected(self._after_reconnect)
        await self._bus.wait_connected()
        self.owners.listen_anew(time.monotonic())
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._changed.clear()
                for hosted in self._shop.host.models:
                    model = str(hosted.record.model)
                    if model not in self._bells and self._serves(model):
                        self._bells[model] = asyncio.Event()
                        tasks.create_task(self._pull_for(model, tasks), name=f"pull-{model}")
                await self._changed.wait()

    async def _pull_for(self, model: str, tasks: asyncio.TaskGroup) -> None:
        bell = self._bells[model]
        subject = subject_of(subjects.BULK, model=encode_token(model))
        puller = Puller(self._bus, resources.BULK, subject)
        self._pullers.add(puller)
        try:
            async with puller:
                while self._serves(model):
                    bell.clear()
                    wait_s = self._wait_s(model)
                    if wait_s == 0:
                        await self._pull(model, puller, tasks)
                        continue
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(wait_s):
                            await bell.wait()
        finally:
            self._pullers.discard(puller)
            del self._bells[model]

    async def _pull(self, model: str, puller: Puller, tasks: asyncio.TaskGroup) -> None:
        try:
            pulled = await puller.next(PULL_S)
        except UnavailableError:
            await asyncio.sleep(NO_QUEUE_S)
            return
        if pulled is not None:
            await self._take(model, pulled, tasks)

    async def _take(self, model: str, pulled: Delivery, tasks: asyncio.TaskGroup) -> None:
        """Carry out a job, or let others have it."""
        try:
            job = unpack(BulkJob, pulled.data)
        except MalformedError as error:
            _log.warning("job_unreadable", extra={"model": model, "error": error.message})
            await pulled.done()
            return
        if job.ticket in self._carried:
            # Our word that it goes on was lost.
            await pulled.in_progress()
            return
        if self._wait_s(model) != 0:
            await pulled.put_back()
            return
        self._shop.room.begin()
        try:
            order = await self._begin(job, pulled)
        except HelexaError as error:
            self._shop.room.end()
            await self._decline(job, pulled, error)
            return
        self._shop.meters.bulk_job("taken")
        tasks.create_task(self._carry(job, order, pulled), name=f"carry-{order.request_id}")

    async def _begin(self, job: BulkJob, pulled: Delivery) -> ExecuteRequest:
        """Claim a job at its gateway and begin what that says."""
        asked = ClaimRequest(
            ticket=job.ticket,
            neuron_id=self._executor.neuron_id,
            deliveries=pulled.deliveries,
        )
        # The slot is held before the claim, so that what is given to us can begin.
        slot = self._shop.host.slots.take(str(job.model))
        try:
            order = await self._bus.request(
                subjects.CLAIM,
                asked,
                deadline_s=CLAIM_DEADLINE_S,
                gateway=job.gateway,
                neuron=encode_token(asked.neuron_id),
            )
        finally:
            slot.release()
        self._executor.accept(order)
        return order

    async def _decline(self, job: BulkJob, pulled: Delivery, error: HelexaError) -> None:
        """Say what becomes of a job that is not ours."""
        outcome = "put_back"
        if isinstance(error, NotFoundError):
            outcome = "void"
            await pulled.done()
        elif isinstance(error, RefusedError):
            await pulled.put_back(error.retry_after_s or PUT_BACK_S)
        elif self.owners.is_gone(job.gateway, time.monotonic()):
            outcome = "orphan"
            await pulled.done()
        else:
            await pulled.put_back(NO_ANSWER_S)
        self._shop.meters.bulk_job(outcome)
        extra = {"gateway": job.gateway, "code": error.code, "outcome": outcome}
        _log.debug("job_declined", extra=extra)

    async def _carry(self, job: BulkJob, order: ExecuteRequest, pulled: Delivery) -> None:
        """Keep the job from others until the work has ended, then say what becomes of it."""
        self._carried.add(job.ticket)
        settles = asyncio.create_task(self._executor.settles(order.request_id, order.attempt))
        try:
            while not (await asyncio.wait({settles}, timeout=PROGRESS_S))[0]:
                await pulled.in_progress()
            if settles.result():
                await pulled.done()
            else:
                await pulled.put_back(PUT_BACK_S)
        finally:
            settles.cancel()
            self._shop.room.end()
            self._carried.discard(job.ticket)

    def _wait_s(self, model: str) -> float | None:
        if not (self._shop.is_open() and self._serves(model)):
            return None
        return self._shop.room.wait_s(model)

    def _serves(self, model: str) -> bool:
        hosted = self._shop.host.find(model)
        return hosted is not None and hosted.servable and hosted.record.state == ModelState.LOADED

    def _ring(self) -> None:
        for bell in self._bells.values():
            bell.set()

    async def _after_reconnect(self) -> None:
        self.owners.listen_anew(time.monotonic())
        for puller in self._pullers:
            puller.look_again()
