# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Claims of bulk work: a neuron has pulled a ticket and asks what to do.

It gets the request whose turn it is. Whoever has the ticket of a request that has ended is told to
forget it.
"""

import time

from helexa.bus.context import SUBJECT
from helexa.gateway.attempts import Attempts
from helexa.gateway.authority import Authority
from helexa.gateway.fleet import Fleet
from helexa.gateway.jobs import Job, Jobs, objection
from helexa.process.metrics import Metrics
from helexa.protocol import subjects
from helexa.protocol.errors import (
    BusyError,
    ForbiddenError,
    HelexaError,
    NotFoundError,
    UnavailableError,
)
from helexa.protocol.messages.bulk import ClaimRequest
from helexa.protocol.messages.execution import ExecuteRequest
from helexa.protocol.naming import decode_token, encode_token
from helexa.protocol.subjects import subject_of

NOT_YOU_S = 2.0
"""How long a job that one neuron may not have is kept from all."""
NOT_NOW_S = 4.0
"""The same for one that another neuron seems to work on: longer than its silence goes unnoticed."""


class Claims:
    """Gives the jobs of one gateway to neurons."""

    def __init__(
        self, jobs: Jobs, attempts: Attempts, fleet: Fleet, authority: Authority, metrics: Metrics
    ) -> None:
        """Give out `jobs`."""
        self._jobs = jobs
        self._attempts = attempts
        self._fleet = fleet
        self._authority = authority
        self._claims = metrics.counter(
            "bulk_claims", "Jobs that neurons have pulled, by what they were told", "outcome"
        )
        self._again = metrics.counter("bulk_redelivered", "Jobs that were pulled more than once")

    async def claim(self, asked: ClaimRequest) -> ExecuteRequest:
        """Give a job to the neuron that has pulled it.

        Raises:
            NotFoundError: there is nothing to do any more.
            BusyError: not this neuron, or not now.
            ForbiddenError: a neuron speaks for another one.
        """
        author = encode_token(asked.neuron_id)
        own = subject_of(subjects.CLAIM.subject, gateway=self._attempts.me, neuron=author)
        if SUBJECT.get() != own:
            raise ForbiddenError("a neuron claims for itself only")
        if asked.deliveries > 1:
            self._again.inc()
        try:
            order = await self._claim(asked, author)
        except HelexaError as error:
            self._claims.labels(error.code).inc()
            raise
        self._claims.labels("taken").inc()
        return order

    async def _claim(self, asked: ClaimRequest, author: str) -> ExecuteRequest:
        holder = self._jobs.holder(asked.ticket)
        if holder is None:
            raise NotFoundError("nothing waits under this ticket")
        if holder.claimer:
            if holder.claimer == author and holder.order is not None and not holder.is_begun:
                # It did not get the first reply.
                return holder.order
            raise BusyError("another neuron has it", retry_after_s=NOT_NOW_S)
        job = self._choose(holder, asked.neuron_id)
        job.claimer = author
        try:
            await self._hold(job)
            job.order = await self._assign(job, author)
        except BusyError:
            job.claimer = ""
            self._jobs.put_back(job)
            raise
        except HelexaError as error:
            if self._jobs.waits(job):
                job.fail(error)
            raise NotFoundError("the request has ended") from error
        self._jobs.use(job)
        return job.order

    def _choose(self, holder: Job, neuron_id: str) -> Job:
        """Return the job whose turn it is, for whoever has the ticket of `holder`."""
        serving = self._fleet.serving(holder.work.model, time.monotonic())

        def suits(job: Job) -> bool:
            return objection(job.work, neuron_id, job.course.failed, serving) is None

        job = self._jobs.give(holder, suits)
        if job is None:
            raise BusyError("nothing that waits is for this neuron", retry_after_s=NOT_YOU_S)
        return job

    async def _hold(self, job: Job) -> None:
        """Set aside what the request may cost, once; while the books are away it waits on."""
        if job.work.is_held:
            return
        try:
            await self._authority.hold(job.work.caller, job.work.claim)
        except UnavailableError as error:
            raise BusyError("its cost cannot be set aside now", retry_after_s=NOT_NOW_S) from error
        job.work.is_held = True

    async def _assign(self, job: Job, author: str) -> ExecuteRequest:
        """Make `author` the one whose frames count, and return what it is to do."""
        answer, course = job.answer, job.course
        self._check_waits(job)
        order = await self._attempts.begin(
            job.work, answer, author, course.decision_id, course.onward
        )
        self._check_waits(job)
        current = answer.fold.current
        course.neuron_id = decode_token(current.author) if current else ""
        answer.is_accepted = True
        answer.heard_at = time.monotonic()
        self._fleet.took(course.neuron_id, job.work.model)
        job.claimed.set_result(None)
        if order is None:
            raise NotFoundError("another gateway looks after this request")
        return order

    def _check_waits(self, job: Job) -> None:
        if job.claimed.done() or not self._jobs.waits(job):
            raise NotFoundError("nobody waits for this request any more")
