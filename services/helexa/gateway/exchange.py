# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The life of one request: placed, read, placed again where that helps, ended, reported."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from functools import lru_cache

from helexa.gateway.answer import Answer
from helexa.gateway.assemble import Assembly
from helexa.gateway.bulk import BulkDesk
from helexa.gateway.continuation import Step, Transcript
from helexa.gateway.desk import Desk
from helexa.gateway.dispatch import Course, Dispatcher
from helexa.gateway.http import ClientGoneError, Headers, Incoming
from helexa.gateway.patience import Beats, cut_short
from helexa.gateway.priority import NAMES, Priority, tier_of
from helexa.gateway.reading import Reading
from helexa.gateway.recovery import Recovery
from helexa.gateway.sinks import (
    GOES_ON,
    PULSES_A_HEARTBEAT,
    BodySink,
    NoSink,
    Sink,
    StreamSink,
    WholeSink,
)
from helexa.gateway.work import Work
from helexa.protocol.errors import HelexaError, StreamInterruptedError
from helexa.protocol.messages.execution import Operation

LAST_WORDS_S = 1.5
"""How long a cancelled answer's final counts are waited for."""


class Exchange:
    """One request for an answer."""

    def __init__(self, desk: Desk, incoming: Incoming, work: Work) -> None:
        """Serve `work` to the client of `incoming`."""
        self.answer = Answer(work.request_id, buffer_bytes=desk.client_buffer_bytes)
        self._desk = desk
        self._incoming = incoming
        self._work = work
        self._course = Course()
        self._is_placed = False
        """Whether a neuron works on it, as far as is known."""
        self._reading = Reading(
            self.answer,
            self._sink(),
            incoming.report,
            inbox=desk.inbox,
            fleet=desk.fleet,
            limits=desk.limits,
            on_pulse=self._care,
            transcript=Transcript() if work.order.stream else None,
        )

    async def run(self) -> None:
        """Serve the request to its end. The client always gets an answer, unless it left."""
        task = asyncio.current_task()
        self.answer.cut = task.cancel if task else None
        self._incoming.watch(self.answer.hang_up)
        self._desk.inbox.open(self.answer)
        try:
            await self._hold()
            try:
                await self._serve()
            except ClientGoneError:
                await self._go_on_alone()
        except HelexaError as error:
            await self._fail(error)
        except asyncio.CancelledError:
            self._desk.dispatcher.cancel(self._work, self.answer, "client_too_slow")
            if not self.answer.too_slow or task is None or task.uncancel():
                raise
            self._incoming.report.code = "client_too_slow"
        finally:
            self._incoming.unwatch()
            self._desk.dispatcher.release(self._course)
            self._desk.inbox.close(self.answer)
            self._desk.bulk.forget(self._work, is_answered=self._reading.is_complete)
            self._tell()
        if self._work.is_held:
            work = self._work
            await self._desk.authority.settle(work.caller, work.claim, self._reading.usage)

    async def _hold(self) -> None:
        # What bulk work may cost is set aside when a neuron pulls it, which can be hours later.
        if not self._work.is_bulk:
            await self._desk.authority.hold(self._work.caller, self._work.claim)
            self._work.is_held = True

    async def _serve(self) -> None:
        """Place and read the request until it is answered or cannot be."""
        for attempt in range(1, self._desk.max_attempts + 1):
            if not self._is_placed:
                await self._place()
            error = await self._reading.run()
            if error is None:
                return
            if GOES_ON in error.details:
                raise error
            self._is_placed = False
            recovery = Recovery(self._desk, self._work, self._course, self._reading)
            step = recovery.step_after(error, is_last=attempt == self._desk.max_attempts)
            if step is Step.COMPLETE:
                await recovery.complete()
                return
            if step is Step.FAIL:
                raise error

    async def _go_on_alone(self) -> None:
        """Do what is left to do when the client is gone."""
        self._incoming.report.client_gone = True
        self.answer.client_gone = False
        if self._is_owner and not self._work.resumable:
            if self.answer.is_accepted:
                self._desk.dispatcher.cancel(self._work, self.answer, "client_gone")
                await self._last_words()
            return
        self._reading.sink = NoSink()
        await self._serve()

    async def _place(self) -> None:
        """Return when a neuron has accepted.

        Raises:
            StreamInterruptedError: the answer has begun, and nobody goes on with it in time.
            ClientGoneError: the client left first.
            HelexaError: as `Dispatcher.place`.
        """
        if self._course.onward.partial is None:
            await self._placing()
        else:
            await self._place_in_time()
        self._is_placed = True
        if self._incoming.report.accepted_s is None:
            self._incoming.report.accepted_s = self._incoming.elapsed_s

    async def _place_in_time(self) -> None:
        try:
            async with asyncio.timeout(self._desk.limits.go_on_s):
                await self._placing()
        except (TimeoutError, HelexaError) as error:
            raise StreamInterruptedError(
                "The host that answered is gone, and no other could go on with the answer."
            ) from error

    def _placing(self) -> Awaitable[None]:
        """Return what ends when a neuron has accepted; meanwhile its client hears heartbeats."""
        pulse_s = self._desk.limits.heartbeat_s / PULSES_A_HEARTBEAT
        # A failure of the first second is still an HTTP status.
        patience_s = pulse_s if self._incoming.began else self._desk.limits.heartbeat_s
        placing = self._lane().place(self._work, self.answer, self._course)
        return cut_short(placing, self.answer, Beats(self._reading.sink, patience_s, pulse_s))

    def _lane(self) -> Dispatcher | BulkDesk:
        """Return who places the next attempt."""
        if not self._work.is_bulk:
            return self._desk.dispatcher
        if self._course.onward.partial is None:
            return self._desk.bulk
        # Its client waits in the middle of the answer, so it waits for no room that others leave.
        self._desk.bulk.forget(self._work)
        return self._desk.dispatcher

    async def _fail(self, error: HelexaError) -> None:
        self._incoming.report.code = error.code
        fold = self.answer.fold
        # A client that has the beginning can have the rest elsewhere; others ask again.
        goes_on = GOES_ON in error.details and self._work.order.stream and self._incoming.began
        if self._is_owner and not goes_on:
            self._desk.dispatcher.cancel(self._work, self.answer, error.code)
            # Other readers wait for what follows a failure that another neuron may mend.
            if fold.assignments and (not fold.ended or error.to_reply().retryable):
                with contextlib.suppress(HelexaError):
                    await self._desk.attempts.publish_error(self.answer, error)
        await self._reading.sink.fail(error)

    async def _last_words(self) -> None:
        """Wait a moment for what a cancelled answer has used."""
        self._reading.sink = NoSink()
        with contextlib.suppress(TimeoutError, HelexaError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._reading.run()

    async def _care(self) -> None:
        """Keep the request resumable while it runs."""
        if self._is_owner and self.answer.control:
            with contextlib.suppress(HelexaError):
                await self._desk.inbox.renew_control(self.answer)

    @property
    def _is_owner(self) -> bool:
        return self.answer.fold.owner in (None, self._desk.inbox.me)

    def _sink(self) -> Sink:
        work = self._work
        if work.order.operation == Operation.EMBEDDING:
            return BodySink(self._incoming, self._headers, work.model)
        if work.order.stream:
            beat_s = self._desk.limits.heartbeat_s
            return StreamSink(
                self._incoming, self._headers, stream=work.request_id, heartbeat_s=beat_s
            )
        tier = tier_of(work.order.priority) if work.order.show_tier else None
        empty = Assembly(work.order.operation, work.public_id, work.model, work.created, tier)
        return WholeSink(self._incoming, self._headers, empty)

    def _headers(self) -> Headers:
        order = self._work.order
        headers = [
            *_kind(self._work.model, order.workload, order.priority),
            (b"x-helexa-attempts", b"%d" % len(self.answer.fold.assignments)),
            (b"x-helexa-queue-ms", b"%d" % round(self._course.queue_s * 1000)),
        ]
        if self._desk.show_route and self._incoming.is_asked(b"x-helexa-show-route"):
            headers += [
                (b"x-helexa-neuron", self._course.neuron_id.encode("ascii", "backslashreplace")),
                (b"x-helexa-decision", self._course.decision_id.encode()),
            ]
        return headers

    def _tell(self) -> None:
        """Complete the report, and tell the schedulers how it went."""
        report, course, usage = self._incoming.report, self._course, self._reading.usage
        report.attempts = len(self.answer.fold.assignments)
        report.neuron, report.decision = course.neuron_id, course.decision_id
        report.queue_s = course.queue_s
        report.ignored_frames = self.answer.fold.ignored
        began = self._incoming.arrived
        if self._reading.first_token_at is not None:
            report.first_token_s = self._reading.first_token_at - began
        work = self._work
        self._desk.rates.correct(work.caller, work.claim, usage, time.monotonic())
        if usage is None:
            return
        report.prompt_tokens, report.completion_tokens = (
            usage.prompt_tokens,
            usage.completion_tokens,
        )
        report.cached_tokens, report.reasoning_tokens = usage.cached_tokens, usage.reasoning_tokens
        if self._reading.is_complete and not report.client_gone:
            accepted = began + (report.accepted_s or 0.0)
            first = self._reading.first_token_at
            self._desk.outcomes.completed(
                course.neuron_id,
                self._work.model,
                first - accepted if first is not None else None,
                time.monotonic() - accepted,
                unread_tokens=usage.prompt_tokens - (usage.cached_tokens or 0),
            )


@lru_cache(1024)
def _kind(model: str, workload: str, priority: Priority) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that say what kind of request it was."""
    return (
        (b"x-helexa-model", model.encode("ascii", "backslashreplace")),
        (b"x-helexa-workload", workload.encode()),
        (b"x-helexa-priority", NAMES[priority].encode()),
    )
