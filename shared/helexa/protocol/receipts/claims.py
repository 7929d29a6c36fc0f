# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a claim is worth, and how far a settlement note settles."""

from collections.abc import Mapping
from dataclasses import dataclass

from helexa.protocol.messages.receipts import Claim, SignedReceipt, Voucher
from helexa.protocol.receipts.channel import ChannelName, name_of
from helexa.protocol.receipts.faults import (
    ForeignReceiptError,
    ReceiptGapError,
    ReceiptOverpaidError,
    ReceiptReplayedError,
    ReceiptTotalError,
)
from helexa.protocol.receipts.signing import OpenedClaim, OpenedSettlement, Verifier


@dataclass(frozen=True, slots=True)
class EpochName:
    """One epoch of a channel: what is settled is counted for each."""

    channel: ChannelName
    epoch: int


def voucher_of(signed: SignedReceipt) -> Voucher:
    """Return a receipt as a claim carries it."""
    return Voucher(record=signed.record, key=signed.key, signature=signed.signature)


def dues(
    claim: OpenedClaim, settled: Mapping[EpochName, int], verifier: Verifier, now_ms: int
) -> dict[EpochName, int]:
    """Return what a portal owes for each epoch that a claim shows the last receipt of.

    Args:
        claim: With its signature checked.
        settled: What was settled of each epoch before.
        verifier: With this portal's keys.
        now_ms: The time.

    Raises:
        ReceiptError: a voucher is no receipt of this portal for this provider, or too old.
    """
    found: dict[EpochName, int] = {}
    for voucher in claim.record.vouchers:
        signed = SignedReceipt(record=voucher.record, key=voucher.key, signature=voucher.signature)
        receipt = verifier.receipt(signed, now_ms=now_ms).record
        _check_owner(claim.record, receipt.portal, receipt.provider)
        epoch = EpochName(name_of(receipt), receipt.epoch)
        due = max(0, receipt.cumulative - settled.get(epoch, 0))
        # Of two vouchers of one epoch the later has the earlier's amount in it.
        found[epoch] = max(due, found.get(epoch, 0))
    return found


def settled_after(note: OpenedSettlement, *, earned: int, settled: int) -> int:
    """Return what is settled of an epoch after `note`.

    Args:
        note: With its signature checked.
        earned: The epoch's cumulative total, as the provider keeps it.
        settled: What was settled of it before.

    Raises:
        ReceiptReplayedError: no more is settled by it than before.
        ReceiptGapError: a note before it is missing.
        ReceiptTotalError: what it says was paid is not the difference.
        ReceiptOverpaidError: more would be settled than was earned.
    """
    after = note.record.settled
    if after <= settled:
        raise ReceiptReplayedError
    if after - note.record.paid > settled:
        raise ReceiptGapError("a settlement before this one is missing")
    if after - settled != note.record.paid:
        raise ReceiptTotalError("what was paid is not the difference of what is settled")
    if after > earned:
        raise ReceiptOverpaidError("more would be settled than was earned")
    return after


def _check_owner(claim: Claim, portal: str, provider: str) -> None:
    if (portal, provider) != (claim.portal, claim.provider):
        raise ForeignReceiptError("a receipt in the claim is of another portal or provider")
