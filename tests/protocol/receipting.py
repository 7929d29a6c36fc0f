# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A portal, a provider, their prices, and receipts between them; the same bytes in each run."""

import base64
from dataclasses import dataclass, field

import msgspec
import nkeys

from helexa.protocol.messages.receipts import (
    Claim,
    Receipt,
    SettlementNote,
    SignedReceipt,
    SignedSettlement,
)
from helexa.protocol.price_list import PriceList
from helexa.protocol.pricing import Price, Usage, cost_of, split
from helexa.protocol.receipts.channel import Channel, ChannelName
from helexa.protocol.receipts.checks import Expectation
from helexa.protocol.receipts.claims import voucher_of
from helexa.protocol.receipts.signing import (
    OpenedReceipt,
    Verifier,
    encode_record,
    sign_receipt,
    sign_settlement,
)
from helexa.site.keys import Identity, verify

NOW_MS = 1_800_000_000_000
MODEL = "helexa-tiny"
PRICES = PriceList("default", {MODEL: Price("USD", prompt=150_000, completion=600_000)}, 250)
USAGE = Usage(prompt_tokens=1000, completion_tokens=500)


def identity(number: int) -> Identity:
    """Return the same key in each run."""
    raw = bytes([nkeys.PREFIX_BYTE_SEED | nkeys.PREFIX_BYTE_USER >> 5])
    raw += bytes([(nkeys.PREFIX_BYTE_USER & 31) << 3]) + bytes([number]) * 32
    checksum: int = nkeys.crc16(raw)
    return Identity(base64.b32encode(raw + checksum.to_bytes(2, "little")).decode().rstrip("="))


PORTAL, PROVIDER, STRANGER = identity(1), identity(2), identity(3)
NAME = ChannelName("default", PROVIDER.public, "USD")
VERIFIER = Verifier(verify, {"default": frozenset((PORTAL.public,))}, PROVIDER.public)


def receipt_for(request: str, usage: Usage = USAGE, /, **changes: object) -> Receipt:
    """Return a right receipt that is in no channel yet, but for `changes`."""
    cost = cost_of(PRICES.price(MODEL), usage)
    made = Receipt(
        portal="default",
        provider=PROVIDER.public,
        currency="USD",
        epoch=1,
        number=1,
        previous=bytes(32),
        request_id=request,
        attempt=1,
        model=MODEL,
        price_version=PRICES.version,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
        requests=usage.requests,
        images=usage.images,
        audio_seconds=usage.audio_seconds,
        cost=cost,
        amount=split(cost, PRICES.fee_basis_points).provider,
        cumulative=0,
        usage_hash=usage_hash(request),
        ledger_sequence=7,
        ledger_hash=bytes([9]) * 32,
        time_ms=NOW_MS,
    )
    return msgspec.structs.replace(made, **changes)


def usage_hash(request: str) -> bytes:
    """Return the hash of what the neuron has signed about a request, as if it had."""
    return request.encode().ljust(32, b".")


def expectation(request: str, usage: Usage = USAGE) -> Expectation:
    """Return what the provider knows of a request."""
    return Expectation(request, 1, MODEL, usage, usage_hash(request), PRICES)


@dataclass(slots=True)
class Issuer:
    """A portal's side of a channel."""

    channel: Channel = field(default_factory=lambda: Channel(NAME))
    signer: Identity = PORTAL

    def issue(self, receipt: Receipt) -> SignedReceipt:
        """Return `receipt` as the next of the channel."""
        placed = self.channel.extend(receipt)
        signed = sign_receipt(placed, self.signer)
        self.channel = Channel(
            self.channel.name, placed.epoch, placed.number, placed.cumulative, signed
        )
        return signed

    def renew(self) -> None:
        """Begin a new epoch."""
        self.channel = Channel(self.channel.name, self.channel.epoch + 1)


def opened(signed: SignedReceipt) -> OpenedReceipt:
    """Return a receipt with its signature checked."""
    return VERIFIER.receipt(signed)


def a_claim(*vouchers: SignedReceipt, **changes: object) -> Claim:
    """Return the provider's claim of `vouchers`, but for `changes`."""
    made = Claim(
        claim_id="claim-1",
        portal="default",
        provider=PROVIDER.public,
        vouchers=tuple(map(voucher_of, vouchers)),
        time_ms=NOW_MS,
    )
    return msgspec.structs.replace(made, **changes)


def a_note(**changes: object) -> SettlementNote:
    """Return a settlement note, but for `changes`."""
    made = SettlementNote(
        portal="default",
        provider=PROVIDER.public,
        currency="USD",
        epoch=1,
        claim_id="claim-1",
        paid=100,
        settled=100,
        reference="bank:1",
        ledger_sequence=8,
        ledger_hash=bytes([8]) * 32,
        time_ms=NOW_MS,
    )
    return msgspec.structs.replace(made, **changes)


def a_settlement(signer: Identity = PORTAL, **changes: object) -> SignedSettlement:
    """Return a signed settlement note."""
    return sign_settlement(a_note(**changes), signer)


GOLDEN = {
    "Receipt": encode_record(Channel(NAME).extend(receipt_for("gw.golden"))),
    "Claim": encode_record(a_claim(sign_receipt(receipt_for("gw.golden"), PORTAL))),
    "SettlementNote": encode_record(a_note()),
}
"""Canonical bytes as this version writes them."""
