# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Blocks: the entries of one moment, chained by their hashes. Pure.

A block's bytes are canonical msgpack; its hash is over these bytes, so that nothing in a chain can
be changed without changing every hash after it.
"""

import hashlib
from collections.abc import Sequence

from helexa.portal.ledger.entries import Entry
from helexa.portal.ledger.state import Head
from helexa.protocol.codec import Canonical, unpack_plain
from helexa.protocol.errors import MalformedError
from helexa.protocol.messages.base import HotMessage

VERSION = 1
MAX_ENTRIES = 256
DOMAIN = b"helexa-ledger-block-v1\0"
"""Goes before the bytes that are hashed, so that a hash is good for nothing else."""


class Block(HotMessage, frozen=True, kw_only=True):
    """Up to `MAX_ENTRIES` entries, all or none of which are in a ledger."""

    version: int
    ledger: str
    """The portal that it is of."""
    number: int
    """1 for the first."""
    previous: bytes
    """The hash of the block before; zeros before the first."""
    time_ms: int
    entries: tuple[Entry, ...]


class BlockError(ValueError):
    """These bytes are no block that may come next."""


class BlockVersionError(BlockError):
    """The block was written by a newer version of the software."""


class BlockFormatError(BlockError):
    """The bytes are no block, or not in the one form that a block has."""


class ChainError(BlockError):
    """The block is of another ledger, or does not continue this chain."""


_BLOCKS: Canonical[Block] = Canonical(Block)


def hash_of(data: bytes) -> bytes:
    """Return the hash of a block's bytes."""
    return hashlib.sha256(DOMAIN + data).digest()


def time_after(head: Head, clock_ms: int) -> int:
    """Return the time of the block after `head`: time never goes back."""
    return max(head.time_ms, clock_ms)


def sealed(ledger: str, head: Head, time_ms: int, entries: Sequence[Entry]) -> tuple[bytes, Head]:
    """Return the bytes of the block after `head`, and the head that it is."""
    block = Block(
        version=VERSION,
        ledger=ledger,
        number=head.number + 1,
        previous=head.hash,
        time_ms=time_ms,
        entries=tuple(entries),
    )
    data = _BLOCKS.pack(block)
    return data, Head(block.number, hash_of(data), time_ms)


def opened(ledger: str, head: Head, data: bytes) -> tuple[Block, Head]:
    """Return the block in `data`, which comes after `head`, and the head that it is.

    Raises:
        BlockVersionError: it is of a version that this software does not know.
        BlockFormatError: it is no block in canonical form.
        ChainError: it does not come after `head` in this ledger.
    """
    _check_version(data)
    block = read_block(data)
    if not 0 < len(block.entries) <= MAX_ENTRIES:
        raise BlockFormatError(f"block {head.number + 1} has {len(block.entries)} entries")
    if block.ledger != ledger:
        raise ChainError(f"block {head.number + 1} is of the ledger {block.ledger!r}")
    if block.number != head.number + 1:
        raise ChainError(f"block {block.number} comes after block {head.number}")
    if block.previous != head.hash:
        raise ChainError(f"block {block.number} names another block {head.number} before it")
    if block.time_ms < head.time_ms:
        raise ChainError(f"block {block.number} is older than the one before")
    return block, Head(block.number, hash_of(data), block.time_ms)


def read_block(data: bytes) -> Block:
    """Return a block that was checked when it was taken over.

    Raises:
        BlockFormatError: it is no block.
    """
    try:
        return _BLOCKS.unpack(data)
    except MalformedError as error:
        raise BlockFormatError(error.message) from error


def _check_version(data: bytes) -> None:
    try:
        fields = unpack_plain(data)
    except MalformedError as error:
        raise BlockFormatError("the bytes are no block") from error
    version = fields.get("version") if isinstance(fields, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise BlockFormatError("the bytes are no block")
    if version != VERSION:
        raise BlockVersionError(f"the block is of version {version}; this software reads {VERSION}")
