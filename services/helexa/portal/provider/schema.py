# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The tables of the provider's book. What is settled or claimed follows from totals, not flags."""

VERSION = 1
"""Kept in `user_version`; a book of another version is not opened."""

TABLES = """
CREATE TABLE prices (
    version TEXT PRIMARY KEY,
    portal TEXT NOT NULL,
    encoded BLOB NOT NULL
) STRICT;

CREATE TABLE work (
    portal TEXT NOT NULL,
    request_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    model TEXT NOT NULL,
    currency TEXT NOT NULL,
    price_version TEXT NOT NULL,
    estimate INTEGER NOT NULL CHECK (estimate >= 0),
    images INTEGER NOT NULL,
    audio_seconds INTEGER NOT NULL,
    usage BLOB,
    unpaid_tokens INTEGER NOT NULL,
    PRIMARY KEY (portal, request_id, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE channel (
    portal TEXT NOT NULL,
    currency TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    number INTEGER NOT NULL,
    cumulative INTEGER NOT NULL,
    settled INTEGER NOT NULL DEFAULT 0 CHECK (settled BETWEEN 0 AND cumulative),
    PRIMARY KEY (portal, currency, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE receipt (
    portal TEXT NOT NULL,
    currency TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    number INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    cumulative INTEGER NOT NULL,
    record BLOB NOT NULL,
    key TEXT NOT NULL,
    signature BLOB NOT NULL,
    PRIMARY KEY (portal, currency, epoch, number),
    UNIQUE (portal, request_id, attempt)
) STRICT;

CREATE TABLE protest (
    portal TEXT NOT NULL,
    currency TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    number INTEGER NOT NULL,
    code TEXT NOT NULL,
    PRIMARY KEY (portal, currency, epoch, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE claim (
    claim_id TEXT PRIMARY KEY,
    portal TEXT NOT NULL,
    time_ms INTEGER NOT NULL,
    record BLOB NOT NULL,
    key TEXT NOT NULL,
    signature BLOB NOT NULL
) STRICT;

CREATE TABLE claimed (
    claim_id TEXT NOT NULL REFERENCES claim,
    portal TEXT NOT NULL,
    currency TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    cumulative INTEGER NOT NULL,
    PRIMARY KEY (portal, currency, epoch, cumulative, claim_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE settlement (
    portal TEXT NOT NULL,
    currency TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    settled INTEGER NOT NULL,
    record BLOB NOT NULL,
    key TEXT NOT NULL,
    signature BLOB NOT NULL,
    PRIMARY KEY (portal, currency, epoch, settled)
) STRICT;

CREATE TABLE fork (
    portal TEXT NOT NULL,
    proof BLOB NOT NULL,
    PRIMARY KEY (portal, proof)
) STRICT;
"""
