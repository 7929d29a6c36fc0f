# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Entries: what one command changed, balanced in each currency. Pure."""

from collections import defaultdict
from collections.abc import Iterable
from enum import StrEnum

from msgspec import field

from helexa.portal.ledger.accounts import AccountError, Kind, account_of
from helexa.portal.ledger.items import Item
from helexa.protocol.codec import Canonical
from helexa.protocol.messages.base import HotMessage
from helexa.protocol.money import LARGEST_AMOUNT

Posting = tuple[str, int]
"""An account and what is added to it, in micro-units."""


class EntryKind(StrEnum):
    """What an entry records."""

    DEPOSIT = "deposit"
    REFUND = "refund"
    CHARGEBACK = "chargeback"
    GRANT = "grant"
    GRANT_EXPIRED = "grant_expired"
    HOLD = "hold"
    EXTENSION = "extension"
    CAPTURE = "capture"
    RELEASE = "release"
    LATE_CAPTURE = "late_capture"
    PAYOUT_RESERVED = "payout_reserved"
    PAYOUT_SETTLED = "payout_settled"
    PAYOUT_FAILED = "payout_failed"
    PAYOUT_RETURNED = "payout_returned"
    BUDGET = "budget"


MONEY_IN = frozenset((EntryKind.DEPOSIT, EntryKind.PAYOUT_RETURNED))
"""Money comes from outside: a deposit, or a payout that the rail has brought back."""
MONEY_OUT = frozenset((EntryKind.REFUND, EntryKind.CHARGEBACK, EntryKind.PAYOUT_SETTLED))
"""Money leaves."""


class Entry(HotMessage, frozen=True, kw_only=True, omit_defaults=True):
    """What one command changed."""

    kind: str
    id: str
    """The command's: there is one entry for it, however often it is sent."""
    digest: bytes
    """SHA-256 of the command, so that another one under the same id is told apart."""
    postings: tuple[Posting, ...] = ()
    """At most one an account, in the order of their names."""
    opened: dict[str, Item] = field(default_factory=dict)
    """What stands open from now on, or has changed."""
    closed: tuple[str, ...] = ()
    """What stands open no more."""
    facts: dict[str, str | int] = field(default_factory=dict)
    """What a reader wants to know besides."""


ENTRIES: Canonical[Entry] = Canonical(Entry)
"""Reads and writes entries."""


class EntryError(ValueError):
    """An entry that no ledger may hold."""


def merged(moves: Iterable[Posting]) -> tuple[Posting, ...]:
    """Return `moves` as postings: one an account, none of zero, sorted."""
    sums: defaultdict[str, int] = defaultdict(int)
    for account, amount in moves:
        sums[account] += amount
    return tuple(sorted((account, amount) for account, amount in sums.items() if amount))


def check_entry(entry: Entry) -> None:
    """Return if a ledger may hold `entry`.

    Raises:
        EntryError: it is unbalanced, names no account or one twice, or moves money over a payment
            rail that its kind may not move.
    """
    sums: defaultdict[tuple[bool, str], int] = defaultdict(int)
    last = ""
    for name, amount in entry.postings:
        try:
            account = account_of(name)
        except AccountError as error:
            raise EntryError(f"{entry.id}: {error}") from error
        if name <= last:
            raise EntryError(f"{entry.id}: postings are not in order")
        last = name
        if not amount or abs(amount) > LARGEST_AMOUNT:
            raise EntryError(f"{entry.id}: {amount} cannot be posted")
        if account.kind is Kind.CLEARING:
            _check_rail(entry, amount)
        sums[account.is_money, account.currency] += amount
    if any(sums.values()):
        raise EntryError(f"{entry.id}: it does not balance")


def _check_rail(entry: Entry, amount: int) -> None:
    # What is with a rail is negative: less than before means that money came in.
    permitted = MONEY_IN if amount < 0 else MONEY_OUT
    if entry.kind not in permitted:
        raise EntryError(f"{entry.id}: a {entry.kind} moves no money over a rail")
