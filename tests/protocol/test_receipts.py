# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Receipts: one encoding, a signature for one purpose, and a code for each thing that is wrong."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.protocol.receipting import (
    GOLDEN,
    NOW_MS,
    PORTAL,
    PROVIDER,
    STRANGER,
    VERIFIER,
    Issuer,
    a_claim,
    a_note,
    receipt_for,
)

from helexa.protocol.codec import Signable, pack_canonical, pack_plain, unpack_canonical
from helexa.protocol.messages.receipts import (
    Claim,
    Receipt,
    SettlementNote,
    SignedClaim,
    SignedReceipt,
    SignedSettlement,
)
from helexa.protocol.receipts.faults import (
    FAULTS_BY_CODE,
    ForeignReceiptError,
    ReceiptAlteredError,
    ReceiptError,
    ReceiptExpiredError,
    ReceiptForgedError,
    ReceiptFutureError,
    ReceiptMalformedError,
    ReceiptNonCanonicalError,
    ReceiptVersionError,
    UnknownPortalError,
)
from helexa.protocol.receipts.signing import (
    CLAIM_DOMAIN,
    CLAIM_WITHIN_MS,
    RECEIPT_DOMAIN,
    SKEW_MS,
    Verifier,
    decode_record,
    encode_record,
    receipt_hash,
    sign_claim,
    sign_receipt,
    sign_settlement,
)
from helexa.site.keys import verify

VECTORS = Path(__file__).parent / "receipt_vectors"
READ: dict[str, Callable[[bytes], bytes]] = {
    "Receipt": lambda data: encode_record(decode_record(Receipt, data)),
    "Claim": lambda data: encode_record(decode_record(Claim, data)),
    "SettlementNote": lambda data: encode_record(decode_record(SettlementNote, data)),
}
RECEIPT = receipt_for("gw.one")


def fields_of(record: bytes) -> dict[str, Signable]:
    fields = unpack_canonical(record)
    assert isinstance(fields, dict)
    return fields


@pytest.mark.parametrize("name", READ)
def test_a_record_has_the_bytes_that_it_always_had(name: str) -> None:
    kept = (VECTORS / f"{name}.msgpack").read_bytes()
    hashes: dict[str, str] = json.loads((VECTORS / "hashes.json").read_text())
    assert GOLDEN[name] == kept
    assert hashlib.sha256(kept).hexdigest() == hashes[name]
    assert READ[name](kept) == kept


def test_the_hash_and_the_signature_of_a_receipt_are_what_they_always_were() -> None:
    kept = (VECTORS / "Receipt.msgpack").read_bytes()
    hashes: dict[str, str] = json.loads((VECTORS / "hashes.json").read_text())
    assert receipt_hash(kept).hex() == hashes["receipt_hash"]
    assert PORTAL.sign(RECEIPT_DOMAIN + kept).hex() == hashes["signature"]


@pytest.mark.accepts("FEP-6")
def test_a_receipt_is_opened_with_the_public_key_alone() -> None:
    signed = sign_receipt(RECEIPT, PORTAL)
    anybody = Verifier(verify, {"default": frozenset((PORTAL.public,))})
    assert anybody.receipt(signed).record == RECEIPT


def test_each_kind_of_record_is_opened_by_whom_it_is_for() -> None:
    claim, note = a_claim(sign_receipt(RECEIPT, PORTAL)), a_note()
    assert VERIFIER.claim(sign_claim(claim, PROVIDER)).record == claim
    assert VERIFIER.settlement(sign_settlement(note, PORTAL)).record == note


@pytest.mark.accepts("LAB-13")
def test_a_record_of_an_unknown_portal_is_refused() -> None:
    signed = sign_receipt(receipt_for("gw.one", portal="other"), PORTAL)
    with pytest.raises(UnknownPortalError):
        VERIFIER.receipt(signed)


@pytest.mark.accepts("LAB-13")
def test_a_record_that_a_stranger_signed_is_forged() -> None:
    with pytest.raises(ReceiptForgedError):
        VERIFIER.receipt(sign_receipt(RECEIPT, STRANGER))
    with pytest.raises(ReceiptForgedError):
        VERIFIER.settlement(sign_settlement(a_note(), STRANGER))
    with pytest.raises(ReceiptForgedError):
        VERIFIER.claim(sign_claim(a_claim(sign_receipt(RECEIPT, PORTAL)), STRANGER))


@pytest.mark.accepts("LAB-13")
@pytest.mark.parametrize("field", [each.name for each in msgspec.structs.fields(Receipt)[5:]])
def test_a_change_of_any_field_is_seen(field: str) -> None:
    signed = sign_receipt(RECEIPT, PORTAL)
    fields = fields_of(signed.record)
    value = fields[field]
    if isinstance(value, int):
        fields[field] = value + 1
    elif isinstance(value, bytes):
        fields[field] = value[:-1] + b"?"
    else:
        assert isinstance(value, str)
        fields[field] = "0" * 64 if field == "price_version" else value + "x"
    altered = signed.model_copy(update={"record": pack_canonical(fields)})
    with pytest.raises(ReceiptAlteredError):
        VERIFIER.receipt(altered)


@pytest.mark.parametrize("place", [0, 31, 32, 63])
def test_a_change_of_the_signature_is_seen(place: int) -> None:
    signed = sign_receipt(RECEIPT, PORTAL)
    wrong = bytearray(signed.signature)
    wrong[place] ^= 1
    for signature in (bytes(wrong), b"", signed.signature[:-1], signed.signature + b"\0"):
        with pytest.raises(ReceiptAlteredError):
            VERIFIER.receipt(signed.model_copy(update={"signature": signature}))


def test_a_signature_for_one_purpose_is_good_for_no_other() -> None:
    record = encode_record(RECEIPT)
    stolen = SignedReceipt(
        record=record, key=PORTAL.public, signature=PORTAL.sign(CLAIM_DOMAIN + record)
    )
    with pytest.raises(ReceiptAlteredError):
        VERIFIER.receipt(stolen)
    plain = SignedReceipt(record=record, key=PORTAL.public, signature=PORTAL.sign(record))
    with pytest.raises(ReceiptAlteredError):
        VERIFIER.receipt(plain)


def test_one_kind_of_record_is_no_other() -> None:
    signed = sign_receipt(RECEIPT, PORTAL)
    note = SignedSettlement(record=signed.record, key=signed.key, signature=signed.signature)
    claim = SignedClaim(record=signed.record, key=signed.key, signature=signed.signature)
    with pytest.raises(ReceiptVersionError):
        VERIFIER.settlement(note)
    with pytest.raises(ReceiptVersionError):
        VERIFIER.claim(claim)


@pytest.mark.accepts("LAB-13")
def test_a_record_for_another_provider_is_foreign() -> None:
    signed = sign_receipt(receipt_for("gw.one", provider=STRANGER.public), PORTAL)
    with pytest.raises(ForeignReceiptError):
        VERIFIER.receipt(signed)


@pytest.mark.accepts("LAB-13")
def test_a_receipt_expires_and_does_not_come_from_later() -> None:
    signed = sign_receipt(RECEIPT, PORTAL)
    for now_ms in (NOW_MS - SKEW_MS, NOW_MS, NOW_MS + CLAIM_WITHIN_MS):
        VERIFIER.receipt(signed, now_ms=now_ms)
    with pytest.raises(ReceiptExpiredError):
        VERIFIER.receipt(signed, now_ms=NOW_MS + CLAIM_WITHIN_MS + 1)
    with pytest.raises(ReceiptFutureError):
        VERIFIER.receipt(signed, now_ms=NOW_MS - SKEW_MS - 1)


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"version": "1"}, {"type": "helexa.receipts"}, {"type": 1}]
)
def test_a_version_that_is_not_known_is_named_so(change: dict[str, Signable]) -> None:
    record = pack_canonical(fields_of(encode_record(RECEIPT)) | change)
    with pytest.raises(ReceiptVersionError):
        decode_record(Receipt, record)


@pytest.mark.parametrize(
    "change",
    [
        {"number": 0},
        {"number": True},
        {"number": "1"},
        {"number": 2**63},
        {"amount": -1},
        {"amount": 1.0},
        {"previous": b"x" * 31},
        {"previous": "x" * 32},
        {"previous": "A" * 43 + "="},
        {"currency": "usd"},
        {"provider": "U"},
        {"portal": "a b"},
        {"portal": "default\n"},
        {"request_id": ""},
        {"price_version": "x"},
        {"model": None},
        {"extra": 1},
    ],
)
def test_a_record_with_a_wrong_field_is_malformed(change: dict[str, object]) -> None:
    held: dict[str, object] = {**fields_of(encode_record(RECEIPT)), **change}
    with pytest.raises(ReceiptMalformedError):
        decode_record(Receipt, pack_plain(dict(sorted(held.items()))))


@pytest.mark.parametrize("field", [each.name for each in msgspec.structs.fields(Receipt)])
def test_a_record_without_one_of_its_fields_is_refused(field: str) -> None:
    fields = fields_of(encode_record(RECEIPT))
    del fields[field]
    with pytest.raises(ReceiptError):
        decode_record(Receipt, pack_canonical(fields))


def test_another_encoding_of_a_record_is_refused() -> None:
    record = encode_record(RECEIPT)
    fields = fields_of(record)
    backwards = pack_plain(dict(reversed(fields.items())))
    at = record.index(b"\xa7attempt\x01")
    longer = record[:at] + b"\xa7attempt\xcc\x01" + record[at + 9 :]
    twice = bytearray(record + b"\xa7attempt\x01")
    twice[2] += 1
    for other in (backwards, longer, bytes(twice)):
        with pytest.raises(ReceiptNonCanonicalError):
            decode_record(Receipt, other)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x90", b"text", b"\x91" * 2000])
def test_bytes_that_are_no_record_are_malformed(data: bytes) -> None:
    with pytest.raises(ReceiptMalformedError):
        decode_record(Receipt, data)


def test_bytes_after_a_record_are_refused() -> None:
    with pytest.raises(ReceiptError):
        decode_record(Receipt, encode_record(RECEIPT) + b"\x00")


def test_every_reason_has_a_code_of_its_own() -> None:
    kinds = list(FAULTS_BY_CODE.values())
    assert len(kinds) == len({kind.code for kind in kinds})


def test_a_receipt_is_about_as_large_as_it_was() -> None:
    assert len(Issuer().issue(RECEIPT).record) < 800


def write_vectors() -> None:
    VECTORS.mkdir()
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in GOLDEN.items()}
    hashes["receipt_hash"] = receipt_hash(GOLDEN["Receipt"]).hex()
    hashes["signature"] = PORTAL.sign(RECEIPT_DOMAIN + GOLDEN["Receipt"]).hex()
    for name, data in GOLDEN.items():
        (VECTORS / f"{name}.msgpack").write_bytes(data)
    (VECTORS / "hashes.json").write_text(json.dumps(hashes, indent=2) + "\n")


if __name__ == "__main__":
    write_vectors()
