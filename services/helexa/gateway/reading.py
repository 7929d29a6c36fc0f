# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Carrying an answer's frames to where they go, until it ends."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from helexa.gateway.answer import Answer, events_in, text_of
from helexa.gateway.continuation import Transcript
from helexa.gateway.fleet import SILENT_S, Fleet
from helexa.gateway.http import ClientGoneError, Report
from helexa.gateway.inbox import Inbox
from helexa.gateway.sinks import Sink
from helexa.protocol.errors import (
    DeadlineExceededError,
    HelexaError,
    MalformedError,
    ResumeUnavailableError,
    StreamInterruptedError,
    from_reply,
)
from helexa.protocol.frames import (
    Frame,
    FrameKind,
    read_done_usage,
    read_error,
    read_last_part,
)
from helexa.protocol.messages.execution import TokenUsage
from helexa.protocol.messages.usage import read_usage
from helexa.protocol.naming import decode_token

CONTENT = (FrameKind.DATA, FrameKind.BODY)
LEASE_S = 10.0
"""A neuron beats each second for every request that it works on. One that has not for so long has
lost the request, even if it reports; by then it has been asked three times to send again."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a client and an answer may be silent, in seconds."""

    heartbeat_s: float
    idle_s: float
    first_token_s: float
    go_on_s: float
    """Longest wait for a neuron that goes on with an answer that broke off."""


class Reading:
    """Reads one answer into one sink, whichever attempt it comes from."""

    def __init__(
        self,
        answer: Answer,
        sink: Sink,
        report: Report,
        *,
        inbox: Inbox,
        fleet: Fleet,
        limits: Limits,
        on_pulse: Callable[[], Awaitable[None]],
        transcript: Transcript | None = None,
    ) -> None:
        """Read `answer` into `sink`, and note in `transcript` what has come out.

        `on_pulse` is called several times a heartbeat while the answer is quiet.
        """
        self.answer = answer
        self.sink = sink
        self.usage: TokenUsage | None = None
        self.is_complete = False
        self.first_token_at: float | None = None
        self.prefix_tokens = 0
        """Tokens that came from earlier attempts."""
        self._report = report
        self._inbox = inbox
        self._fleet = fleet
        self._limits = limits
        self._on_pulse = on_pulse
        self.transcript = transcript
        self._asked_at = time.monotonic()

    async def run(self) -> HelexaError | None:
        """Return when the answer has ended: `None` when it is complete.

        Raises:
            ClientGoneError: the client left first.
        """
        while True:
            frames = self.answer.drain()
            if not frames:
                error = await self._rest()
                if error is not None:
                    return error
                continue
            if self._is_replaced(frames):
                return _replaced(frames[0].first_event)
            ended = await self._carry(frames)
            if ended is not None:
                return await self._end(ended)

    async def _rest(self) -> HelexaError | None:
        """Wait for something to happen; return why there is nothing to wait for."""
        answer = self.answer
        if answer.client_gone:
            raise ClientGoneError
        if answer.failure is not None:
            return answer.failure
        if answer.is_due:
            answer.is_due = False
            return await self._look_around()
        answer.relay = self._relay
        try:
            await answer.wait()
        finally:
            answer.relay = None
        return None

    def _relay(self, frame: Frame) -> bool:
        """Hand on a piece that comes in turn and needs no wait; return whether that was so."""
        begun = self.first_token_at is not None
        if not begun or frame.kind != FrameKind.DATA or frame.first_event < self.answer.events:
            return False
        text = text_of(frame)
        if not self.sink.push(frame, text):
            return False
        self.answer.events = frame.first_event + events_in(frame)
        if self.transcript is not None:
            self.transcript.add(text)
        return True

    async def _carry(self, frames: list[Frame]) -> Frame | None:
        """Hand on what is content, and return the terminal frame if there is one."""
        ended = frames[-1] if frames[-1].is_terminal else None
        content = [frame for frame in frames if frame.kind in CONTENT]
        if content:
            if self.first_token_at is None:
                self.first_token_at = time.monotonic()
            self.answer.events = content[-1].first_event + events_in(content[-1])
            if self.transcript is not None:
                for frame in content:
                    self.transcript.add(text_of(frame))
            await self.sink.take(content)
        elif ended is None:
            await self.sink.beat()
        return ended

    async def _end(self, frame: Frame) -> HelexaError | None:
        if frame.kind == FrameKind.ERROR:
            self.usage = _certified(frame, self.prefix_tokens)
            return from_reply(read_error(frame))
        self.usage = read_done_usage(frame)
        part = read_last_part(frame)
        if part:
            await self._carry(
                [Frame(frame.attempt, frame.seq, frame.first_event, FrameKind.BODY, [part])]
            )
        await self.sink.finish(self.usage)
        self.is_complete = True
        return None

    def _is_replaced(self, frames: list[Frame]) -> bool:
        """Whether an attempt that another gateway has begun gives anew what was carried here."""
        first = frames[0]
        return first.kind != FrameKind.ERROR and first.first_event < self.answer.events

    async def _look_around(self) -> HelexaError | None:
        await self.sink.beat()
        await self._on_pulse()
        now = time.monotonic()
        quiet_s = now - self.answer.heard_at
        begun = self.first_token_at is not None
        limit_s = self._limits.idle_s if begun else self._limits.first_token_s
        if quiet_s > limit_s:
            return DeadlineExceededError(f"The model was silent for {limit_s:g} seconds.")
        if quiet_s > SILENT_S and self._inbox.bus.is_connected:
            return self._look_for_neuron(now)
        return None

    def _look_for_neuron(self, now: float) -> HelexaError | None:
        current = self.answer.fold.current
        if current is None:
            return None
        if self._fleet.silence_s(decode_token(current.author), now) > SILENT_S:
            return StreamInterruptedError("The host that answered has fallen silent.")
        if now - self.answer.heard_at > LEASE_S:
            return StreamInterruptedError("The host that answered has lost the request.")
        if now - self._asked_at > SILENT_S:
            # It is alive and silent; its last frames may have been lost.
            self._asked_at = now
            self._inbox.mend(self.answer)
        return None


def _replaced(event: int) -> ResumeUnavailableError:
    return ResumeUnavailableError(
        f"What came from event {event} on is void, because another host went on earlier; ask for "
        "it once more.",
        param="from",
    )


def _certified(frame: Frame, prefix_tokens: int) -> TokenUsage | None:
    """Return what an answer that broke off has used, as its neurons certify it."""
    signed = frame.payload[1] if len(frame.payload) > 1 else None
    record = signed.get("record") if isinstance(signed, dict) else None
    if not isinstance(record, bytes):
        return None
    try:
        usage = read_usage(record)
    except MalformedError:
        return None
    return TokenUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens + prefix_tokens,
        counted="frames",
    )
