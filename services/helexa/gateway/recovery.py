# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What is done about an attempt that has failed."""

import contextlib
import logging

from helexa.gateway.continuation import Onward, Partial, Step, Transcript, is_continuable, next_step
from helexa.gateway.desk import Desk
from helexa.gateway.dispatch import Course
from helexa.gateway.reading import Reading
from helexa.gateway.work import Work
from helexa.protocol.errors import HelexaError
from helexa.protocol.messages.execution import Operation, TokenUsage

_log = logging.getLogger(__name__)


class Recovery:
    """The way on for one request whose neuron fails it."""

    def __init__(self, desk: Desk, work: Work, course: Course, reading: Reading) -> None:
        """Prepare the next attempts of `work` in `course`."""
        self._desk = desk
        self._work = work
        self._course = course
        self._reading = reading
        self._transcript = reading.transcript or Transcript()

    def step_after(self, error: HelexaError, *, is_last: bool) -> Step:
        """Count the failed attempt, end it, and prepare what follows.

        Args:
            error: What it failed by.
            is_last: There may be no other attempt.
        """
        neuron, answer = self._course.neuron_id, self._reading.answer
        if error.to_reply().retryable:
            self._desk.outcomes.failed(neuron, self._work.model)
            self._course.failed.add(neuron)
        step = Step.FAIL
        if answer.fold.owner in (None, self._desk.inbox.me):
            step = self._choose(error, self._transcript.read())
            self._desk.dispatcher.cancel(self._work, answer, error.code)
        if is_last and step is not Step.COMPLETE:
            step = Step.FAIL
        extra = {"neuron": neuron, "code": error.code, "step": step.name.lower()}
        _log.info("attempt_failed", extra=extra)
        self._prepare(step)
        return step

    async def complete(self) -> None:
        """End an answer that lacks nothing but its neuron's last words."""
        partial = self._transcript.read()
        counted = TokenUsage(completion_tokens=partial.tokens, counted="frames")
        usage = self._reading.usage = self._reading.usage or counted
        with contextlib.suppress(HelexaError):
            await self._desk.attempts.publish_done(self._reading.answer, usage)
        self._reading.is_complete = True
        await self._reading.sink.finish(usage)

    def _choose(self, error: HelexaError, partial: Partial) -> Step:
        order = self._work.order
        # Plain text goes on anywhere, and so does an answer that has no text yet.
        is_easy = order.operation != Operation.CHAT or not partial.text
        somebody_can = is_easy or self._desk.fleet.can_go_on(self._work.model)
        return next_step(
            error,
            partial,
            can_start_over=self._reading.sink.can_start_over,
            is_continuable=somebody_can and is_continuable(order),
        )

    def _prepare(self, step: Step) -> None:
        reading = self._reading
        if step is Step.GO_ON:
            partial = self._transcript.read()
            self._course.onward = Onward(partial=partial)
            reading.prefix_tokens = partial.tokens
            reading.answer.failure = None
        elif step is Step.START_OVER:
            self._course.onward = Onward(anew=reading.first_token_at is not None)
            reading.first_token_at = None
            reading.sink.start_over()
            reading.answer.failure = None
