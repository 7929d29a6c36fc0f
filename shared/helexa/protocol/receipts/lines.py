# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A receipt as a line of JSON: for people, with the signed bytes that prove what it says."""

import base64
import binascii
import json

import msgspec

from helexa.protocol.messages.receipts import Receipt, SignedReceipt
from helexa.protocol.money import format_amount
from helexa.protocol.receipts.faults import ReceiptAlteredError, ReceiptMalformedError
from helexa.protocol.receipts.signing import decode_record

AMOUNTS = ("cost", "amount", "cumulative")


def shown(receipt: Receipt) -> dict[str, object]:
    """Return the fields of `receipt` as JSON shows them: amounts as decimal text, hashes in hex."""
    fields: dict[str, object] = {
        name: value.hex() if isinstance(value, bytes) else value
        for name, value in msgspec.structs.asdict(receipt).items()
    }
    return fields | {name: format_amount(getattr(receipt, name)) for name in AMOUNTS}


def write_line(signed: SignedReceipt) -> str:
    """Return one line, without its end.

    Raises:
        ReceiptError: the bytes are no receipt.
    """
    proof = {
        "record": base64.b64encode(signed.record).decode(),
        "key": signed.key,
        "signature": base64.b64encode(signed.signature).decode(),
    }
    return json.dumps(shown(decode_record(Receipt, signed.record)) | proof)


def read_line(text: str) -> SignedReceipt:
    """Return the receipt that `write_line` wrote, whose signature nobody has checked yet.

    The fields that people read may be left out, and others may be added.

    Raises:
        ReceiptAlteredError: a field that people read is not what the signed bytes say.
        ReceiptError: it is none; the class says why.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ReceiptMalformedError("the line is not JSON") from error
    if not isinstance(fields, dict):
        raise ReceiptMalformedError("the line is not a JSON object")
    signed = SignedReceipt(
        record=_bytes(fields, "record"),
        key=_text(fields, "key"),
        signature=_bytes(fields, "signature"),
    )
    for name, value in shown(decode_record(Receipt, signed.record)).items():
        # Equal to Python is not enough: `true` is no 1.
        if name in fields and (type(fields[name]), fields[name]) != (type(value), value):
            raise ReceiptAlteredError(
                f"{name} is {value!r} in the signed bytes, not {fields[name]!r}", param=name
            )
    return signed


def _text(fields: dict[str, object], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise ReceiptMalformedError(f"the line has no {name}", param=name)
    return value


def _bytes(fields: dict[str, object], name: str) -> bytes:
    try:
        return base64.b64decode(_text(fields, name), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ReceiptMalformedError(f"{name} is not base64", param=name) from error
