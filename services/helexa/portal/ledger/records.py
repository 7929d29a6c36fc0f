# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a projection can be asked: past entries, statements, the blocks themselves."""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from helexa.portal.ledger.block import Block, hash_of, read_block
from helexa.portal.ledger.entries import Entry
from helexa.portal.ledger.errors import DamagedError, ProjectionVersionError
from helexa.portal.ledger.items import ITEMS, Item
from helexa.portal.ledger.schema import APPLICATION_ID, VERSION
from helexa.portal.ledger.state import Head, State
from helexa.protocol.errors import MalformedError

FILE = "ledger.db"
KEPT_BLOCKS = 64
"""Blocks that stay decoded: who asks for one entry often asks for others near it."""


@dataclass(frozen=True, slots=True)
class Line:
    """One posting on a statement."""

    time_ms: int
    entry: int
    """Its number in the ledger, from 1."""
    kind: str
    id: str
    amount: int
    balance: int
    """Of the account, after it."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What happened on an account in a period."""

    account: str
    opening: int
    lines: tuple[Line, ...]

    @property
    def closing(self) -> int:
        """The balance at the end."""
        return self.lines[-1].balance if self.lines else self.opening


class Records:
    """Reads the database of a projection, also while another process writes it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Read over `connection`."""
        self._reader = connection
        self._block = lru_cache(KEPT_BLOCKS)(self._read_block)

    @classmethod
    def view(cls, directory: Path) -> Self:
        """Open what is in `directory` for reading alone.

        Raises:
            DamagedError: there is no ledger, or not a whole one.
            ProjectionVersionError: it is of another version of the software.
        """
        with ExitStack() as failing:
            try:
                made = sqlite3.connect(f"file:{directory / FILE}?mode=ro", uri=True)
                failing.enter_context(closing(made))
                check_version(made)
            except sqlite3.Error as error:
                raise DamagedError(f"{directory / FILE} cannot be read: {error}") from error
            failing.pop_all()
            return cls(made)

    def close(self) -> None:
        """Let go of the database."""
        self._reader.close()

    @property
    def ledger(self) -> str:
        """The portal whose ledger this is."""
        return str(self._one("SELECT ledger FROM head")[0])

    def head(self) -> Head:
        """Return the head of the chain.

        Raises:
            DamagedError: it is not the last block.
        """
        number, block_hash, time_ms = self._one("SELECT number, hash, time_ms FROM head")
        head = Head(number, block_hash, time_ms)
        last = self._one("SELECT max(number) FROM blocks")[0] or 0
        if last != number or (number and hash_of(self.block_bytes(number)) != block_hash):
            raise DamagedError(f"the head is block {number}, and the last block is another")
        return head

    def find(self, command_id: str) -> Entry | None:
        """Return the entry of a command."""
        found = self._reader.execute(
            "SELECT block, position FROM entries WHERE id = ?", (command_id,)
        ).fetchone()
        return self._block(found[0]).entries[found[1]] if found else None

    def place_of(self, command_id: str) -> Head | None:
        """Return the block that holds a command's entry."""
        found = self._reader.execute(
            "SELECT blocks.number, hash, time_ms FROM entries"
            " JOIN blocks ON blocks.number = entries.block WHERE id = ?",
            (command_id,),
        ).fetchone()
        return Head(*found) if found else None

    def state(self) -> State:
        """Return the state as it is kept.

        Raises:
            DamagedError: it cannot be read.
        """
        state = State(archive=self.find)
        state.load(self.balances(), self.items(), self.head())
        return state

    def balances(self) -> dict[str, int]:
        """Return the balances that are not zero."""
        return dict(self._reader.execute("SELECT name, balance FROM accounts WHERE balance <> 0"))

    def items(self) -> dict[str, Item]:
        """Return what stands open.

        Raises:
            DamagedError: it cannot be read.
        """
        rows = self._reader.execute("SELECT name, bytes FROM items")
        try:
            return {name: ITEMS.unpack(data) for name, data in rows}
        except MalformedError as error:
            raise DamagedError(f"what stands open cannot be read: {error.message}") from error

    def sums(self) -> dict[str, int]:
        """Return what the postings of each account add up to, without those of zero."""
        return dict(self._reader.execute(SUMS))

    def entry_count(self) -> int:
        """Return how many entries there are."""
        return int(self._one("SELECT count(*) FROM entries")[0])

    def block_bytes(self, number: int) -> bytes:
        """Return the bytes of a block.

        Raises:
            DamagedError: there is no such block.
        """
        data: bytes = self._one("SELECT bytes FROM blocks WHERE number = ?", number)[0]
        return data

    def blocks(self, first: int = 1) -> Iterator[bytes]:
        """Yield the bytes of all blocks from `first` on."""
        with closing(self._reader.cursor()) as cursor:
            cursor.execute("SELECT bytes FROM blocks WHERE number >= ? ORDER BY number", (first,))
            for (data,) in cursor:
                yield data

    def statement(self, account: str, since_ms: int, until_ms: int) -> Statement:
        """Return the postings of an account from `since_ms` until before `until_ms`."""
        rows = self._reader.execute(STATEMENT, (account, until_ms)).fetchall()
        lines = tuple(Line(*row) for row in rows)
        before = [line for line in lines if line.time_ms < since_ms]
        opening = before[-1].balance if before else 0
        return Statement(account, opening, lines[len(before) :])

    def _read_block(self, number: int) -> Block:
        return read_block(self.block_bytes(number))

    def _one(self, query: str, *values: str | int) -> tuple[Any, ...]:
        found: tuple[Any, ...] | None = self._reader.execute(query, values).fetchone()
        if found is None:
            raise DamagedError("the ledger lacks a row that each one has")
        return found


SUMS = """
SELECT accounts.name, sum(postings.amount) FROM postings
JOIN accounts ON accounts.number = postings.account
GROUP BY postings.account HAVING sum(postings.amount) <> 0
"""
STATEMENT = """
SELECT blocks.time_ms, entries.number, entries.kind, entries.id, postings.amount,
    sum(postings.amount) OVER (ORDER BY postings.entry)
FROM postings
JOIN entries ON entries.number = postings.entry
JOIN blocks ON blocks.number = entries.block
WHERE postings.account = (SELECT number FROM accounts WHERE name = ?) AND blocks.time_ms < ?
ORDER BY postings.entry
"""


def check_version(connection: sqlite3.Connection) -> None:
    """Return if the database is a projection that this software can read.

    Raises:
        DamagedError: it is no projection.
        ProjectionVersionError: it is one of another version.
    """
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID:
        raise DamagedError("the database is no ledger's")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        raise ProjectionVersionError(
            f"the projection is of version {version}, this software's of {VERSION}: "
            "move it away, and it is built anew from the journal"
        )
