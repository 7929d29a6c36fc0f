# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The rest of an answer, whichever gateway began it."""

import asyncio
import contextlib
import logging
import time

from helexa.bus.batches import Kept
from helexa.gateway.answer import Answer
from helexa.gateway.authority import Caller
from helexa.gateway.desk import Desk
from helexa.gateway.homes import Source
from helexa.gateway.http import ClientGoneError, Headers, Incoming
from helexa.gateway.peers import Peers
from helexa.gateway.reading import Reading
from helexa.gateway.replay import counting, first_kept
from helexa.gateway.sinks import StreamSink
from helexa.protocol import subjects
from helexa.protocol.errors import (
    ConflictError,
    HelexaError,
    NotFoundError,
    ResumeUnavailableError,
    ShuttingDownError,
    UnsupportedError,
)
from helexa.protocol.frames import (
    CONTROL_AUTHOR,
    Frame,
    FrameKind,
    Opening,
    pack_frame,
    read_opening,
    unpack_frame,
)
from helexa.protocol.messages.execution import AttachRequest, CancelRequest, Operation
from helexa.protocol.naming import home_of

_log = logging.getLogger(__name__)

ATTACH_DEADLINE_S = 2.0
PLACING_S = 5.0
"""So much longer than it may take, its owner is waited for to go on with an answer."""


class Resumption:
    """One client that asks for the rest of an answer."""

    def __init__(
        self, desk: Desk, peers: Peers, incoming: Incoming, request_id: str, first_event: int
    ) -> None:
        """Serve the answer to `request_id` from event number `first_event` on."""
        self.answer = Answer(request_id, buffer_bytes=desk.client_buffer_bytes)
        self._desk = desk
        self._peers = peers
        self._incoming = incoming
        self._first_event = first_event
        self._model = ""
        self._live: list[tuple[str, bytes]] | None = []
        """Frames that arrive while the log is being read; `None` once it has been."""

    async def run(self, caller: Caller) -> None:
        """Serve the rest to its end.

        Raises:
            NotFoundError: there is no such answer, or it is another caller's.
            ResumeUnavailableError: what is asked for is no longer kept.
            UnavailableError: the log cannot be read.
        """
        answer, desk = self.answer, self._desk
        if home_of(answer.request_id) is None:
            raise _unknown(answer.request_id)
        source = await desk.homes.open(answer.home, answer.token, self._take)
        desk.inbox.follow(answer)
        try:
            opening = await self._load(source, caller)
            self._model = self._incoming.report.model = opening.model
            await self._read()
        finally:
            desk.inbox.close(answer)
            await source.close()

    async def _load(self, source: Source, caller: Caller) -> Opening:
        """Read what the log holds, and return whose answer it is."""
        answer = self.answer
        kept = await source.read(CONTROL_AUTHOR)
        opening = _opening_of(kept)
        if opening is None or opening.account != caller.bearer:
            raise _unknown(answer.request_id)
        if opening.operation == Operation.EMBEDDING:
            raise UnsupportedError("This answer is not a stream.")
        answer.control_sequence = kept[-1].sequence or None
        answer.control += [each.data for each in kept]
        for each in kept:
            answer.take(CONTROL_AUTHOR, unpack_frame(each.data))
        frames = await self._read_frames(source)
        await self._find_start(frames)
        for author, frame in frames:
            answer.take(author, frame)
        answer.is_accepted = True
        held, self._live = self._live or [], None
        for author, data in held:
            self._desk.inbox.deliver(answer, author, data)
        if answer.fold.hole() is not None:
            self._desk.inbox.mend(answer)
        return opening

    async def _read_frames(self, source: Source) -> list[tuple[str, Frame]]:
        """Return the kept frames of every neuron that was assigned, those that count."""
        answer = self.answer
        authors = dict.fromkeys(each.author for each in answer.fold.assignments)
        found: list[tuple[str, Frame]] = []
        for author in authors:
            kept = await source.read(author)
            found += [(author, unpack_frame(each.data)) for each in kept]
        return counting(answer.fold, found)

    async def _find_start(self, frames: list[tuple[str, Frame]]) -> None:
        """Skip a beginning that the log has forgotten, if nobody asks for it."""
        first = first_kept(frames)
        if first is None or first.seq == 0:
            return
        if first.first_event <= self._first_event:
            self.answer.fold.next_seq = first.seq
            return
        with contextlib.suppress(HelexaError):
            await self._desk.inbox.fetch(self.answer, to_seq=first.seq)
        if self.answer.fold.next_seq < first.seq:
            raise ResumeUnavailableError(
                f"Events before number {first.first_event} are no longer kept.", param="from"
            )

    async def _read(self) -> None:
        incoming, answer = self._incoming, self.answer
        beat_s = self._desk.limits.heartbeat_s
        sink = StreamSink(
            incoming,
            self._headers,
            stream=answer.request_id,
            heartbeat_s=beat_s,
            first_event=self._first_event,
        )
        reading = Reading(
            answer,
            sink,
            incoming.report,
            inbox=self._desk.inbox,
            fleet=self._desk.fleet,
            limits=self._desk.limits,
            on_pulse=self._care,
        )
        answer.heard_at = time.monotonic()
        answer.needs_owner = True
        task = asyncio.current_task()
        answer.cut = task.cancel if task else None
        incoming.watch(answer.hang_up)
        try:
            error = await reading.run()
            while error is not None and await self._is_mended(error, sink):
                error = await reading.run()
        except ClientGoneError:
            incoming.report.client_gone = True
            await self._leave()
        except asyncio.CancelledError:
            if not answer.too_slow or task is None or task.uncancel():
                raise
            incoming.report.code = "client_too_slow"
        else:
            if error is not None:
                incoming.report.code = error.code
                await self._tell_others(error)
                await sink.fail(error)
        finally:
            incoming.unwatch()

    def _take(self, author: str, data: bytes) -> None:
        if self._live is not None:
            self._live.append((author, data))
        else:
            self._desk.inbox.deliver(self.answer, author, data)

    async def _is_mended(self, error: HelexaError, sink: StreamSink) -> bool:
        """Wait for what the owner makes of a failed attempt; False: the answer ends by it."""
        answer, failed = self.answer, self.answer.fold.current
        if error is answer.failure:
            if isinstance(error, ShuttingDownError):
                return False
            answer.failure = None
        give_up_at = time.monotonic() + self._desk.limits.go_on_s + PLACING_S
        while self._has_other_owner and error.to_reply().retryable and not answer.fold.closed:
            if answer.frames or answer.fold.current is not failed:
                return True
            if answer.client_gone:
                raise ClientGoneError
            if answer.failure is not None or time.monotonic() > give_up_at:
                return False
            answer.is_due = False
            await sink.beat()
            await answer.wait()
        return bool(answer.frames)

    @property
    def _has_other_owner(self) -> bool:
        owner = self.answer.fold.owner or self.answer.home
        if owner == self._desk.inbox.me:
            return False
        return not self._peers.is_gone(owner, time.monotonic())

    async def _tell_others(self, error: HelexaError) -> None:
        """End the answer for its other readers too, if it is ours."""
        fold = self.answer.fold
        if fold.owner == self._desk.inbox.me and not fold.closed and error.to_reply().retryable:
            with contextlib.suppress(HelexaError):
                await self._desk.attempts.publish_error(self.answer, error)

    async def _care(self) -> None:
        """Take the answer over when its owner is gone; keep it resumable once it is ours."""
        answer, fold, me = self.answer, self.answer.fold, self._desk.inbox.me
        with contextlib.suppress(HelexaError):
            if fold.owner != me:
                owner = fold.owner or answer.home
                if not fold.ended and self._peers.is_gone(owner, time.monotonic()):
                    await self._take_over()
            elif answer.needs_owner:
                await self._tell_neuron()
            else:
                await self._desk.inbox.renew_control(answer)

    async def _take_over(self) -> None:
        answer, me = self.answer, self._desk.inbox.me
        try:
            await self._desk.attempts.append(answer, pack_frame(0, 0, 0, FrameKind.ATTACH, me))
        except ConflictError:
            await self._desk.attempts.read_control(answer)
            return
        answer.fold.owner = me
        _log.info("attached", extra={"request": answer.request_id})
        await self._tell_neuron()

    async def _tell_neuron(self) -> None:
        """Tell the neuron that we are the owner now: without one it would stop after a while."""
        current = self.answer.fold.current
        if current is not None:
            await self._desk.inbox.bus.request(
                subjects.ATTACH,
                AttachRequest(request_id=self.answer.request_id, owner=self._desk.inbox.me),
                deadline_s=ATTACH_DEADLINE_S,
                neuron=current.author,
            )
        self.answer.needs_owner = False

    async def _leave(self) -> None:
        """Stop the neuron if nobody else looks after the answer."""
        fold, me = self.answer.fold, self._desk.inbox.me
        current = fold.current
        stays = self._incoming.is_asked(b"x-helexa-resumable")
        if fold.owner != me or fold.ended or current is None or stays:
            return
        asked = CancelRequest(request_id=self.answer.request_id, owner=me, attempt=current.attempt)
        with contextlib.suppress(HelexaError):
            await self._desk.inbox.bus.request(
                subjects.CANCEL, asked, deadline_s=ATTACH_DEADLINE_S, neuron=current.author
            )

    def _headers(self) -> Headers:
        return [
            (b"x-helexa-model", self._model.encode("ascii", "backslashreplace")),
            (b"x-helexa-stream", self.answer.request_id.encode()),
        ]


def _opening_of(kept: list[Kept]) -> Opening | None:
    for each in kept:
        frame = unpack_frame(each.data)
        if frame.kind == FrameKind.OPEN:
            return read_opening(frame)
    return None


def _unknown(request_id: str) -> NotFoundError:
    return NotFoundError(f"There is no answer {request_id!r}.", param="id")
