# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Frames in: one subscription for all answers of this gateway, and the mending of holes."""

import asyncio
import logging
import time

from helexa.bus.client import Bus
from helexa.gateway.answer import Answer
from helexa.protocol import resources, subjects
from helexa.protocol.errors import (
    HelexaError,
    MalformedError,
    NotFoundError,
    StreamInterruptedError,
)
from helexa.protocol.frames import CONTROL_AUTHOR, unpack_frame
from helexa.protocol.messages.execution import ResendRequest
from helexa.protocol.subjects import pattern_of, subject_of

_log = logging.getLogger(__name__)

RESEND_DEADLINE_S = 3.0
RENEW_CONTROL_S = resources.TOKEN_WINDOW_S / 3
"""The log forgets a frame after its window, but who may resume is in the first one."""


class Inbox:
    """The answers that are read here."""

    def __init__(self, bus: Bus, me: str) -> None:
        """Read the frames of the gateway `me`."""
        self.bus = bus
        self.me = me
        self._answers: dict[str, Answer] = {}
        self._readers: set[Answer] = set()
        self._mending: dict[Answer, asyncio.Task[None]] = {}
        self._renewing: asyncio.Task[None] | None = None

    async def subscribe(self) -> None:
        """Begin to receive."""
        await self.bus.subscribe_raw(pattern_of(subjects.TOKENS, home=self.me), self._take)
        await self.bus.subscribe_raw(subjects.TOKENS_LEADER, self._on_leader)

    def open(self, answer: Answer) -> None:
        """Begin to deliver the frames of an answer whose home is this gateway."""
        self._answers[answer.token] = answer
        self._readers.add(answer)

    def follow(self, answer: Answer) -> None:
        """Look after an answer whose frames come over a subscription of its own."""
        self._readers.add(answer)

    def close(self, answer: Answer) -> None:
        """End the delivery."""
        if self._answers.get(answer.token) is answer:
            del self._answers[answer.token]
        self._readers.discard(answer)
        mending = self._mending.pop(answer, None)
        if mending is not None:
            mending.cancel()

    @property
    def readers(self) -> tuple[Answer, ...]:
        """All answers that are read here."""
        return tuple(self._readers)

    def deliver(self, answer: Answer, author: str, data: bytes) -> None:
        """Put one packed frame into `answer`, and have a hole mended that it shows."""
        try:
            answer.take(author, unpack_frame(data))
        except MalformedError:
            _log.warning("frame_unreadable", extra={"author": author, "request": answer.request_id})
            return
        if author != CONTROL_AUTHOR and answer.fold.hole() is not None:
            self.mend(answer)

    def mend(self, answer: Answer) -> None:
        """Ask the neuron for what is missing, once at a time."""
        if answer.is_accepted and answer not in self._mending:
            task = asyncio.create_task(self._mend(answer), name="mend")
            self._mending[answer] = task
            task.add_done_callback(lambda _: self._mending.pop(answer, None))

    async def fetch(self, answer: Answer, *, to_seq: int | None) -> None:
        """Take in once more what the neuron has published from the next frame on.

        Raises:
            NoRespondersError: the neuron is gone.
            NotFoundError: it does not keep the answer any more.
            HelexaError: it did not answer.
        """
        while not answer.fold.ended and (to_seq is None or answer.fold.next_seq < to_seq):
            before = answer.fold.next_seq
            await self._fetch_part(answer, to_seq)
            if answer.fold.next_seq == before:
                return

    async def _fetch_part(self, answer: Answer, to_seq: int | None) -> None:
        fold = answer.fold
        hole, current = fold.hole(), fold.current
        if current is None:
            return
        attempt, author = (hole.attempt, hole.author) if hole else (current.attempt, current.author)
        wanted = ResendRequest(
            request_id=answer.request_id, attempt=attempt, from_seq=fold.next_seq, to_seq=to_seq
        )
        resent = await self.bus.request(
            subjects.RESEND, wanted, deadline_s=RESEND_DEADLINE_S, neuron=author
        )
        if not (resent.frames or resent.complete):
            raise NotFoundError("The neuron does not know this request.")
        for data in resent.frames:
            answer.take(author, unpack_frame(data))

    async def pulse(self, interval_s: float) -> None:
        """Wake every reader that has been quiet for `interval_s`, to look at the clock.

        Also one that is not quiet, where there is more to look at.
        """
        while True:
            await asyncio.sleep(interval_s)
            now = time.monotonic()
            for answer in self._readers:
                has_more = answer.needs_owner or self._must_renew(answer, now)
                if has_more or now - answer.heard_at >= interval_s:
                    answer.is_due = True
                    answer.wake()

    def listen_anew(self, now: float) -> None:
        """Forget the silence of a time in which nothing could be heard."""
        for answer in self._readers:
            answer.heard_at = now

    def mend_all(self) -> None:
        """Ask for whatever may have been lost while the connection was."""
        for answer in self._readers:
            if not answer.fold.ended:
                answer.heard_at = time.monotonic()
                self.mend(answer)

    async def publish_control(self, answer: Answer, data: bytes) -> None:
        """Publish a control frame without waiting for the log.

        Raises:
            UnavailableError: there is no connection.
        """
        answer.control.append(data)
        answer.control_at = time.monotonic()
        await self.bus.publish_raw(self.control_subject(answer), data)

    async def renew_control(self, answer: Answer, *, at_once: bool = False) -> None:
        """Publish the control frames of an answer that is cared for here again, when it is time."""
        now = time.monotonic()
        if not at_once and not self._must_renew(answer, now):
            return
        answer.control_at = now
        answer.control_sequence = None
        for data in answer.control:
            await self.bus.publish_raw(self.control_subject(answer), data)

    async def renew_all(self) -> None:
        """Publish the control frames of every answer anew: the log may have lost some."""
        for answer in self.readers:
            try:
                await self.renew_control(answer, at_once=True)
            except HelexaError as error:
                _log.info("not_renewed", extra={"code": error.code})

    def control_subject(self, answer: Answer) -> str:
        """Return where gateways publish about `answer`."""
        return subject_of(
            subjects.TOKENS, home=answer.home, author=CONTROL_AUTHOR, request=answer.token
        )

    def _must_renew(self, answer: Answer, now: float) -> bool:
        return bool(answer.control) and now - answer.control_at >= RENEW_CONTROL_S

    def _on_leader(self, subject: str, data: bytes) -> None:
        # Without a leader the log keeps nothing for seconds (seen), and a lost frame of a neuron is
        # sent again, but without its opening nobody elsewhere can know what an answer is.
        del subject, data
        self._renewing = asyncio.create_task(self.renew_all(), name="renew")

    def _take(self, subject: str, data: bytes) -> None:
        _, author, token = subject.rsplit(".", 2)
        answer = self._answers.get(token)
        if answer is not None:
            self.deliver(answer, author, data)

    async def _mend(self, answer: Answer) -> None:
        hole = answer.fold.hole()
        try:
            await self.fetch(answer, to_seq=hole.to_seq if hole else None)
        except NotFoundError as error:
            _log.info("hole_stays", extra={"request": answer.request_id, "code": error.code})
            answer.fail(StreamInterruptedError("A part of the answer was lost."))
            return
        except HelexaError as error:
            # A neuron that is not there may be back in a moment, as after a restart of the server;
            # one that is gone falls silent, which ends the wait.
            _log.info("resend_failed", extra={"request": answer.request_id, "code": error.code})
            return
        left = answer.fold.hole()
        if hole is not None and left is not None and left.from_seq <= hole.from_seq:
            answer.fail(StreamInterruptedError("A part of the answer is no longer kept."))
