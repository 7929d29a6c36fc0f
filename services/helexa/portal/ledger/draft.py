# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""An entry in the making, and the moves of money that several rules share. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from helexa.portal.ledger import accounts
from helexa.portal.ledger.accounts import Kind, account_of
from helexa.portal.ledger.entries import EntryKind, Posting
from helexa.portal.ledger.items import Item
from helexa.portal.ledger.state import State

Sources = tuple[tuple[str, int], ...]
"""Accounts and what each gives, in the order in which it is spent."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What a command comes to."""

    kind: EntryKind
    moves: tuple[Posting, ...] = ()
    opened: dict[str, Item] = field(default_factory=dict)
    closed: tuple[str, ...] = ()
    facts: dict[str, str | int] = field(default_factory=dict)


def drawn(state: State, user: str, currency: str, amount: int, time_ms: int) -> tuple[Sources, int]:
    """Return from where a user's `amount` is taken, and how much of it there is not.

    Grants go first, the one that expires soonest at the front.
    """
    names = [
        accounts.granted(user, grant, currency)
        for grant, live in state.grants(user, currency)
        if live.expires_at_ms > time_ms
    ]
    sources: list[tuple[str, int]] = []
    missing = amount
    for name in (*names, accounts.available(user, currency)):
        part = min(missing, state.balance(name))
        if part > 0:
            sources.append((name, part))
            missing -= part
    return tuple(sources), missing


def spent(sources: Sources, amount: int) -> Sources:
    """Return what is left of `sources` after `amount`, of which there is enough, is spent."""
    left: list[tuple[str, int]] = []
    for name, part in sources:
        taken = min(amount, part)
        amount -= taken
        if part > taken:
            left.append((name, part - taken))
    return tuple(left)


def taken_from(sources: Sources) -> list[Posting]:
    """Return the moves that take `sources` out of their accounts."""
    return [(name, -amount) for name, amount in sources]


def credited(state: State, user: str, currency: str, amount: int) -> list[Posting]:
    """Return the moves that give a user money, of which an open debt is paid first."""
    owed = accounts.debt(user, currency)
    repaid = min(amount, -state.balance(owed))
    return [(owed, repaid), (accounts.available(user, currency), amount - repaid)]


def given_back(state: State, user: str, currency: str, sources: Sources) -> list[Posting]:
    """Return the moves that give `sources` back; to the portal what an expired grant gave."""
    moves: list[Posting] = []
    for name, amount in sources:
        if account_of(name).kind is not Kind.GRANT:
            moves += credited(state, user, currency, amount)
        elif state.grant(name.split(":")[2]) is None:
            moves.append((accounts.promotion(currency), amount))
        else:
            moves.append((name, amount))
    return moves


def paid_out(payees: Iterable[tuple[str, int]], amount: int, currency: str) -> list[Posting]:
    """Return the moves that share `amount` among providers and, with the rest, the portal."""
    shares = [(accounts.payable(provider, currency), share) for provider, share in payees]
    rest = amount - sum(share for _, share in shares)
    return [*shares, (accounts.revenue(currency), rest)]


def counted(budgets: Iterable[str], amount: int, currency: str) -> list[Posting]:
    """Return the moves that count `amount` in each of `budgets`."""
    moves: list[Posting] = []
    for budget in budgets:
        moves += [(budget, amount), (accounts.metered(currency), -amount)]
    return moves
