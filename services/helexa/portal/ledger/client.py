# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Asks whichever replica writes a portal's ledger."""

from helexa.bus.client import Bus
from helexa.portal.ledger.commands import COMMANDS, AnyCommand
from helexa.portal.ledger.entries import ENTRIES
from helexa.portal.ledger.refusals import Code, Refusal
from helexa.portal.ledger.sequencer import Answer, Placed
from helexa.portal.ledger.state import Head
from helexa.protocol import subjects
from helexa.protocol.messages.ledger import Posted, PostRequest

DEADLINE_S = 5.0


class LedgerClient:
    """Enters commands from any process that may."""

    def __init__(self, bus: Bus, portal: str) -> None:
        """Ask the ledger of `portal`."""
        self._bus = bus
        self._portal = portal

    async def enter(self, command: AnyCommand, *, deadline_s: float = DEADLINE_S) -> Answer:
        """Return the entry of `command` and its block, or why there is none.

        Raises:
            MalformedError: a number in the command is out of range.
            UnavailableError: the command may have been entered or not; ask again, with the same
                one.
            DeadlineExceededError: the same.
        """
        request = PostRequest(command=COMMANDS.pack(command))
        reply = await self._bus.request(
            subjects.POST, request, deadline_s=deadline_s, portal=self._portal
        )
        return answer_of(reply)


def answer_of(posted: Posted) -> Answer:
    """Return what a reply says."""
    if posted.refusal:
        # A code of a newer writer is still a refusal.
        known = posted.refusal in set(Code)
        code = Code(posted.refusal) if known else Code.MALFORMED
        return Refusal(code, posted.message, available=posted.available)
    head = Head(posted.block, posted.block_hash, posted.time_ms)
    return Placed(ENTRIES.unpack(posted.entry), posted.is_new, head)


def posted_of(answer: Answer) -> Posted:
    """Return the reply that says it."""
    if isinstance(answer, Refusal):
        return Posted(refusal=answer.code, message=answer.message, available=answer.available)
    return Posted(
        entry=ENTRIES.pack(answer.entry),
        is_new=answer.is_new,
        block=answer.head.number,
        block_hash=answer.head.hash,
        time_ms=answer.head.time_ms,
    )
