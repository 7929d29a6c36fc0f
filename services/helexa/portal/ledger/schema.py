# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The tables of a projection. They follow from the blocks: another version is built anew."""

VERSION = 1
APPLICATION_ID = 0x484C4C44
"""Marks the file as a ledger's, for `file` and for us."""

TABLES = """
CREATE TABLE head (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    ledger TEXT NOT NULL,
    number INTEGER NOT NULL,
    hash BLOB NOT NULL,
    time_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE blocks (
    number INTEGER PRIMARY KEY,
    hash BLOB NOT NULL,
    time_ms INTEGER NOT NULL,
    bytes BLOB NOT NULL
) STRICT;
CREATE TABLE entries (
    number INTEGER PRIMARY KEY,
    block INTEGER NOT NULL REFERENCES blocks (number),
    position INTEGER NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE accounts (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    balance INTEGER NOT NULL
) STRICT;
CREATE TABLE postings (
    account INTEGER NOT NULL REFERENCES accounts (number),
    entry INTEGER NOT NULL REFERENCES entries (number),
    amount INTEGER NOT NULL CHECK (amount <> 0),
    PRIMARY KEY (account, entry)
) STRICT, WITHOUT ROWID;
CREATE TABLE items (
    name TEXT PRIMARY KEY,
    bytes BLOB NOT NULL
) STRICT, WITHOUT ROWID;
"""
