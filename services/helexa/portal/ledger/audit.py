# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Looks through a whole projection: does it follow from its blocks, and do they hang together."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from helexa.portal.ledger.accounts import account_of
from helexa.portal.ledger.block import BlockError, opened
from helexa.portal.ledger.entries import EntryError
from helexa.portal.ledger.errors import DamagedError
from helexa.portal.ledger.records import Records
from helexa.portal.ledger.state import Head, State
from helexa.protocol.codec import Plain, unpack_plain
from helexa.protocol.money import format_amount

AMOUNTS = frozenset(("amount", "postings", "sources", "uncovered"))
"""The fields of an entry that hold amounts, alone or beside names."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What was looked through, and found right."""

    head: Head
    entries: int
    accounts: int


def verify(records: Records) -> Audit:
    """Fold all blocks again and compare what they come to with what is kept.

    Raises:
        DamagedError: something differs.
    """
    state, entries = State(), 0
    for data in records.blocks():
        entries += _take(state, records.ledger, data)
    if state.head != records.head():
        raise DamagedError("the chain ends elsewhere")
    if state.balances != records.balances():
        raise DamagedError("the balances are not what the blocks come to")
    if state.items != records.items():
        raise DamagedError("what stands open is not what the blocks come to")
    if state.balances != records.sums():
        raise DamagedError("the postings are not what the blocks come to")
    if entries != records.entry_count():
        raise DamagedError("the entries are not those of the blocks")
    _check_sums(state)
    return Audit(state.head, entries, len(state.balances))


def exported(records: Records) -> Iterator[str]:
    """Yield each block as a line of JSON; amounts are decimal text, bytes hexadecimal.

    Raises:
        DamagedError: the chain is broken.
    """
    ledger, head = records.ledger, Head()
    for data in records.blocks():
        try:
            block, head = opened(ledger, head, data)
        except BlockError as error:
            raise DamagedError(str(error)) from error
        fields = unpack_plain(data)
        line = {
            "version": block.version,
            "ledger": block.ledger,
            "number": block.number,
            "previous": block.previous.hex(),
            "hash": head.hash.hex(),
            "time_ms": block.time_ms,
            "entries": _readable(fields["entries"] if isinstance(fields, dict) else None),
        }
        yield json.dumps(line, separators=(",", ":"))


def _readable(value: Plain, name: str = "") -> Plain:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [_readable(each, name) for each in value]
    if isinstance(value, dict):
        return {key: _readable(each, key) for key, each in value.items()}
    return format_amount(value) if name in AMOUNTS and type(value) is int else value


def _take(state: State, ledger: str, data: bytes) -> int:
    try:
        block, state.head = opened(ledger, state.head, data)
        for entry in block.entries:
            state.apply(entry)
    except (BlockError, EntryError) as error:
        raise DamagedError(str(error)) from error
    # Whether a command is entered twice shows in the number of entries, whose ids are unique.
    state.archived(block.entries)
    state.take_changes()
    return len(block.entries)


def _check_sums(state: State) -> None:
    sums: defaultdict[tuple[bool, str], int] = defaultdict(int)
    for name, balance in state.balances.items():
        account = account_of(name)
        sums[account.is_money, account.currency] += balance
    if any(sums.values()):
        raise DamagedError("the balances do not add up to zero")
