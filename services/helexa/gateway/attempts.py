# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Assigning attempts in the log, so that every reader knows whose frames count."""

from dataclasses import dataclass

from helexa.bus.tokenlog import append, read_log
from helexa.gateway.answer import Answer
from helexa.gateway.continuation import Onward
from helexa.gateway.inbox import Inbox
from helexa.gateway.work import Work
from helexa.protocol.errors import ConflictError, HelexaError, UnavailableError
from helexa.protocol.frames import (
    CONTROL_AUTHOR,
    FrameKind,
    Opening,
    pack_frame,
    pack_opening,
    unpack_frame,
)
from helexa.protocol.messages.base import Message
from helexa.protocol.messages.execution import ExecuteRequest, TokenUsage
from helexa.protocol.messages.models import ModelId

APPEND_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an answer may be silent, at the neuron."""

    idle_s: float
    first_token_s: float


class Attempts:
    """Attempts of the requests whose owner is this gateway."""

    def __init__(self, inbox: Inbox, patience: Patience) -> None:
        """Publish through `inbox`'s bus."""
        self.me = inbox.me
        self._inbox = inbox
        self._patience = patience

    async def begin(
        self, work: Work, answer: Answer, author: str, decision_id: str, onward: Onward
    ) -> ExecuteRequest | None:
        """Assign the next attempt to `author` and return the order for it.

        Returns `None` when another gateway owns the answer: then it is only read here.

        Raises:
            UnavailableError: the log cannot be written.
        """
        first = not answer.fold.assignments
        after = answer.begin_attempt(author, anew=onward.anew)
        current = answer.fold.current
        attempt = current.attempt if current else 1
        if first:
            # An answer that comes in one piece, nobody can have read a part of elsewhere.
            if work.can_be_resumed:
                await self._inbox.publish_control(answer, _opening(work, author))
        else:
            frame = pack_frame(attempt, 0, 0, FrameKind.ASSIGN, author, after)
            try:
                await self.append(answer, frame)
            except ConflictError:
                answer.fold.withdraw()
                await self.read_control(answer)
                return None
        partial = onward.partial
        return ExecuteRequest(
            request_id=work.request_id,
            home=answer.home,
            owner=self.me,
            attempt=attempt,
            first_seq=after + 1,
            first_event=answer.events,
            decision_id=decision_id,
            model=ModelId(work.model),
            operation=work.order.operation,
            public_id=work.public_id,
            body=work.body,
            stream=work.can_be_resumed,
            show_usage=work.order.show_usage,
            idle_timeout_s=self._patience.idle_s,
            first_token_timeout_s=self._patience.first_token_s,
            outlives_owner=work.resumable,
            portal=work.caller.portal,
            account=work.caller.account,
            continues=partial.text if partial else None,
            prefix_tokens=partial.tokens if partial else 0,
            prefix_digests=work.prefix_digests,
            created=partial.created if partial else None,
        )

    async def append(self, answer: Answer, frame: bytes) -> None:
        """Publish a control frame, if no other gateway has published one that is not known here.

        Raises:
            ConflictError: one has.
            UnavailableError: the log cannot be written.
        """
        bus = self._inbox.bus
        subject = self._inbox.control_subject(answer)
        for _ in range(APPEND_ATTEMPTS):
            if answer.control_sequence is None and await self._knows_more(answer):
                raise ConflictError("another gateway has taken over this answer")
            try:
                await append(bus, subject, frame, after=answer.control_sequence or 0)
            except ConflictError:
                # What was only published may not have been in the log yet when it was read.
                if await self._knows_more(answer):
                    raise
            else:
                # Live readers take no appends, because they also see those that the log refuses.
                await self._inbox.publish_control(answer, frame)
                answer.control_sequence = None
                return
        raise UnavailableError("The token log is too busy.")

    async def publish_error(self, answer: Answer, error: HelexaError) -> None:
        """Tell every reader that the answer ends by `error`, where no neuron does.

        Raises:
            UnavailableError: there is no connection.
        """
        await self._publish_end(answer, FrameKind.ERROR, error.to_reply())

    async def publish_done(self, answer: Answer, usage: TokenUsage) -> None:
        """Tell every reader that the answer is complete, where no neuron does.

        Raises:
            UnavailableError: there is no connection.
        """
        await self._publish_end(answer, FrameKind.DONE, usage)

    async def _publish_end(self, answer: Answer, kind: FrameKind, what: Message) -> None:
        attempt = answer.fold.current.attempt if answer.fold.current else 1
        place = (attempt, answer.next_seq, answer.events)
        await self._inbox.publish_control(
            answer, pack_frame(*place, kind, what.model_dump(), None, {})
        )

    async def read_control(self, answer: Answer) -> None:
        """Take in what other gateways have published about `answer`.

        Raises:
            UnavailableError: the log cannot be read.
        """
        kept = await read_log(self._inbox.bus, self._inbox.control_subject(answer))
        for each in kept:
            answer.take(CONTROL_AUTHOR, unpack_frame(each.data))

    async def _knows_more(self, answer: Answer) -> bool:
        """Whether the log holds a control frame that did not come from here."""
        kept = await read_log(self._inbox.bus, self._inbox.control_subject(answer))
        answer.control_sequence = kept[-1].sequence if kept else 0
        return any(each.data not in answer.control for each in kept)


def _opening(work: Work, author: str) -> bytes:
    return pack_opening(
        Opening(
            account=work.caller.bearer,
            model=work.model,
            operation=work.order.operation,
            public_id=work.public_id,
            neuron=author,
            created=work.created,
        )
    )
