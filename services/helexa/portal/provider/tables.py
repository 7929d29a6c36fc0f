# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The rows of the provider's book as what they stand for."""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any, cast

from helexa.portal.provider.exposure import Standing
from helexa.portal.provider.work import Work, WorkId
from helexa.protocol.codec import pack
from helexa.protocol.messages.receipts import ForkProof, Receipt, SignedReceipt, SignedSettlement
from helexa.protocol.price_list import PriceList
from helexa.protocol.receipts.channel import Channel, ChannelName
from helexa.protocol.receipts.claims import EpochName
from helexa.protocol.receipts.signing import OpenedClaim, OpenedReceipt, OpenedSettlement

Row = tuple[Any, ...]
"""As SQLite gives it; the tables are STRICT, so that a column has the type that it says."""


@dataclass(frozen=True, slots=True)
class Due:
    """An epoch of a channel of which not all is settled, and the receipt that proves it."""

    epoch: EpochName
    cumulative: int
    settled: int
    last: SignedReceipt


class Tables:
    """The book's tables over one connection; the caller makes the transactions."""

    def __init__(self, connection: sqlite3.Connection, provider: str = "") -> None:
        """Read and write as `provider`, the public nkey of the operator; receipts name it."""
        self._connection = connection
        self._provider = provider
        self._prices: dict[str, PriceList] = {}
        """Those that were read; a version never means others."""

    def prices(self, version: str) -> PriceList | None:
        """Return the agreed prices of a version."""
        if version not in self._prices:
            row = self._one("SELECT encoded FROM prices WHERE version = ?", version)
            if row is None:
                return None
            self._prices[version] = PriceList.decode(row[0])
        return self._prices[version]

    def add_prices(self, prices: PriceList) -> None:
        """Keep `prices`."""
        values = (prices.version, prices.portal, prices.encoded)
        self._run("INSERT OR IGNORE INTO prices VALUES (?, ?, ?)", *values)

    def work(self, work_id: WorkId) -> Work | None:
        """Return an attempt that has no receipt."""
        row = self._one(
            "SELECT portal, request_id, attempt, model, price_version, estimate, images, "
            "audio_seconds, usage, unpaid_tokens FROM work "
            "WHERE portal = ? AND request_id = ? AND attempt = ?",
            *astuple(work_id),
        )
        return Work(WorkId(*row[:3]), *row[3:]) if row else None

    def put_work(self, work: Work, currency: str) -> None:
        """Keep an attempt, in place of what was known of it."""
        counts = (work.estimate, work.images, work.audio_seconds)
        self._run(
            "INSERT OR REPLACE INTO work VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(*astuple(work.work_id), work.model, currency, work.price_version, *counts),
            *(work.usage, work.unpaid_tokens),
        )

    def remove_work(self, work_id: WorkId) -> None:
        """Forget an attempt."""
        self._run(
            "DELETE FROM work WHERE portal = ? AND request_id = ? AND attempt = ?",
            *astuple(work_id),
        )

    def has_receipt(self, work_id: WorkId) -> bool:
        """Whether an attempt has its receipt."""
        row = self._one(
            "SELECT 1 FROM receipt WHERE portal = ? AND request_id = ? AND attempt = ?",
            *astuple(work_id),
        )
        return row is not None

    def channel(self, portal: str, currency: str) -> Channel:
        """Return where a channel stands."""
        name = ChannelName(portal, self._provider, currency)
        row = self._one(
            "SELECT epoch, number, cumulative FROM channel WHERE portal = ? AND currency = ? "
            "ORDER BY epoch DESC LIMIT 1",
            *(portal, currency),
        )
        if row is None:
            return Channel(name)
        epoch, number, cumulative = row
        return Channel(
            name, epoch, number, cumulative, self.receipt_at(EpochName(name, epoch), number)
        )

    def receipt_at(self, epoch: EpochName, number: int) -> SignedReceipt | None:
        """Return the receipt that is kept at a place."""
        row = self._one(
            "SELECT record, key, signature FROM receipt "
            "WHERE portal = ? AND currency = ? AND epoch = ? AND number = ?",
            *(epoch.channel.portal, epoch.channel.currency, epoch.epoch, number),
        )
        return _signed(row) if row else None

    def add_receipt(self, opened: OpenedReceipt) -> None:
        """Keep a receipt, and where its channel now stands."""
        receipt, signed = opened.record, opened.signed
        place = _place(receipt)
        self._run(
            "INSERT INTO receipt VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(*place, receipt.number, receipt.request_id, receipt.attempt, receipt.cumulative),
            *(signed.record, signed.key, signed.signature),
        )
        self._run(
            "INSERT INTO channel (portal, currency, epoch, number, cumulative) "
            "VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
            "SET number = excluded.number, cumulative = excluded.cumulative",
            *(*place, receipt.number, receipt.cumulative),
        )

    def receipts(self, portal: str | None = None) -> Iterator[tuple[SignedReceipt, bool]]:
        """Yield each receipt, in the order of its channel, and whether it is settled."""
        rows = self._connection.execute(
            "SELECT record, key, signature, receipt.cumulative <= settled FROM receipt "
            "JOIN channel USING (portal, currency, epoch) WHERE portal = coalesce(?, portal) "
            "ORDER BY portal, currency, epoch, receipt.number",
            (portal,),
        )
        for row in rows:
            yield _signed(row[:3]), bool(row[3])

    def standing(self, portal: str, currency: str) -> Standing:
        """Return what a portal owes, and how it has behaved."""
        earned, settled = self._sums(
            "SELECT sum(cumulative), sum(settled) FROM channel WHERE portal = ? AND currency = ?",
            *(portal, currency),
        )
        [in_flight] = self._sums(
            "SELECT sum(estimate) FROM work WHERE portal = ? AND currency = ?", portal, currency
        )
        oldest = self._one(
            "SELECT min(claim.time_ms) FROM claim JOIN claimed USING (claim_id, portal) "
            "JOIN channel USING (portal, currency, epoch) "
            "WHERE portal = ? AND currency = ? AND claimed.cumulative > settled",
            *(portal, currency),
        )
        forked = self._one("SELECT 1 FROM fork WHERE portal = ?", portal) is not None
        return Standing(earned, settled, in_flight, oldest[0] if oldest else None, forked)

    def dues(self, portal: str) -> list[Due]:
        """Return the epochs of a portal's channels of which not all is settled."""
        rows = self._connection.execute(
            "SELECT currency, epoch, cumulative, settled, record, key, signature FROM channel "
            "JOIN receipt USING (portal, currency, epoch, number, cumulative) "
            "WHERE portal = ? AND cumulative > settled ORDER BY currency, epoch",
            (portal,),
        )
        return [
            Due(
                EpochName(ChannelName(portal, self._provider, currency), epoch),
                cumulative,
                settled,
                _signed(signed),
            )
            for currency, epoch, cumulative, settled, *signed in rows
        ]

    def is_claimed(self, due: Due) -> bool:
        """Whether a claim has been made of exactly this."""
        row = self._one(
            "SELECT 1 FROM claimed "
            "WHERE portal = ? AND currency = ? AND epoch = ? AND cumulative = ?",
            *(*_epoch(due.epoch), due.cumulative),
        )
        return row is not None

    def add_claim(self, claim: OpenedClaim, dues: list[Due]) -> None:
        """Keep a claim of `dues`."""
        record, signed = claim.record, claim.signed
        self._run(
            "INSERT INTO claim VALUES (?, ?, ?, ?, ?, ?)",
            *(record.claim_id, record.portal, record.time_ms),
            *(signed.record, signed.key, signed.signature),
        )
        for due in dues:
            self._run(
                "INSERT INTO claimed VALUES (?, ?, ?, ?, ?)",
                *(record.claim_id, *_epoch(due.epoch), due.cumulative),
            )

    def epoch_totals(self, epoch: EpochName) -> tuple[int, int]:
        """Return what an epoch has earned, and what is settled of it."""
        row = self._one(
            "SELECT cumulative, settled FROM channel "
            "WHERE portal = ? AND currency = ? AND epoch = ?",
            *_epoch(epoch),
        )
        return (row[0], row[1]) if row else (0, 0)

    def settlement_at(self, epoch: EpochName, settled: int) -> SignedSettlement | None:
        """Return the note that settled an epoch up to a total."""
        row = self._one(
            "SELECT record, key, signature FROM settlement "
            "WHERE portal = ? AND currency = ? AND epoch = ? AND settled = ?",
            *(*_epoch(epoch), settled),
        )
        return SignedSettlement(record=row[0], key=row[1], signature=row[2]) if row else None

    def add_settlement(self, note: OpenedSettlement, epoch: EpochName) -> None:
        """Keep a note; what it settles is settled."""
        signed = note.signed
        self._run(
            "INSERT INTO settlement VALUES (?, ?, ?, ?, ?, ?, ?)",
            *(*_epoch(epoch), note.record.settled, signed.record, signed.key, signed.signature),
        )
        self._run(
            "UPDATE channel SET settled = ? WHERE portal = ? AND currency = ? AND epoch = ?",
            *(note.record.settled, *_epoch(epoch)),
        )

    def add_protest(self, receipt: Receipt, code: str) -> None:
        """Keep why a receipt was kept under protest."""
        self._run(
            "INSERT INTO protest VALUES (?, ?, ?, ?, ?)", *_place(receipt), receipt.number, code
        )

    def add_fork(self, portal: str, proof: ForkProof) -> None:
        """Keep the proof that a portal has signed what cannot be."""
        self._run("INSERT OR IGNORE INTO fork VALUES (?, ?)", portal, pack(proof))

    def _run(self, statement: str, *values: object) -> None:
        self._connection.execute(statement, values)

    def _one(self, statement: str, *values: object) -> Row | None:
        return cast("Row | None", self._connection.execute(statement, values).fetchone())

    def _sums(self, statement: str, *values: object) -> list[int]:
        return [total or 0 for total in self._one(statement, *values) or ()]


def _signed(row: Sequence[Any]) -> SignedReceipt:
    record, key, signature = row
    return SignedReceipt(record=record, key=key, signature=signature)


def _place(receipt: Receipt) -> tuple[str, str, int]:
    return (receipt.portal, receipt.currency, receipt.epoch)


def _epoch(epoch: EpochName) -> tuple[str, str, int]:
    return (epoch.channel.portal, epoch.channel.currency, epoch.epoch)
