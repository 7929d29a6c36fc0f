# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A replica's state and projection, kept up with the journal."""

import asyncio
import logging
import time
from dataclasses import dataclass

from helexa.bus.batches import Kept
from helexa.bus.journal import Journal
from helexa.portal.ledger.block import BlockError, BlockVersionError, hash_of, opened
from helexa.portal.ledger.entries import EntryError
from helexa.portal.ledger.errors import JournalBehindError, JournalForkedError, LedgerError
from helexa.portal.ledger.projection import Applied, Projection
from helexa.portal.ledger.state import State
from helexa.protocol.errors import UnavailableError

_log = logging.getLogger(__name__)

TOGETHER = 64
"""Blocks taken over by one transaction while there are many."""
STALLED_S = 5.0
"""A copy of the journal that lags behind its leader gets so long to bring the next block."""
LOOK_EVERY_S = 0.05


@dataclass(slots=True)
class Replica:
    """One copy of a ledger. Its state is that of the last block it has taken over."""

    ledger: str
    journal: Journal
    projection: Projection
    state: State

    @classmethod
    async def open(cls, ledger: str, journal: Journal, projection: Projection) -> "Replica":
        """Load the projection and catch up with the journal.

        Raises:
            JournalBehindError: the journal lacks what the projection has.
            JournalForkedError: it has something else there.
            LedgerError: the ledger is damaged.
            UnavailableError: the journal cannot be read now.
        """
        made = cls(ledger, journal, projection, projection.state())
        await made.check()
        await made.catch_up()
        return made

    async def check(self) -> None:
        """Return if the journal has the block that is the projection's head.

        Raises:
            JournalBehindError: it is shorter.
            JournalForkedError: another block is there.
            UnavailableError: the journal cannot be read now.
        """
        head = self.state.head
        last = await self.journal.last()
        if last < head.number:
            raise JournalBehindError(
                f"the journal of {self.ledger} ends at block {last}, and {head.number} were "
                "acknowledged: a server has lost data; put them back with 'helexa ledger restore'"
            )
        if head.number:
            found = await self._first(head.number)
            if found.sequence != head.number or hash_of(found.data) != head.hash:
                raise JournalForkedError(
                    f"block {head.number} of {self.ledger} is another one in the journal"
                )

    async def catch_up(self) -> None:
        """Take over all blocks that the journal has by now.

        Raises:
            JournalForkedError: a block does not continue the chain.
            LedgerError: a block is damaged, or the projection cannot be written.
            UnavailableError: the journal cannot be read now.
        """
        last = await self.journal.last()
        give_up_at = time.monotonic() + STALLED_S
        while self.state.head.number < last:
            before = self.state.head.number
            await self._read_on()
            if self.state.head.number > before:
                give_up_at = time.monotonic() + STALLED_S
            elif time.monotonic() > give_up_at:
                raise UnavailableError("a copy of the journal is behind")
            else:
                await asyncio.sleep(LOOK_EVERY_S)

    async def _read_on(self) -> None:
        pending: list[Applied] = []
        async for kept in self.journal.read(self.state.head.number + 1):
            pending.append(self._take(kept))
            if len(pending) == TOGETHER:
                await self.keep(pending)
                pending = []
        await self.keep(pending)

    def _take(self, kept: Kept) -> Applied:
        try:
            block, head = opened(self.ledger, self.state.head, kept.data)
            if kept.sequence != head.number:
                raise JournalForkedError(f"block {head.number} is at place {kept.sequence}")
            for entry in block.entries:
                self.state.apply(entry)
        except BlockVersionError as error:
            raise LedgerError(str(error)) from error
        except (BlockError, EntryError) as error:
            raise JournalForkedError(str(error)) from error
        self.state.head = head
        return Applied(block.entries, kept.data, head, self.state.take_changes())

    async def keep(self, blocks: list[Applied]) -> None:
        """Write blocks that the state has taken over into the projection.

        Raises:
            LedgerError: it cannot be written.
        """
        if not blocks:
            return
        writing = asyncio.create_task(asyncio.to_thread(self.projection.append, blocks))
        try:
            await asyncio.shield(writing)
        finally:
            # A thread cannot be cancelled; nobody may use the projection before it has ended.
            await asyncio.wait({writing})
        for applied in blocks:
            self.state.archived(applied.entries)

    async def _first(self, number: int) -> Kept:
        async for kept in self.journal.read(number):
            return kept
        raise UnavailableError("a copy of the journal is behind")
