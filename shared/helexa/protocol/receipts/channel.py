# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The chain of receipts between a portal and a provider, in one currency."""

from dataclasses import dataclass, replace

import msgspec

from helexa.protocol.messages.receipts import ForkProof, Receipt, SignedReceipt
from helexa.protocol.money import checked_amount
from helexa.protocol.receipts.checks import Expectation, check_work
from helexa.protocol.receipts.faults import (
    ForeignReceiptError,
    ReceiptError,
    ReceiptForkedError,
    ReceiptGapError,
    ReceiptReplayedError,
    ReceiptTotalError,
)
from helexa.protocol.receipts.signing import FIRST, OpenedReceipt, Verifier, receipt_hash


@dataclass(frozen=True, slots=True)
class ChannelName:
    """Whose channel it is, and in which currency."""

    portal: str
    provider: str
    currency: str


@dataclass(frozen=True, slots=True)
class Channel:
    """Where a channel stands: how far its newest epoch has come, and the receipt that says so."""

    name: ChannelName
    epoch: int = 1
    number: int = 0
    cumulative: int = 0
    last: SignedReceipt | None = None

    @property
    def head(self) -> bytes:
        """What the next receipt must name as the one before."""
        return FIRST if self.last is None else receipt_hash(self.last.record)

    def accept(
        self,
        opened: OpenedReceipt,
        expected: Expectation | None,
        earlier: SignedReceipt | None = None,
    ) -> "Channel":
        """Return the channel after one more receipt.

        Args:
            opened: The receipt, its signature checked.
            expected: What is known of its work; `None`: the chain alone is checked.
            earlier: The receipt of the same epoch and number that is kept already, if there is one.

        Raises:
            ReceiptReplayedError: it is kept already, or older than what is kept.
            ReceiptForkedError: the portal has signed another in its place; with the proof.
            ReceiptGapError: one before it is missing.
            ReceiptTotalError: its total is wrong.
            ReceiptError: it is not what was expected; the class says why.
        """
        receipt = opened.record
        if name_of(receipt) != self.name:
            raise ForeignReceiptError("the receipt is of another channel")
        self._check_place(opened, earlier)
        before = self if receipt.epoch == self.epoch else Channel(self.name, receipt.epoch)
        _check_link(before, opened)
        if expected is not None:
            check_work(receipt, expected)
        return replace(
            before,
            number=receipt.number,
            cumulative=receipt.cumulative,
            last=opened.signed,
        )

    def extend(self, receipt: Receipt) -> Receipt:
        """Return `receipt` as the next of this channel; the portal then signs it.

        Raises:
            AmountOverflowError: the total is more than can be booked; a new epoch begins anew.
        """
        return msgspec.structs.replace(
            receipt,
            portal=self.name.portal,
            provider=self.name.provider,
            currency=self.name.currency,
            epoch=self.epoch,
            number=self.number + 1,
            previous=self.head,
            cumulative=checked_amount(self.cumulative + receipt.amount),
        )

    def _check_place(self, opened: OpenedReceipt, earlier: SignedReceipt | None) -> None:
        receipt = opened.record
        if (receipt.epoch, receipt.number) <= (self.epoch, self.number):
            if earlier is not None and earlier.record != opened.signed.record:
                raise ReceiptForkedError(ForkProof(first=earlier, second=opened.signed))
            raise ReceiptReplayedError
        if receipt.number != 1 + (self.number if receipt.epoch == self.epoch else 0):
            raise ReceiptGapError


def name_of(receipt: Receipt) -> ChannelName:
    """Return the channel that `receipt` is of."""
    return ChannelName(receipt.portal, receipt.provider, receipt.currency)


def is_fork(proof: ForkProof, verifier: Verifier) -> bool:
    """Whether one portal has signed both receipts, and they cannot both be true.

    Either they have the same place in one channel, or the second follows the first by its number
    but names another as the one before.
    """
    try:
        first = verifier.receipt(proof.first)
        second = verifier.receipt(proof.second)
    except ReceiptError:
        return False
    one, other = first.record, second.record
    if (name_of(one), one.epoch) != (name_of(other), other.epoch):
        return False
    if one.number == other.number:
        return first.signed.record != second.signed.record
    follows = other.number == one.number + 1
    return follows and other.previous != receipt_hash(first.signed.record)


def _check_link(before: Channel, opened: OpenedReceipt) -> None:
    receipt = opened.record
    if receipt.previous != before.head:
        if before.last is None:
            raise ReceiptGapError("the first receipt of an epoch names one before it")
        raise ReceiptForkedError(ForkProof(first=before.last, second=opened.signed))
    if receipt.cumulative != before.cumulative + receipt.amount:
        raise ReceiptTotalError
