# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A replica's own copy of a ledger, in SQLite: at once at hand, and a second durable copy.

What is in it follows from the blocks. Each transaction takes over whole blocks with their head, so
that a crash leaves it at one block or the next.
"""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from helexa.portal.ledger.entries import Entry
from helexa.portal.ledger.errors import DamagedError, LedgerError, LedgerInUseError
from helexa.portal.ledger.items import ITEMS
from helexa.portal.ledger.records import FILE, Records, check_version
from helexa.portal.ledger.schema import APPLICATION_ID, TABLES, VERSION
from helexa.portal.ledger.state import Changes, Head

DIRECTORY_MODE = 0o700


@dataclass(frozen=True, slots=True)
class Applied:
    """A block that a state has taken over."""

    entries: Sequence[Entry]
    data: bytes
    head: Head
    changes: Changes


class Projection(Records):
    """The one writer of a projection. `append` may run in another thread, once at a time."""

    def __init__(self, writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
        """Use two connections to one database, so that reading never waits for writing."""
        super().__init__(reader)
        self._writer = writer
        self._writing = threading.Lock()
        """SQLite ends the process when a connection is closed under another thread's hands."""
        self._is_closed = False
        self._accounts = dict(writer.execute("SELECT name, number FROM accounts"))
        self._entries = int(writer.execute("SELECT count(*) FROM entries").fetchone()[0])

    def append(self, blocks: Sequence[Applied]) -> None:
        """Take over blocks that come after the head, all of them or none.

        Raises:
            LedgerError: the disk or the database fails. Nothing was taken over; this object is of
                no more use.
        """
        with self._writing:
            if self._is_closed:
                raise LedgerError("the projection is closed")
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                for applied in blocks:
                    self._append(applied)
                self._writer.execute("COMMIT")
            except sqlite3.Error as error:
                raise LedgerError(f"the projection cannot be written: {error}") from error

    @override
    def close(self) -> None:
        """Let go of the database, after what is being written."""
        with self._writing:
            self._is_closed = True
            self._writer.close()
            super().close()

    def _append(self, applied: Applied) -> None:
        head = applied.head
        self._writer.execute(
            "INSERT INTO blocks VALUES (?, ?, ?, ?)",
            (head.number, head.hash, head.time_ms, applied.data),
        )
        self._write_balances(applied.changes)
        self._write_entries(head.number, applied.entries)
        items = applied.changes.items.items()
        self._writer.executemany(
            "INSERT OR REPLACE INTO items VALUES (?, ?)",
            [(name, ITEMS.pack(item)) for name, item in items if item is not None],
        )
        self._writer.executemany(
            "DELETE FROM items WHERE name = ?", [(name,) for name, item in items if item is None]
        )
        self._writer.execute(
            "UPDATE head SET number = ?, hash = ?, time_ms = ?",
            (head.number, head.hash, head.time_ms),
        )

    def _write_balances(self, changes: Changes) -> None:
        rows = []
        for name, balance in changes.balances.items():
            number = self._accounts.setdefault(name, len(self._accounts) + 1)
            rows.append((number, name, balance))
        self._writer.executemany(
            "INSERT INTO accounts VALUES (?, ?, ?)"
            " ON CONFLICT (number) DO UPDATE SET balance = excluded.balance",
            rows,
        )

    def _write_entries(self, block: int, added: Sequence[Entry]) -> None:
        entries, postings = [], []
        for position, entry in enumerate(added):
            self._entries += 1
            entries.append((self._entries, block, position, entry.kind, entry.id))
            postings += [
                (self._accounts[name], self._entries, amount) for name, amount in entry.postings
            ]
        self._writer.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", entries)
        self._writer.executemany("INSERT INTO postings VALUES (?, ?, ?)", postings)


@contextmanager
def open_projection(directory: Path, ledger: str) -> Iterator[Projection]:
    """Hold the directory and open the projection in it, which may be new.

    Raises:
        LedgerInUseError: another process holds it.
        DamagedError: the database is no whole projection, or one of another ledger.
        ProjectionVersionError: it was written by another version of the software.
    """
    directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    with _locked(directory), ExitStack() as connections:
        try:
            writer = connections.enter_context(closing(_connect(directory / FILE)))
            reader = connections.enter_context(closing(_connect(directory / FILE)))
            _prepare(writer, ledger)
            projection = connections.enter_context(closing(Projection(writer, reader)))
        except sqlite3.Error as error:
            raise DamagedError(f"{directory / FILE}: {error}") from error
        if projection.ledger != ledger:
            raise DamagedError(f"{directory} has the ledger {projection.ledger!r}")
        projection.head()
        yield projection


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LedgerInUseError(f"another process uses {directory}") from error
        yield
    finally:
        os.close(descriptor)


def _connect(file: Path) -> sqlite3.Connection:
    file.touch(0o600)
    # Each connection is used by one thread at a time, which need not be the one that made it.
    return sqlite3.connect(file, isolation_level=None, check_same_thread=False)


def _prepare(writer: sqlite3.Connection, ledger: str) -> None:
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("PRAGMA synchronous = FULL")
    writer.execute("PRAGMA foreign_keys = ON")
    if writer.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        check_version(writer)
        return
    writer.execute("BEGIN IMMEDIATE")
    for statement in TABLES.split(";\n"):
        writer.execute(statement)
    writer.execute("INSERT INTO head VALUES (1, ?, 0, ?, 0)", (ledger, Head().hash))
    writer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    writer.execute(f"PRAGMA user_version = {VERSION}")
    writer.execute("COMMIT")
