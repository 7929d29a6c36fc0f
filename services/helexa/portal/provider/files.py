# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The file of the provider's book: one writer, any number of readers, durable when it says so."""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from helexa.portal.provider.schema import TABLES, VERSION
from helexa.process.settings import SettingsError

DIRECTORY_MODE = 0o700
FILE = "book.sqlite"
BUSY_WITHIN_S = 10.0


class BookError(SettingsError):
    """The provider's book cannot be used; the message says what to do."""


@contextlib.contextmanager
def open_for_writing(directory: Path) -> Iterator[sqlite3.Connection]:
    """Hold the book in `directory` against other writers; it is made if there is none.

    Each commit is on the disk when it returns.

    Raises:
        BookError: another process writes it, or it is of another version.
    """
    directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    with _locked(directory):
        opened = sqlite3.connect(
            directory / FILE, isolation_level=None, timeout=BUSY_WITHIN_S, check_same_thread=False
        )
        with contextlib.closing(opened) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            _prepare(connection, directory)
            yield connection


@contextlib.contextmanager
def open_for_reading(directory: Path) -> Iterator[sqlite3.Connection]:
    """Look into the book in `directory`, which another process may be writing.

    Raises:
        BookError: there is none, or it is of another version.
    """
    path = directory.absolute() / FILE
    if not path.exists():
        raise BookError(f"there is no provider's book in {directory}; name its directory")
    uri = f"{path.as_uri()}?mode=ro"
    opened = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_WITHIN_S)
    with contextlib.closing(opened) as connection:
        if (found := _version(connection)) != VERSION:
            raise BookError(_other_version(directory, found))
        yield connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Do all that is inside, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise BookError(f"another process writes the provider's book in {directory}") from error
    try:
        yield
    finally:
        os.close(descriptor)


def _prepare(connection: sqlite3.Connection, directory: Path) -> None:
    found = _version(connection)
    if found == VERSION:
        return
    if found:
        raise BookError(_other_version(directory, found))
    # One script, one transaction: a process that dies meanwhile leaves no half of it.
    connection.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;")


def _version(connection: sqlite3.Connection) -> int:
    [version] = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _other_version(directory: Path, found: int) -> str:
    return f"the provider's book in {directory} is of version {found}, not {VERSION}"
