# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The provider's book: receipts in, claims out, and whom to work for meanwhile.

What a method returned is on the disk. Doing anything twice is the same as doing it once.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from helexa.portal.provider.exposure import (
    NO_CREDIT,
    CreditTerms,
    Standing,
    cap_of,
    check_room,
)
from helexa.portal.provider.files import open_for_writing, transaction
from helexa.portal.provider.tables import Tables
from helexa.portal.provider.work import Work, WorkId, earned_by, expected_of, work_id_of
from helexa.protocol.errors import NotFoundError
from helexa.protocol.messages.receipts import (
    Claim,
    Receipt,
    SettlementNote,
    SignedClaim,
    SignedReceipt,
    SignedSettlement,
)
from helexa.protocol.messages.usage import SignedUsage, read_usage
from helexa.protocol.naming import random_id
from helexa.protocol.price_list import PriceList
from helexa.protocol.pricing import UnpricedError
from helexa.protocol.receipts.channel import ChannelName, name_of
from helexa.protocol.receipts.checks import check_work
from helexa.protocol.receipts.claims import EpochName, settled_after, voucher_of
from helexa.protocol.receipts.faults import (
    AlreadyClaimedError,
    NothingDueError,
    ReceiptError,
    ReceiptForkedError,
    ReceiptPriceError,
    ReceiptReplayedError,
    ReceiptUsageError,
)
from helexa.protocol.receipts.signing import (
    OpenedReceipt,
    Verifier,
    decode_record,
    sign_claim,
)
from helexa.site.keys import Identity, verify


@dataclass(frozen=True, slots=True)
class Accepted:
    """Where a receipt was kept. The same for each time that it came."""

    channel: ChannelName
    epoch: int
    number: int
    cumulative: int


class Book:
    """The book of one provider, open for writing. For one thread at a time."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        identity: Identity,
        portals: Mapping[str, frozenset[str]],
        terms: Mapping[str, CreditTerms],
    ) -> None:
        """Keep the book of `identity`.

        Args:
            connection: From `open_for_writing`.
            identity: The operator's key: receipts are for it, claims are signed with it.
            portals: The public nkeys of each portal that is known.
            terms: By currency; portals have no credit in others.
        """
        self._connection = connection
        self._identity = identity
        self._tables = Tables(connection, identity.public)
        self._verifier = Verifier(verify, portals, identity.public)
        self._terms = terms

    def agree(self, prices: PriceList) -> None:
        """Work at `prices` from now on; at those agreed before as well, for what was begun."""
        self._tables.add_prices(prices)

    def begin(self, work: Work, now_ms: int) -> None:
        """Count on what an attempt may earn.

        Raises:
            ExposureError: its portal owes too much for more work.
            ReceiptPriceError: its prices were not agreed.
            UnpricedError: they have none for its model.
        """
        currency = self._prices(work).price(work.model).currency
        with transaction(self._connection):
            if self._tables.work(work.work_id) or self._tables.has_receipt(work.work_id):
                return
            standing = self._tables.standing(work.work_id.portal, currency)
            check_room(self._terms_of(currency), standing, work.estimate, now_ms)
            self._tables.put_work(work, currency)

    def end(self, signed: SignedUsage, *, unpaid_tokens: int = 0) -> None:
        """Count on what an attempt has earned, by what its neuron has signed.

        Args:
            signed: The usage record; the caller has checked its signature.
            unpaid_tokens: Completion tokens that came too long after the client had gone.

        Raises:
            NotFoundError: it was not begun.
            MalformedError: this is no usage record.
            UnpricedError: something was counted that has no price.
        """
        record = read_usage(signed.record)
        work_id = work_id_of(record)
        with transaction(self._connection):
            work = self._tables.work(work_id)
            if work is None:
                if self._tables.has_receipt(work_id):
                    return
                raise NotFoundError("the attempt was not begun")
            prices = self._prices(work)
            earned = earned_by(work, record, prices)
            ended = replace(work, estimate=earned, usage=signed.record, unpaid_tokens=unpaid_tokens)
            self._tables.put_work(ended, prices.price(work.model).currency)

    def abandon(self, work_id: WorkId) -> None:
        """Count no longer on an attempt that came to nothing."""
        self._tables.remove_work(work_id)

    def accept(
        self, signed: SignedReceipt, now_ms: int, *, under_protest: bool = False
    ) -> Accepted:
        """Keep a receipt.

        Args:
            signed: The receipt.
            now_ms: The time.
            under_protest: Keep it also if it is not what the work was worth. A portal cannot
                replace a receipt without a fork, so that a refused one stops its channel: an
                operator then takes what is certified, and the reason is kept.

        Raises:
            ReceiptError: it is refused, and nothing changes; the class says why. A fork is kept as
                a proof, and ends the portal's credit.
        """
        receipt = decode_record(Receipt, signed.record)
        place = EpochName(name_of(receipt), receipt.epoch)
        earlier = self._tables.receipt_at(place, receipt.number)
        if earlier != signed:
            opened = self._verifier.receipt(signed, now_ms=now_ms)
            try:
                with transaction(self._connection):
                    self._take(opened, earlier, under_protest=under_protest)
            except ReceiptForkedError as fork:
                self._tables.add_fork(receipt.portal, fork.proof)
                raise
        return Accepted(place.channel, receipt.epoch, receipt.number, receipt.cumulative)

    def claim(self, portal: str, now_ms: int) -> SignedClaim:
        """Return a claim of all that a portal owes: the last receipt of each of its channels.

        Raises:
            NothingDueError: it owes nothing.
            AlreadyClaimedError: it owes nothing that was not claimed before.
        """
        with transaction(self._connection):
            dues = self._tables.dues(portal)
            if not dues:
                raise NothingDueError
            if all(map(self._tables.is_claimed, dues)):
                raise AlreadyClaimedError
            claim = Claim(
                claim_id=random_id(),
                portal=portal,
                provider=self._identity.public,
                vouchers=tuple(voucher_of(due.last) for due in dues),
                time_ms=now_ms,
            )
            signed = sign_claim(claim, self._identity)
            self._tables.add_claim(self._verifier.claim(signed), dues)
        return signed

    def settle(self, signed: SignedSettlement) -> None:
        """Take a portal's word that it has paid.

        Raises:
            ReceiptError: it is refused, and nothing changes; the class says why.
        """
        note = decode_record(SettlementNote, signed.record)
        channel = ChannelName(note.portal, note.provider, note.currency)
        epoch = EpochName(channel, note.epoch)
        if self._tables.settlement_at(epoch, note.settled) == signed:
            return
        opened = self._verifier.settlement(signed)
        with transaction(self._connection):
            earned, settled = self._tables.epoch_totals(epoch)
            settled_after(opened, earned=earned, settled=settled)
            self._tables.add_settlement(opened, epoch)

    def standing(self, portal: str, currency: str) -> Standing:
        """Return what a portal owes, and how it has behaved."""
        return self._tables.standing(portal, currency)

    def cap(self, portal: str, currency: str, now_ms: int) -> int:
        """Return how much a portal may owe."""
        return cap_of(self._terms_of(currency), self.standing(portal, currency), now_ms)

    def receipts(self, portal: str | None = None) -> Iterator[tuple[SignedReceipt, bool]]:
        """Yield each receipt, and whether it is settled."""
        return self._tables.receipts(portal)

    def _take(
        self, opened: OpenedReceipt, earlier: SignedReceipt | None, *, under_protest: bool
    ) -> None:
        receipt = opened.record
        work_id = WorkId(receipt.portal, receipt.request_id, receipt.attempt)
        self._tables.channel(receipt.portal, receipt.currency).accept(opened, None, earlier)
        if self._tables.has_receipt(work_id):
            raise ReceiptReplayedError("the attempt has its receipt")
        try:
            self._check(work_id, receipt)
        except (ReceiptError, UnpricedError) as error:
            if not under_protest:
                raise
            self._tables.add_protest(receipt, error.code)
        self._tables.add_receipt(opened)
        self._tables.remove_work(work_id)

    def _check(self, work_id: WorkId, receipt: Receipt) -> None:
        work = self._tables.work(work_id)
        expected = expected_of(work, self._prices(work), receipt) if work else None
        if expected is None:
            raise ReceiptUsageError
        check_work(receipt, expected)

    def _prices(self, work: Work) -> PriceList:
        prices = self._tables.prices(work.price_version)
        if prices is None or prices.portal != work.work_id.portal:
            raise ReceiptPriceError("these prices were not agreed")
        return prices

    def _terms_of(self, currency: str) -> CreditTerms:
        return self._terms.get(currency, NO_CREDIT)


@contextlib.contextmanager
def open_book(
    directory: Path,
    identity: Identity,
    portals: Mapping[str, frozenset[str]],
    terms: Mapping[str, CreditTerms],
) -> Iterator[Book]:
    """Open the book in `directory`; it is made if there is none.

    Raises:
        BookError: another process writes it, or it is of another version.
    """
    with open_for_writing(directory) as connection:
        yield Book(connection, identity, portals, terms)
