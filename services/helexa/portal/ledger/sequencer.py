# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Turns commands into blocks and appends them to the journal, one at a time."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from helexa.portal.ledger.block import MAX_ENTRIES, sealed, time_after
from helexa.portal.ledger.entries import Entry
from helexa.portal.ledger.plan import Entered, enter
from helexa.portal.ledger.projection import Applied
from helexa.portal.ledger.refusals import Refusal
from helexa.portal.ledger.replica import Replica
from helexa.portal.ledger.state import Head
from helexa.protocol.errors import UnavailableError

NOT_WRITING = "the ledger has another writer now, or none"


@dataclass(frozen=True, slots=True)
class Placed:
    """An entry and the block that holds it."""

    entry: Entry
    is_new: bool
    head: Head
    """The block's number, hash and time."""


Answer = Placed | Refusal


@dataclass(frozen=True, slots=True)
class _Asked:
    data: bytes
    answer: asyncio.Future[Answer]


class Sequencer:
    """The writer of a ledger, as long as nobody else writes.

    Nothing is answered before the journal has it. Where it is not known whether the journal has a
    block, nobody gets an answer and the writer ends: its state may be ahead of the journal. What is
    true is then read from the journal, and whoever asked asks again under the same id.
    """

    def __init__(self, replica: Replica, clock_ms: Callable[[], int]) -> None:
        """Write what `replica` has caught up with; `clock_ms` tells the time since 1970."""
        self._replica = replica
        self._clock_ms = clock_ms
        self._asked: asyncio.Queue[_Asked] = asyncio.Queue()
        self._in_work: list[_Asked] = []
        self._keeping: asyncio.Task[None] | None = None
        self._has_ended = False

    async def submit(self, data: bytes) -> Answer:
        """Return what became of a command, given in its canonical form.

        Raises:
            UnavailableError: the writer has ended. The command may have been entered all the same.
        """
        if self._has_ended:
            raise UnavailableError(NOT_WRITING)
        asked = _Asked(data, asyncio.get_running_loop().create_future())
        self._asked.put_nowait(asked)
        return await asked.answer

    async def run(self) -> None:
        """Write until it fails or is cancelled.

        Raises:
            ConflictError: somebody else has written.
            UnavailableError: it is not known whether the last block is stored.
            LedgerError: the projection cannot be written.
        """
        try:
            while True:
                self._in_work = [await self._asked.get()]
                while len(self._in_work) < MAX_ENTRIES and not self._asked.empty():
                    self._in_work.append(self._asked.get_nowait())
                await self._enter()
        finally:
            self._end()
            if self._keeping is not None:
                # Others may use the projection when this has returned.
                await asyncio.wait({self._keeping})

    async def _enter(self) -> None:
        state = self._replica.state
        time_ms = time_after(state.head, self._clock_ms())
        answers = [(asked, enter(state, asked.data, time_ms)) for asked in self._in_work]
        entries = [
            found.entry for _, found in answers if isinstance(found, Entered) and found.is_new
        ]
        if entries:
            data, head = sealed(self._replica.ledger, state.head, time_ms, entries)
            applied = Applied(entries, data, head, state.take_changes())
            state.head = head
            await self._replica.journal.append(data, after=head.number - 1)
            before, self._keeping = self._keeping, self._keep(applied)
            self._tell([each for each in answers if _is_new(each[1])], head)
            await _done(before)
        self._tell([each for each in answers if not _is_new(each[1])], state.head)
        self._in_work = []

    def _tell(self, answers: Sequence[tuple[_Asked, Entered | Refusal]], head: Head) -> None:
        for asked, found in answers:
            if asked.answer.done():
                continue
            if isinstance(found, Refusal):
                asked.answer.set_result(found)
                continue
            place = head if found.is_new else self._place(found.entry, head)
            asked.answer.set_result(Placed(found.entry, found.is_new, place))

    def _place(self, entry: Entry, head: Head) -> Head:
        # What the projection does not have yet is in the block that has just been written.
        return self._replica.projection.place_of(entry.id) or head

    def _keep(self, applied: Applied) -> asyncio.Task[None]:
        """Begin to write a block into the projection, after the one before it."""
        before = self._keeping

        async def keep() -> None:
            await _done(before)
            await self._replica.keep([applied])

        return asyncio.create_task(keep())

    def _end(self) -> None:
        self._has_ended = True
        waiting = [*self._in_work]
        while not self._asked.empty():
            waiting.append(self._asked.get_nowait())
        for asked in waiting:
            if not asked.answer.done():
                asked.answer.set_exception(UnavailableError(NOT_WRITING))


def _is_new(found: Entered | Refusal) -> bool:
    return isinstance(found, Entered) and found.is_new


async def _done(keeping: asyncio.Task[None] | None) -> None:
    """Wait for a task, which goes on when this is cancelled."""
    if keeping is not None:
        await asyncio.wait({keeping})
        keeping.result()
