# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What may be asked of a ledger. Pure.

Each command says under which id it is kept. Sent again it has the same answer; another command
under its id is a conflict.
"""

import hashlib
from typing import Annotated

from msgspec import Meta
from typing_extensions import override

from helexa.portal.ledger.ids import (
    capture_id,
    closing_id,
    deposit_id,
    hold_id,
    settlement_id,
)
from helexa.protocol.codec import Canonical
from helexa.protocol.messages.accounts import BUDGET_PERIODS
from helexa.protocol.messages.base import HotMessage
from helexa.protocol.money import LARGEST_AMOUNT

Token = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Name = Annotated[str, Meta(pattern=r"^[!-~]{1,200}\Z")]
"""An outside name, such as a request's or a payment's."""
Text = Annotated[str, Meta(max_length=200)]
Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3,5}\Z")]
Amount = Annotated[int, Meta(gt=0, le=LARGEST_AMOUNT)]
"""Micro-units."""
Count = Annotated[int, Meta(ge=0, le=LARGEST_AMOUNT)]
Payees = Annotated[tuple[tuple[Token, Amount], ...], Meta(max_length=16)]
"""Providers and what each has earned."""

WINDOWS = BUDGET_PERIODS
Window = Annotated[str, Meta(pattern=rf"^({'|'.join(WINDOWS)})\Z")]


class Command(HotMessage, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """Something to enter. New fields have defaults, which are not written: a digest stays."""

    @property
    def id(self) -> str:
        """What tells this command from every other one."""
        raise NotImplementedError


class Deposit(Command, frozen=True, kw_only=True, tag="deposit"):
    """Money has come in for a user."""

    user: Token
    currency: Currency
    rail: Token
    reference: Name
    """The payment, as its rail calls it."""
    amount: Amount
    """What the user gets; an open debt is paid from it first."""
    fee: Count = 0
    """What the rail keeps of it, which the portal bears; less than the amount."""

    @property
    @override
    def id(self) -> str:
        return deposit_id(self.rail, self.reference)


class Refund(Command, frozen=True, kw_only=True, tag="refund"):
    """Unspent money has gone back over the rail that it came by."""

    refund: Name
    rail: Token
    reference: Name
    """The deposit's."""
    amount: Amount

    @property
    @override
    def id(self) -> str:
        return f"refund:{self.refund}"


class Chargeback(Command, frozen=True, kw_only=True, tag="chargeback"):
    """A rail has taken a deposit back; what the user no longer has becomes a debt."""

    dispute: Name
    rail: Token
    reference: Name
    """The deposit's."""
    amount: Amount
    fee: Count = 0
    """What the rail charges the portal for it."""

    @property
    @override
    def id(self) -> str:
        return f"chargeback:{self.dispute}"


class Grant(Command, frozen=True, kw_only=True, tag="grant"):
    """The portal gives a user something to spend, which expires."""

    grant: Token
    user: Token
    currency: Currency
    amount: Amount
    expires_at_ms: Amount

    @property
    @override
    def id(self) -> str:
        return f"grant:{self.grant}"


class ExpireGrant(Command, frozen=True, kw_only=True, tag="expire_grant"):
    """The time of a grant is over: what is left of it is gone."""

    grant: Token

    @property
    @override
    def id(self) -> str:
        return f"expire:{self.grant}"


class Hold(Command, frozen=True, kw_only=True, tag="hold"):
    """Set money aside before a request runs."""

    hold: Name
    """The request's id."""
    user: Token
    currency: Currency
    amount: Amount
    lifetime_ms: Amount
    api_key: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{0,64}\Z")] = ""
    """The id of the key whose budgets count it."""
    price: Text = ""
    """The price list that is valid for it."""

    @property
    @override
    def id(self) -> str:
        return hold_id(self.hold)


class Extend(Command, frozen=True, kw_only=True, tag="extend"):
    """Keep a hold longer: its request is still in work."""

    hold: Name
    until_ms: Amount

    @property
    @override
    def id(self) -> str:
        return f"extend:{self.until_ms}:{self.hold}"


class Capture(Command, frozen=True, kw_only=True, tag="capture"):
    """Pay one attempt of a request from its hold; the last one closes the hold."""

    hold: Name
    attempt: Count
    amount: Count
    """What the user pays. What the payees do not get of it is the portal's."""
    payees: Payees = ()
    is_last: bool = True
    memo: Text = ""

    @property
    @override
    def id(self) -> str:
        return closing_id(self.hold) if self.is_last else capture_id(self.hold, self.attempt)


class Release(Command, frozen=True, kw_only=True, tag="release"):
    """Give back what is left of a hold."""

    hold: Name
    reason: Text = ""
    if_expired: bool = False
    """Only when its time is over."""

    @property
    @override
    def id(self) -> str:
        return closing_id(self.hold)


class LateCapture(Command, frozen=True, kw_only=True, tag="late_capture"):
    """Pay an attempt that became known after its hold was closed.

    From what the user has; the rest is the portal's loss.
    """

    hold: Name
    attempt: Count
    amount: Amount
    payees: Payees = ()
    memo: Text = ""

    @property
    @override
    def id(self) -> str:
        return f"late:{self.attempt}:{self.hold}"


class ReservePayout(Command, frozen=True, kw_only=True, tag="reserve_payout"):
    """Set aside what is about to be paid to a provider."""

    payout: Name
    provider: Token
    currency: Currency
    amount: Amount

    @property
    @override
    def id(self) -> str:
        return f"payout:{self.payout}"


class SettlePayout(Command, frozen=True, kw_only=True, tag="settle_payout"):
    """A payout has arrived."""

    payout: Name
    rail: Token
    reference: Text = ""

    @property
    @override
    def id(self) -> str:
        return settlement_id(self.payout)


class FailPayout(Command, frozen=True, kw_only=True, tag="fail_payout"):
    """A payout did not happen."""

    payout: Name
    reason: Text = ""

    @property
    @override
    def id(self) -> str:
        return settlement_id(self.payout)


class ReturnPayout(Command, frozen=True, kw_only=True, tag="return_payout"):
    """A payout that had arrived was sent back by its rail, whole."""

    payout: Name
    reason: Text = ""

    @property
    @override
    def id(self) -> str:
        return f"return:{self.payout}"


class SetBudget(Command, frozen=True, kw_only=True, tag="set_budget"):
    """Limit what an API key may use in each day, week or month, or in all."""

    change: Name
    api_key: Token
    currency: Currency
    window: Window
    limit: Count | None = None
    """`None`: no limit."""

    @property
    @override
    def id(self) -> str:
        return f"budget:{self.change}"


AnyCommand = (
    Deposit
    | Refund
    | Chargeback
    | Grant
    | ExpireGrant
    | Hold
    | Extend
    | Capture
    | Release
    | LateCapture
    | ReservePayout
    | SettlePayout
    | FailPayout
    | ReturnPayout
    | SetBudget
)


COMMANDS: Canonical[AnyCommand] = Canonical(AnyCommand)
"""Reads and writes commands; what it reads is within the bounds of its fields."""


def digest_of(data: bytes) -> bytes:
    """Return what tells one command's bytes from another's."""
    return hashlib.sha256(data).digest()
