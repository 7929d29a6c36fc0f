# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Where an answer goes: to a client as a stream, to a client as a whole, or nowhere."""

import re
import time
from collections.abc import Callable
from typing import Protocol

from helexa.gateway.answer import events_in, text_of
from helexa.gateway.assemble import Assembly, with_model, with_tier
from helexa.gateway.envelope import error_event
from helexa.gateway.http import EVENT_STREAM, Headers, Incoming
from helexa.protocol.errors import HelexaError
from helexa.protocol.frames import Frame, FrameKind
from helexa.protocol.messages.execution import TokenUsage

END_MARK = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n"
"""A line between two events. A blank line after it would be read as an event without data by
OpenAI's Python client, as soon as an event with a number has come."""
KEEP_ALIVE = COMMENT + b"\n"
PULSES_A_HEARTBEAT = 4
"""How often a quiet answer is looked at within the longest silence towards its client."""
GOES_ON = "goes_on"
"""Detail of an error that ends the reading of an answer here, and not the answer."""
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"(\w+)"')
_BETWEEN_EVENTS = b"\n\n"

MoreHeaders = Callable[[], Headers]


class Sink(Protocol):
    """Takes one answer."""

    @property
    def can_start_over(self) -> bool:
        """Whether nothing of the answer has left yet, so that it may come anew."""

    def start_over(self) -> None:
        """Forget what has come: another neuron begins anew."""

    async def take(self, frames: list[Frame]) -> None:
        """Take in the next `DATA` or `BODY` frames."""

    def push(self, frame: Frame, text: bytes) -> bool:
        """Take in one more `DATA` frame, which holds `text`; return whether that needed no wait.

        It was not taken in where it needs one.
        """

    async def beat(self) -> None:
        """Show that the gateway is alive, if that is due."""

    async def finish(self, usage: TokenUsage) -> None:
        """The answer is complete."""

    async def fail(self, error: HelexaError) -> None:
        """The answer ends by `error`."""


class StreamSink:
    """Server-sent events, as the neuron made them."""

    def __init__(
        self,
        incoming: Incoming,
        headers: MoreHeaders,
        *,
        stream: str,
        heartbeat_s: float,
        first_event: int = 0,
    ) -> None:
        """Send the events of the answer `stream` from number `first_event` on."""
        self._incoming = incoming
        self._stream = stream
        self._headers = headers
        self._heartbeat_s = heartbeat_s
        self._first_event = self._next_event = first_event
        self._wrote_at = time.monotonic()
        self._sent_event = False

    @property
    def can_start_over(self) -> bool:
        """Whether no event has been sent."""
        return not self._sent_event

    def start_over(self) -> None:
        """Do nothing: this is only asked while nothing has been sent."""

    async def take(self, frames: list[Frame]) -> None:
        """Send the events in `frames`, in one write."""
        texts = [events_from(frame, self._first_event) for frame in frames]
        data = texts[0] if len(texts) == 1 else b"".join(texts)
        if data:
            self._sent_event = True
            self._note(frames[-1], data)
            await self._write(data)

    def push(self, frame: Frame, text: bytes) -> bool:
        """Send the events in `frame`, if the answer has begun and the client keeps up."""
        if frame.first_event < self._first_event or not self._incoming.write_now(text):
            return False
        self._note(frame, text)
        self._wrote_at = time.monotonic()
        return True

    async def beat(self) -> None:
        """Send a comment when the next beat would be too late for it.

        The headers wait for the first event or the first beat: until then a failure is still an
        HTTP status.
        """
        if time.monotonic() - self._wrote_at >= self._heartbeat_s * (1 - 1 / PULSES_A_HEARTBEAT):
            await self._write(COMMENT if self._sent_event else KEEP_ALIVE)

    async def finish(self, usage: TokenUsage) -> None:  # noqa: ARG002 - it is in the events
        """Send the end mark."""
        await self._begin()
        await self._incoming.write(END_MARK, more=False)

    async def fail(self, error: HelexaError) -> None:
        """Send the error: as the HTTP status if that has not been sent, else as an event."""
        if not self._incoming.began:
            await self._incoming.respond_error(error, self._headers())
        else:
            rest = f"/v1/streams/{self._stream}?from={self._next_event}"
            resume = rest if error.details.get(GOES_ON) else None
            await self._incoming.write(error_event(error, resume=resume), more=False)

    def _note(self, last: Frame, data: bytes) -> None:
        self._next_event = last.first_event + events_in(last)
        found = _FINISH.search(data)
        if found:
            self._incoming.report.finish = found[1].decode()

    async def _begin(self) -> None:
        if not self._incoming.began:
            extra = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
            await self._incoming.start(200, EVENT_STREAM, [*extra, *self._headers()])

    async def _write(self, data: bytes) -> None:
        await self._begin()
        await self._incoming.write(data, more=True)
        self._wrote_at = time.monotonic()


class WholeSink:
    """One JSON answer: as the model's runtime gave it, or made of the events that it streamed."""

    can_start_over = True

    def __init__(self, incoming: Incoming, headers: MoreHeaders, empty: Assembly) -> None:
        """Collect events into `empty`."""
        self._incoming = incoming
        self._headers = headers
        self._assembly = empty
        self._parts: list[bytes] = []

    def start_over(self) -> None:
        """Collect anew: what an earlier neuron sent is void."""
        self._parts.clear()
        self._assembly = self._assembly.emptied()

    async def take(self, frames: list[Frame]) -> None:
        """Add the parts, or the events."""
        for frame in frames:
            if frame.kind == FrameKind.BODY:
                self._parts.append(text_of(frame))
            else:
                self._assembly.add(text_of(frame))

    def push(self, frame: Frame, text: bytes) -> bool:  # noqa: ARG002
        """Leave it to `take`."""
        return False

    async def beat(self) -> None:
        """Do nothing: an answer that is not a stream never starts early."""

    async def finish(self, usage: TokenUsage) -> None:
        """Send the answer."""
        report = self._incoming.report
        if self._parts:
            body = with_tier(b"".join(self._parts), self._assembly.service_tier)
            report.finish = b",".join(_FINISH.findall(body)).decode()
        else:
            body = self._assembly.whole(usage)
            report.finish = ",".join(self._assembly.finish_reasons)
        await self._incoming.respond(200, body, self._headers())

    async def fail(self, error: HelexaError) -> None:
        """Send the error."""
        await self._incoming.respond_error(error, self._headers())


class BodySink:
    """One JSON answer, as the model's runtime gave it."""

    can_start_over = True

    def __init__(self, incoming: Incoming, headers: MoreHeaders, model: str) -> None:
        """Show the answer under the public name of the model."""
        self._incoming = incoming
        self._headers = headers
        self._model = model
        self._parts: list[bytes] = []

    def start_over(self) -> None:
        """Collect anew."""
        self._parts.clear()

    async def take(self, frames: list[Frame]) -> None:
        """Add the parts."""
        self._parts += [text_of(frame) for frame in frames]

    def push(self, frame: Frame, text: bytes) -> bool:  # noqa: ARG002
        """Leave it to `take`."""
        return False

    async def beat(self) -> None:
        """Do nothing."""

    async def finish(self, usage: TokenUsage) -> None:  # noqa: ARG002 - it is in the body
        """Send the answer."""
        body = with_model(b"".join(self._parts), self._model)
        await self._incoming.respond(200, body, self._headers())

    async def fail(self, error: HelexaError) -> None:
        """Send the error."""
        await self._incoming.respond_error(error, self._headers())


class NoSink:
    """Nobody listens any more; the answer goes on for who comes to resume it."""

    can_start_over = False

    def start_over(self) -> None:
        """Do nothing."""

    async def take(self, frames: list[Frame]) -> None:
        """Drop them; the log keeps them."""

    def push(self, frame: Frame, text: bytes) -> bool:  # noqa: ARG002
        """Drop it; the log keeps it."""
        return True

    async def beat(self) -> None:
        """Do nothing."""

    async def finish(self, usage: TokenUsage) -> None:
        """Do nothing."""

    async def fail(self, error: HelexaError) -> None:
        """Do nothing."""


def events_from(frame: Frame, first_event: int) -> bytes:
    """Return the events of a `DATA` frame from number `first_event` on."""
    text = text_of(frame)
    before = first_event - frame.first_event
    if before <= 0:
        return text
    if before >= events_in(frame):
        return b""
    return _BETWEEN_EVENTS.join(text.split(_BETWEEN_EVENTS)[before:])
