# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a portal certifies that it owes a provider, what the provider claims, what was settled.

A record is signed over its canonical bytes, travels with them, and is read strictly: it has all of
its fields, no others, and one encoding. What a reader does not understand is no money to it.
Hashes are SHA-256, times are Unix milliseconds, amounts are micro-units of the currency.
"""

from typing import Annotated, Literal

from msgspec import Meta

from helexa.protocol.messages.base import HotMessage, Message
from helexa.protocol.money import LARGEST_AMOUNT

Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
Count = Annotated[int, Meta(ge=0, le=LARGEST_AMOUNT)]
Ordinal = Annotated[int, Meta(ge=1, le=LARGEST_AMOUNT)]
Currency = Annotated[str, Meta(pattern=r"\A[A-Z]{3,5}\Z")]
Provider = Annotated[str, Meta(pattern=r"\AU[A-Z2-7]{55}\Z")]
Portal = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}(\.[A-Za-z0-9_-]{1,64})?\Z")]
Id = Annotated[str, Meta(min_length=1, max_length=256)]
Version = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class Receipt(HotMessage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one attempt of one request earned, and all that its channel has earned by then.

    A channel is a portal, a provider and a currency. In each epoch of it receipts are numbered from
    1 and each names the hash of the one before, so that only the last has to be shown to be paid.
    """

    type: Literal["helexa.receipt"] = "helexa.receipt"
    version: Literal[1] = 1
    portal: Portal
    """The portal's id; that of another site is `<operator>.<id>`."""
    provider: Provider
    """The public nkey of the operator who is paid."""
    currency: Currency
    epoch: Ordinal
    """Rises when the portal has a new key; numbers and totals begin anew."""
    number: Ordinal
    previous: Hash
    """Of the receipt before; zeros in the first of an epoch."""
    request_id: Id
    attempt: Ordinal
    model: Id
    price_version: Version
    prompt_tokens: Count
    cached_tokens: Count
    completion_tokens: Count
    requests: Count
    images: Count
    audio_seconds: Count
    cost: Count
    """What the user paid."""
    amount: Count
    """The provider's part of it."""
    cumulative: Count
    """Sum of the amounts of this epoch so far, with this one."""
    usage_hash: Hash
    """Of the usage record that the provider's neuron signed."""
    ledger_sequence: Count
    """The block of the portal's ledger in which this is booked."""
    ledger_hash: Hash
    """Of that block."""
    time_ms: Count


class Voucher(HotMessage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A signed receipt inside a claim."""

    record: bytes
    key: str
    signature: bytes


class Claim(HotMessage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A provider's demand to be paid: the last receipt of each channel, signed by the provider."""

    type: Literal["helexa.claim"] = "helexa.claim"
    version: Literal[1] = 1
    claim_id: Id
    portal: Portal
    provider: Provider
    vouchers: Annotated[tuple[Voucher, ...], Meta(min_length=1, max_length=256)]
    time_ms: Count


class SettlementNote(HotMessage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A portal's word, signed like a receipt, that an epoch of a channel is paid up to a total."""

    type: Literal["helexa.settlement"] = "helexa.settlement"
    version: Literal[1] = 1
    portal: Portal
    provider: Provider
    currency: Currency
    epoch: Ordinal
    claim_id: Id
    paid: Count
    """By this settlement."""
    settled: Count
    """In all, of this epoch's cumulative total."""
    reference: Id
    """What the payment is called where it can be looked up."""
    ledger_sequence: Count
    ledger_hash: Hash
    time_ms: Count


class SignedReceipt(Message):
    """A receipt's bytes and the portal's signature over them."""

    record: bytes
    key: str
    """The portal's public nkey."""
    signature: bytes


class SignedClaim(Message):
    """A claim's bytes and the provider's signature over them."""

    record: bytes
    key: str
    """The provider's public nkey."""
    signature: bytes


class SignedSettlement(Message):
    """A settlement note's bytes and the portal's signature over them."""

    record: bytes
    key: str
    """The portal's public nkey."""
    signature: bytes


class ForkProof(Message):
    """Two receipts of one portal that cannot both be true. Nothing else is needed to see it."""

    first: SignedReceipt
    second: SignedReceipt
