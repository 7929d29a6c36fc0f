# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Records to canonical bytes, signatures over them, and back.

A signature is over the bytes as they are, after a domain, so that it is good for one kind of record
alone. Who signs and who verifies is given: keys and their library belong to the site.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import msgspec

from helexa.protocol.codec import Signable, pack_canonical, unpack, unpack_plain
from helexa.protocol.errors import MalformedError
from helexa.protocol.messages.receipts import (
    Claim,
    Receipt,
    SettlementNote,
    SignedClaim,
    SignedReceipt,
    SignedSettlement,
)
from helexa.protocol.messages.usage import USAGE_DOMAIN
from helexa.protocol.receipts.faults import (
    ForeignReceiptError,
    ReceiptAlteredError,
    ReceiptExpiredError,
    ReceiptForgedError,
    ReceiptFutureError,
    ReceiptMalformedError,
    ReceiptNonCanonicalError,
    ReceiptVersionError,
    UnknownPortalError,
)

RECEIPT_DOMAIN = b"helexa-receipt-v1\0"
CLAIM_DOMAIN = b"helexa-claim-v1\0"
SETTLEMENT_DOMAIN = b"helexa-settlement-v1\0"
FIRST = bytes(32)
"""What the first receipt of an epoch names as the one before."""
CLAIM_WITHIN_MS = 365 * 86_400_000
"""A receipt that is older can no longer be claimed."""
SKEW_MS = 30_000
"""By how much clocks of two operators may differ."""

_TYPES: dict[type[object], str] = {
    Receipt: "helexa.receipt",
    Claim: "helexa.claim",
    SettlementNote: "helexa.settlement",
}
RecordT = TypeVar("RecordT", Receipt, Claim, SettlementNote)
SignedT = TypeVar("SignedT", SignedReceipt, SignedClaim, SignedSettlement)

Verify = Callable[[str, bytes, bytes], bool]
"""Whether the owner of a public nkey has signed bytes; `helexa.site.keys.verify` is one."""


class Signer(Protocol):
    """Who signs; `helexa.site.keys.Identity` is one."""

    @property
    def public(self) -> str:
        """The public nkey."""

    def sign(self, data: bytes) -> bytes:
        """Return the signature over `data`."""


def encode_record(record: Receipt | Claim | SettlementNote) -> bytes:
    """Return the canonical bytes of `record`."""
    fields: dict[str, Signable] = msgspec.structs.asdict(record)
    if isinstance(record, Claim):
        fields["vouchers"] = [msgspec.structs.asdict(each) for each in record.vouchers]
    return pack_canonical(fields)


def decode_record(kind: type[RecordT], data: bytes) -> RecordT:
    """Return the record of type `kind` in `data`, which nobody has vouched for yet.

    Raises:
        ReceiptMalformedError: it is not one.
        ReceiptVersionError: it is of a type or version that is not known here.
        ReceiptNonCanonicalError: it is another encoding of one.
    """
    try:
        fields = unpack_plain(data)
    except MalformedError as error:
        raise ReceiptMalformedError(error.message) from error
    if not isinstance(fields, dict):
        raise ReceiptMalformedError("a record is a map")
    if (fields.get("type"), fields.get("version")) != (_TYPES[kind], 1):
        raise ReceiptVersionError
    try:
        record = unpack(kind, data)
    except MalformedError as error:
        raise ReceiptMalformedError(error.message, param=error.param) from error
    if encode_record(record) != data:
        raise ReceiptNonCanonicalError
    return record


def receipt_hash(record: bytes) -> bytes:
    """Return the hash by which the next receipt names the one of these bytes."""
    return hashlib.sha256(RECEIPT_DOMAIN + record).digest()


def usage_hash(record: bytes) -> bytes:
    """Return the hash by which a receipt names the usage record of these bytes."""
    return hashlib.sha256(USAGE_DOMAIN + record).digest()


def sign_receipt(receipt: Receipt, signer: Signer) -> SignedReceipt:
    """Return `receipt` as its portal certifies it."""
    return _sealed(SignedReceipt, RECEIPT_DOMAIN, encode_record(receipt), signer)


def sign_claim(claim: Claim, signer: Signer) -> SignedClaim:
    """Return `claim` as its provider makes it."""
    return _sealed(SignedClaim, CLAIM_DOMAIN, encode_record(claim), signer)


def sign_settlement(note: SettlementNote, signer: Signer) -> SignedSettlement:
    """Return `note` as its portal certifies it."""
    return _sealed(SignedSettlement, SETTLEMENT_DOMAIN, encode_record(note), signer)


def _sealed(kind: type[SignedT], domain: bytes, record: bytes, signer: Signer) -> SignedT:
    return kind(record=record, key=signer.public, signature=signer.sign(domain + record))


@dataclass(frozen=True, slots=True)
class Opened(Generic[RecordT, SignedT]):
    """A record whose signature was checked, and the bytes that prove it."""

    record: RecordT
    signed: SignedT


OpenedReceipt = Opened[Receipt, SignedReceipt]
OpenedClaim = Opened[Claim, SignedClaim]
OpenedSettlement = Opened[SettlementNote, SignedSettlement]


@dataclass(frozen=True, slots=True)
class Verifier:
    """Checks signed records against the keys that are known."""

    verify: Verify
    portals: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The public nkeys of each portal: its own, and those it had before."""
    provider: str | None = None
    """For whom records must be; `None`: for anybody."""

    def receipt(self, signed: SignedReceipt, *, now_ms: int | None = None) -> OpenedReceipt:
        """Return a receipt that its portal has signed.

        Args:
            signed: The receipt.
            now_ms: The time, if its age matters.

        Raises:
            ReceiptError: it is none; the class says why.
        """
        receipt = decode_record(Receipt, signed.record)
        self._check_portal(receipt, signed, RECEIPT_DOMAIN)
        if now_ms is not None:
            check_time(receipt.time_ms, now_ms, within_ms=CLAIM_WITHIN_MS)
        return Opened(receipt, signed)

    def settlement(self, signed: SignedSettlement) -> OpenedSettlement:
        """Return a settlement note that its portal has signed.

        Raises:
            ReceiptError: it is none; the class says why.
        """
        note = decode_record(SettlementNote, signed.record)
        self._check_portal(note, signed, SETTLEMENT_DOMAIN)
        return Opened(note, signed)

    def claim(self, signed: SignedClaim) -> OpenedClaim:
        """Return a claim that its provider has signed; its vouchers are not looked at.

        Raises:
            ReceiptError: it is none; the class says why.
        """
        claim = decode_record(Claim, signed.record)
        if signed.key != claim.provider:
            raise ReceiptForgedError
        self._check_signature(claim.provider, signed, CLAIM_DOMAIN)
        return Opened(claim, signed)

    def _check_portal(
        self,
        record: Receipt | SettlementNote,
        signed: SignedReceipt | SignedSettlement,
        domain: bytes,
    ) -> None:
        keys = self.portals.get(record.portal)
        if keys is None:
            raise UnknownPortalError(f"nothing is known of the portal {record.portal!r}")
        if signed.key not in keys:
            raise ReceiptForgedError
        self._check_signature(record.provider, signed, domain)

    def _check_signature(
        self, provider: str, signed: SignedReceipt | SignedClaim | SignedSettlement, domain: bytes
    ) -> None:
        if not self.verify(signed.key, domain + signed.record, signed.signature):
            raise ReceiptAlteredError
        if self.provider is not None and provider != self.provider:
            raise ForeignReceiptError


def check_time(time_ms: int, now_ms: int, *, within_ms: int) -> None:
    """Refuse what is too old or not yet.

    Raises:
        ReceiptExpiredError: it is older than `within_ms`.
        ReceiptFutureError: it is from more than `SKEW_MS` after now.
    """
    if now_ms - time_ms > within_ms:
        raise ReceiptExpiredError
    if time_ms - now_ms > SKEW_MS:
        raise ReceiptFutureError
