# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""From a request to a neuron that has accepted it."""

import asyncio
import logging
import time
from dataclasses import dataclass, field

from helexa.bus.client import Bus
from helexa.gateway.answer import Answer
from helexa.gateway.attempts import Attempts
from helexa.gateway.away import Away
from helexa.gateway.cancels import Cancels
from helexa.gateway.continuation import FROM_THE_START, Onward
from helexa.gateway.fleet import Fleet
from helexa.gateway.leases import Leases
from helexa.gateway.line import Place
from helexa.gateway.outcomes import Outcomes
from helexa.gateway.schedulers import Schedulers
from helexa.gateway.waiting import Lines
from helexa.gateway.work import Work
from helexa.protocol import errors, subjects
from helexa.protocol.messages.execution import CancelRequest, Operation
from helexa.protocol.messages.models import ModelId
from helexa.protocol.messages.provisioning import EnsureRequest
from helexa.protocol.messages.routing import RoutingDecision, ScheduleRequest, Target
from helexa.protocol.naming import decode_token, encode_token

_log = logging.getLogger(__name__)

ENSURE_DEADLINE_S = 5.0
EXECUTE_DEADLINE_S = 5.0
LOADING_LOOK_AGAIN_S = 10.0
"""A load whose order was lost is asked for again after so long."""
PASSED_OVER = (errors.RefusedError, errors.UnavailableError, errors.DeadlineExceededError)
"""What a neuron answers that another one may not: it will not, it is ending or cannot be reached,
or it says nothing."""


@dataclass(slots=True)
class Course:
    """How one request has fared so far."""

    failed: set[str] = field(default_factory=set)
    """Neurons that have broken it."""
    onward: Onward = FROM_THE_START
    """How the next attempt begins."""
    decision_id: str = ""
    neuron_id: str = ""
    queue_s: float = 0.0
    place: Place | None = None
    """Where it waits, and then what it takes of its key's share."""

    @property
    def has_failed(self) -> bool:
        """Whether a neuron has broken it already, or it goes on after one."""
        return bool(self.failed) or self.onward.partial is not None


class Dispatcher:
    """Finds neurons for requests: schedule, ask the targets in turn, wait, ask again."""

    def __init__(
        self,
        bus: Bus,
        attempts: Attempts,
        fleet: Fleet,
        lines: Lines,
        outcomes: Outcomes,
        *,
        queue_timeout_s: float,
        away_timeout_s: float,
    ) -> None:
        """Keep the collaborators."""
        self._bus = bus
        self._attempts = attempts
        self._fleet = fleet
        self._lines = lines
        self._outcomes = outcomes
        self._queue_timeout_s = queue_timeout_s
        self.cancels = Cancels(bus)
        self.leases = Leases()
        self._schedulers = Schedulers(bus, away_timeout_s)
        self._provisioner = Away(away_timeout_s)

    async def place(self, work: Work, answer: Answer, course: Course) -> None:
        """Return when a neuron has accepted the request.

        Raises:
            UnavailableError: there is no scheduler, the line is full, or the wait was too long.
            NeverFitsError: no neuron could ever run the model.
            HelexaError: what the scheduler or a neuron says of the request.
        """
        self.release(course)
        returns = bool(answer.fold.assignments)
        place = self._lines.arrive(work.model, work.standing, returns=returns)
        try:
            while True:
                if not place.is_awake:
                    await self._wait(place, course)
                seen = self._fleet.changes[work.model]
                look_again_s = await self._try(work, answer, course)
                if look_again_s < 0:
                    course.place = self._served(place, answer)
                    return
                place.rest(look_again_s)
                if self._fleet.changes[work.model] != seen:
                    self._lines.wake(work.model, 1)
        finally:
            if course.place is None:
                place.leave()

    @staticmethod
    def _served(place: Place, answer: Answer) -> Place:
        place.served()
        # The slot is free when the answer has ended, however long the client takes to read it.
        answer.on_end = place.leave
        if answer.fold.ended:
            place.leave()
        return place

    def release(self, course: Course) -> None:
        """Give back what the request takes of its key's share: it runs no longer."""
        if course.place is not None:
            course.place.leave()
            course.place = None

    async def look(self, work: Work, course: Course, *, loads: bool) -> None:
        """Find out whether the request could be served, and load its model where only that lacks.

        Raises:
            HelexaError: it cannot be served, as `place` says.
        """
        try:
            course.decision_id = (await self._schedule(work, course)).decision_id
        except errors.NoCapacityError:
            return
        except errors.ModelLoadingError:
            if loads:
                await self._ensure(work)

    def cancel(self, work: Work, answer: Answer, reason: str) -> None:
        """Tell the neuron to stop; returns at once."""
        current = answer.fold.current
        if current is not None and not answer.fold.ended:
            asked = CancelRequest(
                request_id=work.request_id,
                owner=self._attempts.me,
                attempt=current.attempt,
                reason=reason,
            )
            self.cancels.send(asked, current.author)

    async def _wait(self, place: Place, course: Course) -> None:
        began = time.monotonic()
        try:
            await place.turn(self._queue_timeout_s - course.queue_s)
        finally:
            course.queue_s += time.monotonic() - began

    async def _try(self, work: Work, answer: Answer, course: Course) -> float:
        """Ask every neuron that a decision at hand, or else the scheduler, names.

        Returns -1 when one has accepted, else after how many seconds to try again although nothing
        has been heard; 0 for never.
        """
        leased = None if course.has_failed else self.leases.use(work, time.monotonic())
        if leased is not None:
            decision, targets = leased
            if await self._offer(work, answer, course, decision.decision_id, targets):
                return -1
            self.leases.drop(decision)
        try:
            decision = await self._schedule(work, course)
        except errors.NoCapacityError:
            if not course.failed:
                return 0
            # Better the neuron that failed before than none.
            course.failed.clear()
            return await self._try(work, answer, course)
        except errors.ModelLoadingError:
            await self._ensure(work)
            return LOADING_LOOK_AGAIN_S
        if not course.has_failed:
            self.leases.keep(work, decision, time.monotonic())
        if await self._offer(work, answer, course, decision.decision_id, decision.targets):
            return -1
        self.leases.drop(decision)
        return 0

    async def _offer(
        self,
        work: Work,
        answer: Answer,
        course: Course,
        decision_id: str,
        targets: tuple[Target, ...],
    ) -> bool:
        """Ask `targets` in turn; return whether one has accepted."""
        course.decision_id = decision_id
        for target in targets:
            author = encode_token(target.neuron_id)
            order = await self._attempts.begin(work, answer, author, decision_id, course.onward)
            if order is None:
                current = answer.fold.current
                course.neuron_id = decode_token(current.author) if current else ""
                answer.is_accepted = True
                return True
            try:
                await self._bus.request(
                    subjects.EXECUTE, order, deadline_s=EXECUTE_DEADLINE_S, neuron=author
                )
            except asyncio.CancelledError:
                # It may have accepted: one that has not will remember not to.
                self.cancel(work, answer, "client_gone")
                raise
            except PASSED_OVER as error:
                self._pass_over(work, answer, target, error)
                continue
            self._fleet.took(target.neuron_id, work.model)
            course.neuron_id = target.neuron_id
            answer.is_accepted = True
            answer.heard_at = time.monotonic()
            return True
        return False

    def _pass_over(
        self, work: Work, answer: Answer, target: Target, error: errors.HelexaError
    ) -> None:
        if isinstance(error, errors.DeadlineExceededError):
            # It may have accepted and been unable to say so.
            self.cancel(work, answer, "no_reply")
        self._outcomes.refused(target.neuron_id, work.model)
        _log.debug("passed_over", extra={"neuron": target.neuron_id, "code": error.code})

    async def _schedule(self, work: Work, course: Course) -> RoutingDecision:
        order, partial = work.order, course.onward.partial
        asked = ScheduleRequest(
            request_id=work.request_id,
            model=ModelId(work.model),
            workload=order.workload,
            needs=order.needs,
            prompt_tokens=order.prompt_tokens + (partial.tokens if partial else 0),
            max_tokens=order.max_tokens,
            prefix_hash=order.prefix_hash,
            prefix_digests=work.prefix_digests,
            hints=order.hints,
            # Plain text goes on anywhere: it is a longer prompt.
            continues=bool(partial and partial.text) and order.operation == Operation.CHAT,
            exclude_neurons=tuple(sorted(course.failed)),
        )
        decision = await self._schedulers.ask(asked)
        if decision.mode == "sharded":
            raise errors.UnsupportedError("Models split over several hosts are not supported yet.")
        return decision

    async def _ensure(self, work: Work) -> None:
        waiting = self._lines.depth(work.model)
        asked = EnsureRequest(
            model=ModelId(work.model), request_id=work.request_id, waiting=max(1, waiting)
        )
        try:
            ensured = await self._provisioner.ask(
                lambda: self._bus.request(subjects.ENSURE, asked, deadline_s=ENSURE_DEADLINE_S)
            )
        except (errors.NoRespondersError, errors.DeadlineExceededError) as error:
            raise errors.UnavailableError(
                f"The model {work.model!r} is not loaded, and no provisioner answers.",
                retry_after_s=5,
            ) from error
        if ensured.state != "impossible":
            return
        now = time.monotonic()
        failure = self._fleet.failure(work.model, now)
        if failure is not None:
            raise errors.ModelFailedError(f"The model {work.model!r} could not be loaded.")
        if not self._fleet.neurons(now):
            raise errors.NoCapacityError("No neuron is connected.", retry_after_s=10)
        raise errors.NeverFitsError(
            f"No neuron can hold the model {work.model!r}: {ensured.reason or 'no room'}.",
            param="model",
        )
