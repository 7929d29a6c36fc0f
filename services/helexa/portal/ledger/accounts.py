# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The accounts of a portal's ledger: their names, and how far each may go. Pure.

A balance is what the portal owes: what a user has put in is positive, and so is what a provider has
earned; what a payment rail holds for the portal is negative. All balances of a currency add up to
zero. The currency is the last part of a name, so that no account mixes two.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from helexa.protocol.money import LARGEST_AMOUNT


class Kind(StrEnum):
    """What an account is for."""

    AVAILABLE = "available"
    """What a user may spend."""
    HELD = "held"
    """What is set aside for a user's requests in work."""
    GRANT = "grant"
    """What the portal has given a user, spent first and never paid out."""
    DEBT = "debt"
    """What a user owes after a deposit was taken back; at most zero."""
    PAYABLE = "payable"
    """What a provider has earned."""
    PENDING = "pending"
    """What is on its way to a provider."""
    CLEARING = "clearing"
    """What a payment rail holds for the portal, or lacks."""
    REVENUE = "revenue"
    PROMOTION = "promotion"
    """What grants have cost."""
    BAD_DEBT = "bad_debt"
    """Work that was paid for and that no balance covered."""
    FEES = "fees"
    """What rails have kept."""
    BUDGET = "budget"
    """What an API key has used in a period. No money: it only counts."""
    METERED = "metered"
    """The other side of what budgets count."""


@dataclass(frozen=True, slots=True)
class Account:
    """What a name says."""

    kind: Kind
    currency: str
    is_floored: bool
    """Never below zero."""
    is_capped: bool
    """Never above zero."""
    is_money: bool
    """Whether it holds money, or only counts."""


FLOORED = frozenset(
    (Kind.AVAILABLE, Kind.HELD, Kind.GRANT, Kind.PAYABLE, Kind.PENDING, Kind.BUDGET)
)
CAPPED = frozenset((Kind.DEBT,))
COUNTING = frozenset((Kind.BUDGET, Kind.METERED))
"""They hold no money; among themselves they add up to zero too."""

_TOKEN = r"[A-Za-z0-9_-]{1,64}"
_NAMES = {
    Kind.AVAILABLE: rf"user:{_TOKEN}:avail",
    Kind.HELD: rf"user:{_TOKEN}:hold",
    Kind.GRANT: rf"grant:{_TOKEN}:{_TOKEN}",
    Kind.DEBT: rf"debt:{_TOKEN}",
    Kind.PAYABLE: rf"provider:{_TOKEN}:payable",
    Kind.PENDING: rf"provider:{_TOKEN}:pending",
    Kind.CLEARING: rf"clearing:{_TOKEN}",
    Kind.REVENUE: "portal:revenue",
    Kind.PROMOTION: "portal:promo_expense",
    Kind.BAD_DEBT: "portal:bad_debt",
    Kind.FEES: "portal:fees",
    Kind.BUDGET: rf"budget:{_TOKEN}:{_TOKEN}",
    Kind.METERED: "portal:metered",
}
_NAME = re.compile(
    "(?:" + "|".join(f"(?P<{kind}>{name})" for kind, name in _NAMES.items()) + "):[A-Z]{3,5}"
)


class AccountError(ValueError):
    """A name that no account has, or a balance that its account may not have."""


@lru_cache(65_536)
def account_of(name: str) -> Account:
    """Return what `name` says.

    Raises:
        AccountError: there is no such account.
    """
    found = _NAME.fullmatch(name)
    if found is None or found.lastgroup is None:
        raise AccountError(f"{name!r} names no account")
    kind = Kind(found.lastgroup)
    return Account(
        kind, name.rpartition(":")[2], kind in FLOORED, kind in CAPPED, kind not in COUNTING
    )


def check_balance(name: str, balance: int) -> None:
    """Return if the account may have this balance.

    Raises:
        AccountError: it is below the floor, above the cap, or no 64-bit number.
    """
    account = account_of(name)
    if balance < 0 and account.is_floored:
        raise AccountError(f"{name} would fall to {balance}")
    if balance > 0 and account.is_capped:
        raise AccountError(f"{name} would rise to {balance}")
    if not -LARGEST_AMOUNT <= balance <= LARGEST_AMOUNT:
        raise AccountError(f"{name} would leave the range of numbers")


def available(user: str, currency: str) -> str:
    """Return the account of what a user may spend."""
    return f"user:{user}:avail:{currency}"


def held(user: str, currency: str) -> str:
    """Return the account of what is set aside for a user's requests."""
    return f"user:{user}:hold:{currency}"


def granted(user: str, grant: str, currency: str) -> str:
    """Return the account of one grant."""
    return f"grant:{user}:{grant}:{currency}"


def debt(user: str, currency: str) -> str:
    """Return the account of what a user owes."""
    return f"debt:{user}:{currency}"


def payable(provider: str, currency: str) -> str:
    """Return the account of what a provider has earned."""
    return f"provider:{provider}:payable:{currency}"


def pending(provider: str, currency: str) -> str:
    """Return the account of what is on its way to a provider."""
    return f"provider:{provider}:pending:{currency}"


def clearing(rail: str, currency: str) -> str:
    """Return the account of a payment rail."""
    return f"clearing:{rail}:{currency}"


def revenue(currency: str) -> str:
    """Return the account of what the portal has earned."""
    return f"portal:revenue:{currency}"


def promotion(currency: str) -> str:
    """Return the account of what grants have cost."""
    return f"portal:promo_expense:{currency}"


def bad_debt(currency: str) -> str:
    """Return the account of what no balance covered."""
    return f"portal:bad_debt:{currency}"


def fees(currency: str) -> str:
    """Return the account of what rails have kept."""
    return f"portal:fees:{currency}"


def budget(api_key: str, period: str, currency: str) -> str:
    """Return the account that counts what a key has used in a period."""
    return f"budget:{api_key}:{period}:{currency}"


def metered(currency: str) -> str:
    """Return the other side of all budgets."""
    return f"portal:metered:{currency}"
