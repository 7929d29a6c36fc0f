# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Puts blocks that a server has lost back into a journal, from a projection."""

from helexa.bus.journal import Journal
from helexa.portal.ledger.errors import JournalForkedError
from helexa.portal.ledger.records import Records


async def restore(journal: Journal, records: Records) -> int:
    """Append the blocks that the journal lacks, byte for byte, and return how many these were.

    Raises:
        JournalForkedError: the journal has a block that is not the projection's.
        ConflictError: somebody else writes.
        UnavailableError: the journal cannot be reached; call again.
    """
    kept = 0
    mine = records.blocks()
    async for found in journal.read(1):
        kept += 1
        if found.sequence != kept or found.data != next(mine, None):
            raise JournalForkedError(f"block {kept} in the journal is not the one that was kept")
    last = await journal.last()
    if last != kept:
        raise JournalForkedError(f"the journal counts from {last}, and has {kept} blocks")
    restored = 0
    for data in mine:
        await journal.append(data, after=kept + restored)
        restored += 1
    return restored
