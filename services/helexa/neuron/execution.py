# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One request at work: from the backend's events to frames, and exactly one terminal frame."""

import asyncio
import contextlib
import json
import logging
import time
from dataclasses import dataclass
from typing import cast

from typing_extensions import override

from helexa.bus.context import DEADLINE
from helexa.neuron.backends.continuing import after_prompt, continued
from helexa.neuron.backends.interface import (
    ChatContinuation,
    ChatInference,
    EmbeddingInference,
    EventStream,
    TextInference,
    VisionInference,
)
from helexa.neuron.models import Lease
from helexa.neuron.outbox import Outbox
from helexa.neuron.splice import Json, Prefix, Splicer, read_usage
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
from helexa.protocol.messages.execution import ExecuteRequest, Operation, Timings, TokenUsage
from helexa.protocol.messages.models import Workload

_log = logging.getLogger(__name__)

CLOSE_WITHIN_S = 0.8
"""A cancelled request's slot is free within a second, whatever its backend does."""
FLUSH_BYTES = 256 * 1024
"""So much text goes out without waiting for the interval."""
_IMAGE_MARK = b'"image_url"'


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a stream says something."""

    frame_interval_s: float = 0.05
    """Least time between two frames of events; what comes faster shares a frame."""
    beat_interval_s: float = 1.0
    """Longest silence while the backend says nothing."""
    owner_silence_s: float = 30.0
    """An owner that is silent for longer is gone, and its work ends with it."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended."""

    error: HelexaError | None
    usage: TokenUsage
    """Of this attempt."""
    timings: Timings
    prefix_tokens: int = 0
    """Of earlier attempts."""

    @property
    def answer_usage(self) -> TokenUsage:
        """Of the whole answer, earlier attempts included."""
        return Prefix(self.prefix_tokens).whole(self.usage)

    @property
    def outcome(self) -> str:
        """`done`, `cancelled` or the code of an error."""
        return self.error.to_reply().code if self.error else "done"


class Execution:
    """One attempt of one request."""

    def __init__(self, request: ExecuteRequest, lease: Lease, outbox: Outbox, pace: Pace) -> None:
        """Prepare the work; `run` does it."""
        self.request = request
        self.outbox = outbox
        self.owner = request.owner
        self.owner_since_s = time.monotonic()
        """Since when the owner's silence counts, where it has not been heard at all."""
        self.ending: Ending | None = None
        self.ended_at_s: float | None = None
        self.task: asyncio.Task[None] | None = None
        self._has_begun = False
        self._lease = lease
        self._pace = pace
        self._body = request.body
        self._prefix: Prefix | None = None
        self._splicer = Splicer(request.public_id, str(request.model))
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._has_waiting = asyncio.Event()
        self._began_s = time.monotonic()
        self._first_token_s: float | None = None
        self._heard_at_s = self._began_s
        self._stopped: HelexaError | None = None
        self._usage: TokenUsage | None = None

    async def run(self) -> None:
        """Do the work; `ending` then says how it ended, and the terminal frame is due."""
        # The answer outlives the call that began it, and so its deadline.
        DEADLINE.set(None)
        self._has_begun = True
        error: HelexaError | None = InternalError()
        try:
            if self._stopped is not None:
                raise self._stopped
            await self._produce()
            error = None
        except HelexaError as raised:
            error = raised
            if isinstance(raised, BackendError) and not isinstance(raised, BackendRejectedError):
                self._lease.doubt()
        except asyncio.CancelledError:
            error = self._stopped or ShuttingDownError()
        finally:
            given = self.request.prefix_tokens
            self.ending = Ending(error, self._counts(), self._timings(), given)
            self._lease.release(failed=_is_failure(error))

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

    async def watch(self, now_s: float) -> None:
        """Beat if nothing was published for a while, and end what is silent for too long."""
        if not self.is_running:
            return
        waits_for_first = self._first_token_s is None
        limit_s = (
            self.request.first_token_timeout_s if waits_for_first else self.request.idle_timeout_s
        )
        if now_s - self._heard_at_s >= limit_s:
            what = "gave no first token" if waits_for_first else "was silent"
            self.stop(DeadlineExceededError(f"the model {what} for {limit_s:g} s"))
        elif now_s - self.outbox.published_at_s >= self._pace.beat_interval_s * 0.7:
            await self.outbox.send_beat()

    async def _produce(self) -> None:
        if self.request.operation == Operation.EMBEDDING:
            await self._embed()
            return
        if self.request.continues is not None:
            self._go_on(self.request.continues)
        stream = await self._open()
        flushing = asyncio.create_task(self._flush_in_time())
        try:
            async for events in stream:
                await self._take(events)
        finally:
            flushing.cancel()
            await asyncio.gather(flushing, return_exceptions=True)
            # A backend that will not let go must not keep the slot.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stream.aclose(), CLOSE_WITHIN_S)
            if self._stopped is None:
                await self._flush()
        usage_event = self._splicer.usage_event()
        if self.request.show_usage and usage_event is not None:
            await self.outbox.send_events([usage_event])

    def _go_on(self, text: str) -> None:
        """Prepare to give the rest of an answer of which the client has `text`."""
        request, backend = self.request, self._lease.backend
        way = after_prompt
        if request.operation == Operation.CHAT and isinstance(backend, ChatContinuation):
            way = backend.continued_chat
        self._body, has_room = continued(request.body, way, text, request.prefix_tokens)
        self._prefix = Prefix(request.prefix_tokens, request.created, has_room)
        self._splicer = Splicer(request.public_id, str(request.model), self._prefix)

    async def _open(self) -> EventStream:
        backend, body = self._lease.backend, self._body
        if self.request.operation == Operation.COMPLETION and isinstance(backend, TextInference):
            return await backend.complete(body)
        sees = Workload.VISION in backend.capability.workloads
        if sees and _IMAGE_MARK in body and isinstance(backend, VisionInference):
            return await backend.describe(body)
        if self.request.operation == Operation.CHAT and isinstance(backend, ChatInference):
            return await backend.chat(body)
        raise UnsupportedError

    async def _embed(self) -> None:
        backend = self._lease.backend
        if not isinstance(backend, EmbeddingInference):
            raise UnsupportedError
        answer = await backend.embed(self.request.body)
        self._note_token()
        # Megabytes of numbers: parsing them here would hold up every stream.
        answer, self._usage = await asyncio.to_thread(
            _finished_body, answer, str(self.request.model)
        )
        await self.outbox.send_body(answer)

    async def _take(self, events: list[bytes]) -> None:
        self._heard_at_s = time.monotonic()
        kept = self._splicer.take(events)
        if not kept:
            return
        # What comes up to the first token is waited for and goes out at once.
        at_once = self._first_token_s is None
        if self._splicer.content_events:
            self._note_token()
        self._lease.count(len(kept))
        self._waiting += kept
        self._waiting_bytes += sum(map(len, kept))
        due_s = self.outbox.published_at_s + self._pace.frame_interval_s
        if at_once or self._heard_at_s >= due_s or self._waiting_bytes >= FLUSH_BYTES:
            await self._flush()
        else:
            self._has_waiting.set()

    def _note_token(self) -> None:
        if self._first_token_s is None:
            self._first_token_s = time.monotonic() - self._began_s

    async def _flush(self) -> None:
        events, self._waiting = self._waiting, []
        self._waiting_bytes = 0
        self._has_waiting.clear()
        if events:
            await self.outbox.send_events(events)

    async def _flush_in_time(self) -> None:
        while True:
            await self._has_waiting.wait()
            due_s = self.outbox.published_at_s + self._pace.frame_interval_s
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            await self._flush()

    def _counts(self) -> TokenUsage:
        known = self._usage or self._splicer.usage
        if known is not None:
            return self._prefix.own(known) if self._prefix else known
        published = max(0, self.outbox.events - self._splicer.other_events)
        counted = min(self._splicer.content_events, published)
        return TokenUsage(completion_tokens=counted, counted="frames")

    def _timings(self) -> Timings:
        return Timings(first_token_s=self._first_token_s, total_s=time.monotonic() - self._began_s)

    @override
    def __repr__(self) -> str:
        return f"Execution({self.request.request_id}, attempt {self.request.attempt})"


def _is_failure(ending: HelexaError | None) -> bool:
    return ending is not None and not isinstance(ending, WorkCancelledError)


def _finished_body(answer: bytes, model: str) -> tuple[bytes, TokenUsage | None]:
    """Return an answer under our model's name, and its counts."""
    try:
        parsed = cast("Json", json.loads(answer))
    except ValueError:
        return answer, None
    if not isinstance(parsed, dict):
        return answer, None
    counts = parsed.get("usage")
    usage = read_usage(counts) if isinstance(counts, dict) else None
    if parsed.get("model") != model:
        parsed["model"] = model
        answer = json.dumps(parsed, separators=(",", ":"), ensure_ascii=False).encode()
    return answer, usage
