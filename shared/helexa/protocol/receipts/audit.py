# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Receipts checked by somebody who has nothing but them and the portal's public key."""

from collections import defaultdict
from dataclasses import dataclass, field

from helexa.protocol.messages.receipts import Receipt, SignedReceipt
from helexa.protocol.price_list import PriceList
from helexa.protocol.receipts.channel import Channel, name_of
from helexa.protocol.receipts.checks import check_price
from helexa.protocol.receipts.claims import EpochName
from helexa.protocol.receipts.lines import read_line
from helexa.protocol.receipts.signing import OpenedReceipt, Verifier, Verify, decode_record


@dataclass(slots=True)
class Audit:
    """Checks receipts, and those that follow each other also against each other.

    All that was checked is kept, about 2 KB a receipt.
    """

    verify: Verify
    keys: frozenset[str]
    """The public nkeys that may have signed."""
    provider: str | None = None
    """Whom all must be for."""
    prices: PriceList | None = None
    """What all must be made by."""
    _seen: defaultdict[EpochName, dict[int, OpenedReceipt]] = field(
        default_factory=lambda: defaultdict(dict)
    )

    def check(self, line: str) -> Receipt:
        """Return the receipt in a line of JSON.

        Raises:
            ReceiptError: it is refused; the class says why.
            UnpricedError: the prices have none for its model.
        """
        return self.check_signed(read_line(line))

    def check_signed(self, signed: SignedReceipt) -> Receipt:
        """Return a receipt.

        Raises:
            ReceiptError: it is refused; the class says why.
            UnpricedError: the prices have none for its model.
        """
        portal = decode_record(Receipt, signed.record).portal
        opened = Verifier(self.verify, {portal: self.keys}, self.provider).receipt(signed)
        self._check_place(opened)
        if self.prices is not None:
            check_price(opened.record, self.prices)
        return opened.record

    def _check_place(self, opened: OpenedReceipt) -> None:
        receipt = opened.record
        epoch = EpochName(name_of(receipt), receipt.epoch)
        seen, number = self._seen[epoch], receipt.number
        if same := seen.get(number):
            _channel(epoch, number, same).accept(opened, None, same.signed)
        if number == 1 or number - 1 in seen:
            _channel(epoch, number - 1, seen.get(number - 1)).accept(opened, None)
        if following := seen.get(number + 1):
            _channel(epoch, number, opened).accept(following, None)
        seen[number] = opened


def _channel(epoch: EpochName, number: int, last: OpenedReceipt | None) -> Channel:
    """Return the channel as it stood when `last` was its newest receipt."""
    if last is None:
        return Channel(epoch.channel, epoch.epoch)
    return Channel(epoch.channel, epoch.epoch, number, last.record.cumulative, last.signed)
