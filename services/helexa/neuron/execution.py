# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One request at work: from the backend's events to frames, and exactly one terminal frame."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine

from typing_extensions import override

from helexa.bus.context import DEADLINE
from helexa.neuron.backends.continuing import after_prompt, continued
from helexa.neuron.backends.interface import (
    EventStream,
    WholeInference,
)
from helexa.neuron.ending import Ending
from helexa.neuron.flow import Flow
from helexa.neuron.lease import Lease
from helexa.neuron.outbox import Outbox
from helexa.neuron.pace import Track
from helexa.neuron.servability import CHECK_AFTER_S
from helexa.neuron.splice import Prefix, Splicer
from helexa.neuron.whole import as_stream, finished, renamed
from helexa.protocol.errors import (
    BackendError,
    BackendRejectedError,
    DeadlineExceededError,
    HelexaError,
    InternalError,
    ShuttingDownError,
    UnsupportedError,
    WorkCancelledError,
)
from helexa.protocol.messages.execution import ExecuteRequest, Operation, TokenUsage

_log = logging.getLogger(__name__)

CLOSE_WITHIN_S = 0.8
"""A cancelled request's slot is free within a second, whatever its backend does."""
LONG_BYTES = 256 * 1024
"""An answer that is longer is read beside the streams."""
_IMAGE_MARK = b'"image_url"'


class Execution:
    """One attempt of one request."""

    def __init__(
        self,
        request: ExecuteRequest,
        lease: Lease,
        outbox: Outbox,
        track: Track,
        on_end: Callable[["Execution", Ending], None],
    ) -> None:
        """Prepare the work; `run` does it, and calls `on_end` when the terminal frame is due."""
        pace = track.pace
        self.request = request
        self.attempt = request.attempt
        self.outbox = outbox
        self.owner = request.owner
        self._began_s = outbox.published_at_s
        self.owner_since_s = self._began_s
        """Since when the owner's silence counts, where it has not been heard at all."""
        self.ending: Ending | None = None
        self.task: asyncio.Task[None] | None = None
        self._has_begun = False
        self._on_end = on_end
        self._lease = lease
        self._pace = pace
        self._body = request.body
        self._prefix: Prefix | None = None
        self._is_whole = False
        self._flow = Flow(
            Splicer(request.public_id, str(request.model)),
            outbox,
            track.departures,
            pace.frame_interval_s,
        )
        self._stopped: HelexaError | None = None
        self._usage: TokenUsage | None = None

    async def run(self) -> None:
        """Do the work; `ending` then says how it ended."""
        # The answer outlives the call that began it, and so its deadline.
        DEADLINE.set(None)
        self._has_begun = True
        try:
            await self._work()
        except HelexaError as error:
            self._end(error)
        except asyncio.CancelledError:
            self._end(self._stopped or ShuttingDownError())
        except BaseException:
            # Also after a defect: whoever waits for the answer must see its end.
            self._end(InternalError())
            raise
        else:
            self._end(None)

    def stop(self, reason: HelexaError) -> bool:
        """End the work early, with `reason` in its terminal frame; False if it has ended."""
        if not self.is_running:
            return False
        self._stopped = reason
        # A task that is cancelled before its first step never gets to its own end.
        if self.task is not None and self._has_begun:
            self.task.cancel()
        return True

    @property
    def is_running(self) -> bool:
        """Whether it may still be stopped."""
        return self.ending is None and self._stopped is None

    @property
    def is_settled(self) -> bool:
        """Whether it has ended so that nobody could do better."""
        return self.ending is not None and self.ending.is_settled

    def watch(self, now_s: float) -> None:
        """Beat if nothing was published for a while, and end what is silent for too long."""
        if not self.is_running:
            return
        waits_for_first = self._flow.first_token_at_s is None
        limit_s = (
            self.request.first_token_timeout_s if waits_for_first else self.request.idle_timeout_s
        )
        if now_s - self._flow.heard_at_s >= limit_s:
            what = "gave no first token" if waits_for_first else "was silent"
            self.stop(DeadlineExceededError(f"the model {what} for {limit_s:g} s"))
            return
        self._count_tokens(now_s)
        if now_s - self.outbox.published_at_s >= self._pace.beat_interval_s * 0.7:
            self.outbox.send_beat()
        # A stream shows that its runtime works; a whole answer does not.
        if self._is_whole and now_s - self._began_s >= CHECK_AFTER_S:
            self._watch_runtime(now_s)

    def _watch_runtime(self, now_s: float) -> None:
        servability = self._lease.servability
        servability.check(now_s)
        loss = servability.loss(self._began_s, now_s, self.request.idle_timeout_s)
        if loss is not None:
            self.stop(loss)

    def _count_tokens(self, now_s: float) -> None:
        if self._flow.uncounted:
            self._lease.count(self._flow.uncounted, now_s)
            self._flow.uncounted = 0

    def _end(self, error: HelexaError | None) -> None:
        is_failure = error is not None and not isinstance(error, WorkCancelledError)
        if isinstance(error, BackendError) and not isinstance(error, BackendRejectedError):
            self._lease.servability.doubt()
        began_s, first_s = self._began_s, self._flow.first_token_at_s
        ending = self.ending = Ending(
            error,
            self._counts(),
            None if first_s is None else first_s - began_s,
            time.monotonic() - began_s,
            self.request.prefix_tokens,
        )
        self._lease.release(failed=is_failure)
        self._on_end(self, ending)

    def _work(self) -> Coroutine[None, None, None]:
        """Return what is to be done.

        Raises:
            HelexaError: there is nothing, as it was stopped before it began or cannot be done.
        """
        if self._stopped is not None:
            raise self._stopped
        request = self.request
        if request.operation == Operation.EMBEDDING:
            return self._embed()
        whole = self._whole()
        if whole is not None:
            return self._answer(whole)
        if not request.stream:
            self._body = as_stream(self._body)
        if request.continues is not None:
            self._go_on(request.continues)
        return self._stream()

    def _whole(self) -> WholeInference | None:
        """Return the backend if it gives the answer in one piece."""
        request, whole = self.request, self._lease.abilities.whole
        if request.stream or request.continues is not None:
            return None
        self._is_whole = whole is not None and whole.stops_when_left
        return whole if self._is_whole else None

    async def _stream(self) -> None:
        stream, flow = await self._open(), self._flow
        try:
            while not await stream.pump(flow.take):
                await self.outbox.catch_up()
        finally:
            if self._stopped is not None:
                flow.drop()
            self._count_tokens(time.monotonic())
            # A backend that will not let go must not keep the slot.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_WITHIN_S):
                    await stream.aclose()
            if self._stopped is None:
                flow.flush(time.monotonic())
            # Nothing leaves after the end.
            flow.drop()
        usage_event = flow.splicer.usage_event()
        if self.request.show_usage and usage_event is not None:
            self.outbox.send_events([usage_event])

    def _go_on(self, text: str) -> None:
        """Prepare to give the rest of an answer of which the client has `text`."""
        request, continuation = self.request, self._lease.abilities.continuation
        way = after_prompt
        if request.operation == Operation.CHAT and continuation is not None:
            way = continuation.continued_chat
        self._body, has_room = continued(self._body, way, text, request.prefix_tokens)
        self._prefix = Prefix(request.prefix_tokens, request.created, has_room)
        self._flow.splicer = Splicer(request.public_id, str(request.model), self._prefix)

    async def _open(self) -> EventStream:
        abilities, body = self._lease.abilities, self._body
        if abilities.text is not None and self.request.operation == Operation.COMPLETION:
            return await abilities.text.complete(body)
        if abilities.vision is not None and _IMAGE_MARK in body:
            return await abilities.vision.describe(body)
        if abilities.chat is not None:
            return await abilities.chat.chat(body)
        raise UnsupportedError

    async def _answer(self, backend: WholeInference) -> None:
        request = self.request
        is_chat = request.operation == Operation.CHAT
        ask = backend.answer_chat if is_chat else backend.answer_completion
        ours: dict[str, object] = {"id": request.public_id, "model": str(request.model)}
        if request.created is not None:
            ours["created"] = request.created
        answer, usage = finished(await ask(self._body), ours)
        self._usage = usage
        if usage is None:
            # The events of a stream can be counted.
            _log.warning("answer_uncounted", extra={"model": request.model})
            backend.stops_when_left = False
        else:
            self._lease.count(usage.completion_tokens, time.monotonic())
        self.outbox.send_body(answer)

    async def _embed(self) -> None:
        embedding = self._lease.abilities.embedding
        if embedding is None:
            raise UnsupportedError
        answer = await embedding.embed(self._body)
        self._flow.first_token_at_s = time.monotonic()
        model = str(self.request.model)
        if len(answer) > LONG_BYTES:
            # Megabytes of numbers: reading them here would hold up every stream.
            answer, self._usage = await asyncio.to_thread(renamed, answer, model)
        else:
            answer, self._usage = renamed(answer, model)
        self.outbox.send_body(answer)

    def _counts(self) -> TokenUsage:
        known = self._usage or self._flow.splicer.usage
        if known is not None:
            return self._prefix.own(known) if self._prefix else known
        return TokenUsage(completion_tokens=self._flow.published, counted="frames")

    @override
    def __repr__(self) -> str:
        return f"Execution({self.request.request_id}, attempt {self.request.attempt})"
