# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The requests of one site at this neuron: taken or refused at once, watched, kept for a while."""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

from helexa.neuron.attempts import Attempts
from helexa.neuron.departures import Departures
from helexa.neuron.ending import Ending
from helexa.neuron.execution import CLOSE_WITHIN_S, Execution
from helexa.neuron.models import ModelHost
from helexa.neuron.outbox import Outbox, Wire
from helexa.neuron.pace import Pace, Track
from helexa.neuron.retention import Retention
from helexa.process.logs import FrequentEvent
from helexa.protocol import subjects
from helexa.protocol.errors import (
    BadRequestError,
    DrainingError,
    ForbiddenError,
    RefusedError,
    ShuttingDownError,
    WorkCancelledError,
)
from helexa.protocol.frames import FrameKind
from helexa.protocol.messages.execution import (
    Attached,
    AttachRequest,
    Cancelled,
    CancelRequest,
    ExecuteReply,
    ExecuteRequest,
    Operation,
    ResendRequest,
    Resent,
)
from helexa.protocol.messages.usage import SignedFields
from helexa.protocol.naming import encode_token, is_token, request_token
from helexa.protocol.subjects import subject_of

_log = logging.getLogger(__name__)
_request_finished = FrequentEvent(_log, "request_finished")

RESEND_BYTES = 512 * 1024
"""Of kept frames, so much goes into one answer; the asker asks again for the rest."""
MAX_REVOKED = 1024
LAST_FRAME_S = 1.0
"""How long the terminal frame of an answer may take once its backend has let go."""
REPUBLISH_BEFORE_S = 5.0
"""Frames published so long before a connection was seen to break may have been lost with it."""

Certify = Callable[[ExecuteRequest, Outbox, Ending], SignedFields]


class Executor:
    """Runs requests and answers for them."""

    def __init__(
        self,
        neuron_id: str,
        host: ModelHost,
        wire: Wire,
        certify: Certify,
        *,
        retention: Retention,
        pace: Pace | None = None,
    ) -> None:
        """Publish frames on `wire`; `certify` signs the counts of each attempt that ends."""
        self.neuron_id = neuron_id
        self.is_draining = False
        self.pace = pace or Pace()
        self._track = Track(self.pace, Departures(self.pace.departure_interval_s))
        self._host = host
        self._slots = host.slots
        self._wire = wire
        self._certify = certify
        self._retention = retention
        self._author = encode_token(neuron_id)
        self._attempts = Attempts(retention)
        self._running = self._attempts.running
        self._heard: dict[str, float] = {}
        self._deaf_since_s: float | None = None
        self._revoked: dict[tuple[str, int], None] = {}
        """Attempts that were cancelled before they came."""

    @property
    def running(self) -> int:
        """How many requests are at work now."""
        return len(self._running)

    def accept(self, request: ExecuteRequest) -> ExecuteReply:
        """Begin `request`.

        Raises:
            RefusedError: another neuron may take it.
            BadRequestError: nobody could.
        """
        # A gateway that did not get the first reply asks again.
        if self._attempts.find(request.request_id, request.attempt) is None:
            self._begin(request)
        return ExecuteReply(neuron_id=self.neuron_id, slots_free=self._slots.free)

    def cancel(self, request: CancelRequest) -> Cancelled:
        """End a running request.

        Raises:
            ForbiddenError: another gateway owns it.
        """
        found = self._attempts.find(request.request_id, request.attempt)
        if found is None:
            self._revoke(request)
            return Cancelled(state="unknown")
        if request.owner != found.owner:
            raise ForbiddenError("only the owner of a request may cancel it")
        reason = WorkCancelledError(reason=request.reason)
        if isinstance(found, Execution) and found.stop(reason):
            return Cancelled(state="cancelled")
        return Cancelled(state="finished")

    def attach(self, request: AttachRequest) -> Attached:
        """Make another gateway the owner."""
        attempts = self._attempts.of(request.request_id)
        running = [found for found in attempts if isinstance(found, Execution)]
        for found in attempts:
            found.owner = request.owner
        for execution in running:
            execution.owner_since_s = time.monotonic()
        if not attempts:
            return Attached(state="unknown")
        is_running = any(execution.is_running for execution in running)
        return Attached(state="running" if is_running else "finished")

    def resend(self, request: ResendRequest) -> Resent:
        """Return kept frames."""
        found = self._attempts.find(request.request_id, request.attempt)
        if found is None:
            return Resent(complete=False)
        frames, is_complete = found.outbox.slice(request.from_seq, request.to_seq, RESEND_BYTES)
        return Resent(frames=tuple(frames), complete=is_complete)

    async def settles(self, request_id: str, attempt: int) -> bool:
        """Return, once an attempt has ended, whether nobody could do better; False if unknown."""
        found = self._attempts.find(request_id, attempt)
        if isinstance(found, Execution) and found.task is not None:
            await asyncio.wait({found.task})
        return found is not None and found.is_settled

    def hear(self, gateway: str) -> None:
        """Note that `gateway` is alive."""
        self._heard[gateway] = time.monotonic()

    async def republish(self) -> None:
        """Publish again what may have been lost with the connection."""
        now_s = time.monotonic()
        lost_at_s = now_s if self._deaf_since_s is None else self._deaf_since_s
        self._deaf_since_s = None
        sent = 0
        for execution in self._running:
            # While we were away no owner could be heard.
            execution.owner_since_s = now_s
        for found in list(self._attempts):
            sent += await found.outbox.send_again(lost_at_s - REPUBLISH_BEFORE_S)
        _log.info("frames_published_again", extra={"frames": sent})

    async def run(self, is_connected: Callable[[], bool]) -> None:
        """Watch over what runs until cancelled."""
        # The first connection is no reconnection, so that nothing would end a deafness before it.
        has_heard = False
        while True:
            await asyncio.sleep(min(self.pace.beat_interval_s, self.pace.owner_silence_s) / 4)
            now_s = time.monotonic()
            hears = is_connected()
            has_heard |= hears
            if has_heard and not hears and self._deaf_since_s is None:
                self._deaf_since_s = now_s
            self._forget_owners(now_s)
            for execution in list(self._running):
                if self._deaf_since_s is None and execution.owner not in self._heard:
                    self._check_owner(execution, now_s)
                execution.watch(now_s)
            self._attempts.forget(now_s)

    async def finish(self, grace_s: float) -> None:
        """Take nothing new; return when all has ended, by itself or, after `grace_s`, by us."""
        self.is_draining = True
        tasks = [execution.task for execution in self._running if execution.task is not None]
        if not tasks:
            return
        await asyncio.wait(tasks, timeout=grace_s)
        for execution in list(self._running):
            execution.stop(ShuttingDownError(retry_after_s=1.0))
        await asyncio.wait(tasks, timeout=CLOSE_WITHIN_S + LAST_FRAME_S)

    def _begin(self, request: ExecuteRequest) -> None:
        if self.is_draining:
            raise DrainingError
        if (request.request_id, request.attempt) in self._revoked:
            raise RefusedError("it was cancelled before it came")
        token = request_token(request.request_id)
        if not (is_token(request.home) and is_token(token)):
            raise BadRequestError("not a request id of a gateway", param="request_id")
        lease = self._host.reserve(
            request.model,
            request.operation,
            continues=bool(request.continues) and request.operation == Operation.CHAT,
            prefix_digests=request.prefix_digests,
        )
        subject = subject_of(
            subjects.TOKENS,
            home=request.home,
            author=self._author,
            request=token,
        )
        outbox = Outbox(
            self._wire,
            subject,
            self._retention,
            attempt=request.attempt,
            first_seq=request.first_seq,
            first_event=request.first_event,
        )
        execution = Execution(request, lease, outbox, self._track, self._end)
        if request.attempt > 1:
            self._supersede(request)
        self._attempts.begin(execution)
        execution.task = asyncio.create_task(execution.run(), name=f"execute-{request.request_id}")
        execution.task.add_done_callback(partial(self._on_done, execution))

    def _revoke(self, request: CancelRequest) -> None:
        # An order comes later than its cancellation where its body comes another way.
        self._revoked[request.request_id, request.attempt] = None
        if len(self._revoked) > MAX_REVOKED:
            del self._revoked[next(iter(self._revoked))]

    def _supersede(self, request: ExecuteRequest) -> None:
        for earlier in self._attempts.of(request.request_id):
            if isinstance(earlier, Execution) and earlier.attempt < request.attempt:
                earlier.stop(WorkCancelledError(reason="superseded"))

    def _end(self, execution: Execution, ending: Ending) -> None:
        request, outbox = execution.request, execution.outbox
        signed = self._certify(request, outbox, ending)
        timings = {
            "queued_s": 0.0,
            "first_token_s": ending.first_token_s,
            "total_s": ending.total_s,
        }
        if ending.error is None:
            outbox.send_end(FrameKind.DONE, vars(ending.answer_usage), signed, timings)
        else:
            outbox.send_end(FrameKind.ERROR, ending.error.to_reply().model_dump(), signed, timings)
        _request_finished.tell(
            {
                "request_id": request.request_id,
                "attempt": request.attempt,
                "decision_id": request.decision_id,
                "model": request.model,
                "outcome": ending.outcome,
                "prompt_tokens": ending.usage.prompt_tokens,
                "completion_tokens": ending.usage.completion_tokens,
                "total_s": round(ending.total_s, 3),
            }
        )

    def _on_done(self, execution: Execution, task: asyncio.Task[None]) -> None:
        self._attempts.end(execution)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error("execution_died", extra={"execution": repr(execution)}, exc_info=error)

    def _check_owner(self, execution: Execution, now_s: float) -> None:
        if execution.request.outlives_owner:
            return
        if now_s - execution.owner_since_s >= self.pace.owner_silence_s:
            execution.stop(
                WorkCancelledError("cancelled: its gateway fell silent", reason="owner_gone")
            )

    def _forget_owners(self, now_s: float) -> None:
        silence_s = self.pace.owner_silence_s
        self._heard = {name: at_s for name, at_s in self._heard.items() if now_s - at_s < silence_s}
