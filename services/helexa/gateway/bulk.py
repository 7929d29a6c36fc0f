# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Bulk work at its gateway: it waits in the site's queue until a neuron with room claims it.

What waits there is a ticket: it says where to claim, and the request stays here. A gateway has as
many tickets in the queue as requests that wait.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine

from helexa.bus.workqueue import WorkQueue
from helexa.gateway.answer import Answer
from helexa.gateway.dispatch import Course, Dispatcher
from helexa.gateway.jobs import Job, Jobs, Ticket
from helexa.gateway.line import Bounds
from helexa.gateway.work import Work
from helexa.process.metrics import Metrics
from helexa.protocol import subjects
from helexa.protocol.codec import pack
from helexa.protocol.errors import (
    HelexaError,
    NoCapacityError,
    QueueFullError,
    RateLimitedError,
    ShuttingDownError,
    UnavailableError,
)
from helexa.protocol.messages.bulk import BulkJob
from helexa.protocol.messages.models import ModelId
from helexa.protocol.naming import encode_token
from helexa.protocol.subjects import subject_of

_log = logging.getLogger(__name__)

LOOK_AGAIN_S = 10.0
"""How often it is made sure that a model that is waited for can come, and that jobs exist."""
RETRY_AFTER_S = 30.0
WITHDRAW_WITHIN_S = 2.0


class BulkDesk:
    """The bulk requests of one gateway, those that wait and those that run."""

    def __init__(
        self,
        queue: WorkQueue,
        jobs: Jobs,
        dispatcher: Dispatcher,
        metrics: Metrics,
        bounds: Callable[[], Bounds],
        *,
        me: str,
        timeout_s: float,
    ) -> None:
        """Put `jobs` into `queue`, to be claimed at the gateway `me`."""
        self._queue = queue
        self._jobs = jobs
        self._dispatcher = dispatcher
        self._bounds = bounds
        self._me = me
        self._timeout_s = timeout_s
        self._loose: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._waiting = metrics.gauge("bulk_waiting", "Bulk requests that wait", "model")

    async def place(self, work: Work, answer: Answer, course: Course) -> None:
        """Return when a neuron has claimed the request.

        Raises:
            QueueFullError: too much waits already.
            RateLimitedError: the same for the caller's key.
            NoCapacityError: no neuron had room in time.
            NeverFitsError: no neuron could ever run the model.
            HelexaError: what the scheduler says of the request.
        """
        job = self._admit(work, answer, course)
        began = time.monotonic()
        try:
            await self._enter(job)
            await self._wait(job, began + self._timeout_s - course.queue_s)
        finally:
            course.queue_s += time.monotonic() - began
            self._jobs.leave(job)
            job.claimed.cancel()
            if job.order is None:
                self.forget(work)
                # What ended this one may end the next.
                self._jobs.look(work.model)

    def forget(self, work: Work, *, is_answered: bool = False) -> None:
        """Let go of a request that has ended, or is placed by others."""
        job = self._jobs.remove(work.request_id)
        # What a neuron has finished it takes out of the queue itself.
        if job is not None and job.ticket.sequence and not is_answered:
            self._loosely(self._queue.withdraw(job.ticket.sequence))

    def hear(self, model: str, room: int, _: str) -> None:
        """Take in what a neuron reports of `model`."""
        # Room is for neurons to find; that a model cannot be loaded is for us to tell.
        if not room:
            self._jobs.look(model)

    def look(self) -> None:
        """Make sure that the jobs that wait still exist: the servers may have lost them."""
        for model in self._jobs.models():
            self._jobs.look(model)

    def close(self) -> None:
        """Send everybody away who waits."""
        self._is_closed = True
        for job in self._jobs:
            job.fail(ShuttingDownError(retry_after_s=1))

    async def finish(self) -> None:
        """Return when the jobs that nobody waits for are out of the queue."""
        if self._loose:
            await asyncio.wait(self._loose, timeout=WITHDRAW_WITHIN_S)

    def _admit(self, work: Work, answer: Answer, course: Course) -> Job:
        """Return the request's job, in the line."""
        if self._is_closed:
            raise ShuttingDownError(retry_after_s=1)
        job = self._jobs.get(work.request_id)
        if job is not None:
            # The queue hands it out again, before others: its neuron has died or put it back.
            self._jobs.enter_again(job)
            return job
        bounds = self._bounds()
        everything, of_key = self._jobs.count(work.standing.key)
        if of_key >= bounds.places_of_key:
            text = "Too much bulk work of this key waits."
            raise RateLimitedError(text, retry_after_s=RETRY_AFTER_S)
        if everything >= bounds.places:
            raise QueueFullError("Too much bulk work waits.", retry_after_s=RETRY_AFTER_S)
        job = Job(work, answer, course)
        self._jobs.enter(job)
        model = work.model
        self._waiting.labels(model).set_function(lambda: self._jobs.depth(model))
        return job

    async def _enter(self, job: Job) -> None:
        """Offer a job that can be done; one that was begun before waits for whatever it takes."""
        is_new = not job.answer.fold.assignments
        try:
            await self._dispatcher.look(job.work, job.course, loads=self._is_first(job))
        except UnavailableError:
            if is_new:
                raise
        if is_new:
            await self._offer(job)

    async def _offer(self, job: Job) -> None:
        """Put a ticket for the job into the queue, in place of one that is lost."""
        ticket, model = self._jobs.new_ticket(job), job.work.model
        ticket.is_on_its_way = True
        try:
            ticket.sequence = await self._queue.put(
                subject_of(subjects.BULK, model=encode_token(model)), self._told(ticket, model)
            )
        finally:
            ticket.is_on_its_way = False

    def _told(self, ticket: Ticket, model: str) -> bytes:
        return pack(BulkJob(ticket=ticket.name, gateway=self._me, model=ModelId(model)))

    async def _wait(self, job: Job, deadline: float) -> None:
        """Return when the job is claimed; the first in line makes sure that it can be."""
        while not job.claimed.done():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise NoCapacityError("No host had room in time.", retry_after_s=RETRY_AFTER_S)
            await job.until_news(min(remaining, LOOK_AGAIN_S))
            if not job.claimed.done() and self._is_first(job):
                # Who waits already needs neither a scheduler nor a provisioner that answers.
                with contextlib.suppress(UnavailableError):
                    await self._dispatcher.look(job.work, job.course, loads=True)
                    await self._mend(job.work.model)
        job.claimed.result()

    async def _mend(self, model: str) -> None:
        """Offer again what the queue has lost: its oldest ticket shows whether there is any."""
        is_whole = False
        for job in self._jobs.waiting(model):
            ticket = job.ticket
            if job.claimer or ticket.is_on_its_way or (ticket.sequence and is_whole):
                continue
            told = self._told(ticket, model)
            if ticket.sequence and await self._queue.holds(ticket.sequence, told):
                is_whole = True
                continue
            _log.warning("job_lost", extra={"request": job.work.request_id})
            await self._offer(job)

    def _is_first(self, job: Job) -> bool:
        return self._jobs.first(job.work.model) is job

    def _loosely(self, work: Coroutine[object, object, None]) -> None:
        async def quietly() -> None:
            # Who claims a job that stayed in the queue is told to forget it.
            with contextlib.suppress(HelexaError):
                await work

        task = asyncio.ensure_future(quietly())
        self._loose.add(task)
        task.add_done_callback(self._loose.discard)
