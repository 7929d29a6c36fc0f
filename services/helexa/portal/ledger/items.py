# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What stands open in a ledger beside the balances: holds, grants, payouts, limits. Pure."""

from helexa.protocol.codec import Canonical
from helexa.protocol.messages.base import HotMessage


class OpenHold(HotMessage, frozen=True, kw_only=True, tag_field="type", tag="hold"):
    """Money set aside for one request."""

    user: str
    currency: str
    api_key: str
    sources: tuple[tuple[str, int], ...]
    """The accounts that it came from and what is left of each, in the order they are spent."""
    budgets: tuple[str, ...]
    """The accounts that count it."""
    price: str
    """The price list that was valid when it was taken."""
    expires_at_ms: int
    attempts: tuple[int, ...]
    """The attempts that have been paid from it."""

    @property
    def left(self) -> int:
        """Micro-units that are still held."""
        return sum(amount for _, amount in self.sources)


class LiveGrant(HotMessage, frozen=True, kw_only=True, tag_field="type", tag="grant"):
    """A gift to a user that has not expired."""

    user: str
    currency: str
    expires_at_ms: int


class OpenPayout(HotMessage, frozen=True, kw_only=True, tag_field="type", tag="payout"):
    """Money on its way to a provider."""

    provider: str
    currency: str
    amount: int


class Reversed(HotMessage, frozen=True, kw_only=True, tag_field="type", tag="reversed"):
    """How much of a deposit has gone back."""

    amount: int


class Limit(HotMessage, frozen=True, kw_only=True, tag_field="type", tag="limit"):
    """What an API key may use in each period."""

    api_key: str
    currency: str
    window: str
    """`day`, `week`, `month` or `total`, in UTC."""
    amount: int


Item = OpenHold | LiveGrant | OpenPayout | Reversed | Limit

ITEMS: Canonical[Item] = Canonical(Item)
"""Reads and writes items."""


def hold_name(hold: str) -> str:
    """Return under what name a hold stands open."""
    return f"hold:{hold}"


def grant_name(grant: str) -> str:
    """Return under what name a grant stands open."""
    return f"grant:{grant}"


def payout_name(payout: str) -> str:
    """Return under what name a payout stands open."""
    return f"payout:{payout}"


def reversed_name(deposit: str) -> str:
    """Return under what name it stands how much of a deposit, by its command's id, went back."""
    return f"reversed:{deposit}"


def limit_name(api_key: str, window: str, currency: str) -> str:
    """Return under what name a key's limit stands."""
    return f"limit:{api_key}:{window}:{currency}"
