# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The provider's book: what is kept, what is refused, and what a crash leaves."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.portal.provider.shop import (
    AMOUNT,
    TERMS,
    Shop,
    book_in,
    days_work,
    served,
    usage_of,
    work_of,
)
from tests.protocol.receipting import NOW_MS, PRICES, PROVIDER, STRANGER, Issuer, a_settlement

from helexa.portal.provider.book import Book
from helexa.portal.provider.exposure import CreditTerms, ExposureError, Standing
from helexa.portal.provider.files import FILE, BookError, open_for_reading, open_for_writing
from helexa.portal.provider.work import WorkId
from helexa.protocol.errors import NotFoundError
from helexa.protocol.messages.receipts import Claim
from helexa.protocol.receipts.faults import (
    AlreadyClaimedError,
    ForeignReceiptError,
    NothingDueError,
    ReceiptAlteredError,
    ReceiptForgedError,
    ReceiptForkedError,
    ReceiptGapError,
    ReceiptOverpaidError,
    ReceiptPriceError,
    ReceiptReplayedError,
    ReceiptUnderpaidError,
    ReceiptUsageError,
)
from helexa.protocol.receipts.signing import CLAIM_WITHIN_MS, decode_record, usage_hash

DAY_MS = 86_400_000


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    with book_in(tmp_path) as opened:
        yield opened


def hash_of(request: str, completion_tokens: int) -> bytes:
    return usage_hash(usage_of(request, completion_tokens=completion_tokens).record)


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_what_was_earned_is_kept_and_counted(book: Book, shop: Shop) -> None:
    served(book, "gw.1", "gw.2")
    assert book.standing("default", "USD") == Standing(in_flight=2 * AMOUNT)
    answer = book.accept(shop.receipt("gw.1"), NOW_MS)
    assert (answer.epoch, answer.number, answer.cumulative) == (1, 1, AMOUNT)
    assert book.standing("default", "USD") == Standing(earned=AMOUNT, in_flight=AMOUNT)


def test_the_same_receipt_twice_is_the_same_answer_and_no_change(book: Book, shop: Shop) -> None:
    served(book, "gw.1", "gw.2")
    first, second = shop.receipt("gw.1"), shop.receipt("gw.2")
    answers = [book.accept(each, NOW_MS) for each in (first, second)]
    before = (book.standing("default", "USD"), list(book.receipts()))
    again = [book.accept(each, NOW_MS + 2 * CLAIM_WITHIN_MS) for each in (first, second)]
    assert again == answers
    assert (book.standing("default", "USD"), list(book.receipts())) == before


def test_an_attempt_is_paid_once(book: Book, shop: Shop) -> None:
    served(book, "gw.1")
    book.accept(shop.receipt("gw.1"), NOW_MS)
    with pytest.raises(ReceiptReplayedError):
        book.accept(shop.receipt("gw.1"), NOW_MS)
    served(book, "gw.1")
    assert book.standing("default", "USD") == Standing(earned=AMOUNT)


@pytest.mark.parametrize("request_id", ["gw.9", "gw.running"])
def test_a_receipt_for_work_that_has_not_ended_is_refused(
    book: Book, shop: Shop, request_id: str
) -> None:
    book.agree(PRICES)
    book.begin(work_of("gw.running"), NOW_MS)
    with pytest.raises(ReceiptUsageError):
        book.accept(shop.receipt(request_id), NOW_MS)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"amount": AMOUNT + 1}, ReceiptOverpaidError),
        ({"amount": AMOUNT - 1}, ReceiptUnderpaidError),
        ({"usage_hash": b"x" * 32}, ReceiptUsageError),
        ({"price_version": "0" * 64}, ReceiptPriceError),
    ],
)
def test_a_refused_receipt_changes_nothing_and_a_right_one_still_fits(
    book: Book, changes: dict[str, object], fault: type[Exception]
) -> None:
    served(book, "gw.1")
    with pytest.raises(fault):
        book.accept(Shop().receipt("gw.1", **changes), NOW_MS)
    assert book.standing("default", "USD") == Standing(in_flight=AMOUNT)
    assert book.accept(Shop().receipt("gw.1"), NOW_MS).number == 1


def test_a_refused_receipt_stops_its_channel_until_it_is_taken_under_protest(
    book: Book, shop: Shop
) -> None:
    served(book, "gw.1", "gw.2")
    poor = shop.receipt("gw.1", cost=300, amount=293)
    second = shop.receipt("gw.2")
    for _ in range(2):
        with pytest.raises(ReceiptUnderpaidError):
            book.accept(poor, NOW_MS)
        with pytest.raises(ReceiptGapError):
            book.accept(second, NOW_MS, under_protest=True)
    assert book.accept(poor, NOW_MS, under_protest=True).cumulative == 293
    assert book.accept(poor, NOW_MS).cumulative == 293
    assert book.accept(second, NOW_MS).cumulative == 293 + AMOUNT
    assert book.standing("default", "USD") == Standing(earned=293 + AMOUNT)


def test_no_protest_makes_a_false_receipt_true(book: Book, shop: Shop) -> None:
    served(book, "gw.1")
    book.accept(shop.receipt("gw.1"), NOW_MS, under_protest=True)
    for signed, fault in (
        (Shop().receipt("gw.2"), ReceiptForkedError),
        (shop.receipt("gw.1"), ReceiptReplayedError),
        (Shop(Issuer(signer=STRANGER)).receipt("gw.1"), ReceiptForgedError),
    ):
        with pytest.raises(fault):
            book.accept(signed, NOW_MS, under_protest=True)


def test_tokens_after_the_client_had_gone_need_not_be_paid(book: Book, shop: Shop) -> None:
    book.agree(PRICES)
    book.begin(work_of("gw.1"), NOW_MS)
    book.end(usage_of("gw.1", completion_tokens=600), unpaid_tokens=100)
    assert book.accept(shop.receipt("gw.1", usage_hash=hash_of("gw.1", 600)), NOW_MS).number == 1


def test_a_fork_is_kept_as_a_proof_and_ends_the_credit(book: Book, shop: Shop) -> None:
    served(book, "gw.1", "gw.2")
    book.accept(shop.receipt("gw.1"), NOW_MS)
    with pytest.raises(ReceiptForkedError):
        book.accept(Shop().receipt("gw.2"), NOW_MS)
    assert book.standing("default", "USD").has_forked
    assert book.cap("default", "USD", NOW_MS) == 0
    with pytest.raises(ExposureError):
        book.begin(work_of("gw.3"), NOW_MS)


def test_bytes_that_differ_from_a_kept_receipt_are_looked_at_anew(book: Book, shop: Shop) -> None:
    served(book, "gw.1")
    signed = shop.receipt("gw.1")
    book.accept(signed, NOW_MS)
    with pytest.raises(ReceiptAlteredError):
        book.accept(signed.model_copy(update={"signature": bytes(64)}), NOW_MS)
    with pytest.raises(ReceiptForgedError):
        book.accept(signed.model_copy(update={"key": STRANGER.public}), NOW_MS)


def test_a_cap_stops_service_and_a_settlement_resumes_it(tmp_path: Path, shop: Shop) -> None:
    terms = CreditTerms(first=2 * AMOUNT, most=10 * AMOUNT)
    with book_in(tmp_path, terms=terms) as book:
        served(book, "gw.1", "gw.2")
        with pytest.raises(ExposureError):
            book.begin(work_of("gw.3"), NOW_MS)
        for request in ("gw.1", "gw.2"):
            book.accept(shop.receipt(request), NOW_MS)
        with pytest.raises(ExposureError):
            book.begin(work_of("gw.3"), NOW_MS)
        book.settle(a_settlement(paid=2 * AMOUNT, settled=2 * AMOUNT))
        assert book.standing("default", "USD").exposure == 0
        book.begin(work_of("gw.3"), NOW_MS)
        # A tenth of what was paid has come on top of the cap.
        assert book.cap("default", "USD", NOW_MS) == 2 * AMOUNT + 2 * AMOUNT // 10


def test_an_overdue_claim_cuts_the_cap_until_it_is_settled(book: Book, shop: Shop) -> None:
    served(book, "gw.1")
    book.accept(shop.receipt("gw.1"), NOW_MS)
    book.claim("default", NOW_MS)
    later_ms = NOW_MS + 7 * DAY_MS
    assert book.cap("default", "USD", later_ms - 1) == TERMS.first
    assert book.cap("default", "USD", later_ms) == TERMS.first // 2
    book.settle(a_settlement(paid=AMOUNT, settled=AMOUNT))
    assert book.cap("default", "USD", later_ms) == TERMS.first + AMOUNT // 10


def test_work_that_came_to_nothing_is_not_counted_on(book: Book) -> None:
    book.agree(PRICES)
    book.begin(work_of("gw.1"), NOW_MS)
    book.begin(work_of("gw.1"), NOW_MS)
    assert book.standing("default", "USD").in_flight == AMOUNT
    book.abandon(WorkId("default", "gw.1", 1))
    assert book.standing("default", "USD") == Standing()
    with pytest.raises(NotFoundError):
        book.end(usage_of("gw.1"))


def test_an_estimate_becomes_what_was_counted(book: Book) -> None:
    book.agree(PRICES)
    book.begin(work_of("gw.1", estimate=50 * AMOUNT), NOW_MS)
    book.end(usage_of("gw.1"))
    assert book.standing("default", "USD").in_flight == AMOUNT


def test_work_at_prices_that_were_not_agreed_is_refused(book: Book) -> None:
    with pytest.raises(ReceiptPriceError):
        book.begin(work_of("gw.1"), NOW_MS)
    book.agree(PRICES)
    stolen = replace(work_of("gw.1"), work_id=WorkId("other", "gw.1", 1))
    with pytest.raises(ReceiptPriceError):
        book.begin(stolen, NOW_MS)


def test_a_claim_shows_the_last_receipt_alone_and_is_made_once(book: Book, shop: Shop) -> None:
    with pytest.raises(NothingDueError):
        book.claim("default", NOW_MS)
    served(book, "gw.1", "gw.2", "gw.3")
    book.accept(shop.receipt("gw.1"), NOW_MS)
    last = shop.receipt("gw.2")
    book.accept(last, NOW_MS)
    [voucher] = decode_record(Claim, book.claim("default", NOW_MS).record).vouchers
    assert voucher.record == last.record
    with pytest.raises(AlreadyClaimedError):
        book.claim("default", NOW_MS)
    book.accept(shop.receipt("gw.3"), NOW_MS)
    book.claim("default", NOW_MS)


def test_a_settlement_archives_and_is_taken_once(book: Book, shop: Shop) -> None:
    served(book, "gw.1", "gw.2")
    for request in ("gw.1", "gw.2"):
        book.accept(shop.receipt(request), NOW_MS)
    book.claim("default", NOW_MS)
    note = a_settlement(paid=AMOUNT, settled=AMOUNT)
    for _ in range(3):
        book.settle(note)
    assert [is_settled for _, is_settled in book.receipts()] == [True, False]
    assert book.standing("default", "USD").exposure == AMOUNT
    with pytest.raises(ReceiptReplayedError):
        book.settle(a_settlement(paid=AMOUNT, settled=AMOUNT, claim_id="another"))
    with pytest.raises(ReceiptOverpaidError):
        book.settle(a_settlement(paid=2 * AMOUNT, settled=3 * AMOUNT))
    book.settle(a_settlement(paid=AMOUNT, settled=2 * AMOUNT))
    with pytest.raises(NothingDueError):
        book.claim("default", NOW_MS)


def test_a_settlement_by_a_stranger_or_for_one_settles_nothing(book: Book, shop: Shop) -> None:
    served(book, "gw.1")
    book.accept(shop.receipt("gw.1"), NOW_MS)
    with pytest.raises(ReceiptForgedError):
        book.settle(a_settlement(STRANGER, paid=AMOUNT, settled=AMOUNT))
    with pytest.raises(ForeignReceiptError):
        book.settle(a_settlement(paid=AMOUNT, settled=AMOUNT, provider=STRANGER.public))
    assert book.standing("default", "USD").exposure == AMOUNT


def test_two_epochs_are_claimed_and_settled_each_on_its_own(book: Book, shop: Shop) -> None:
    served(book, "gw.1", "gw.2")
    book.accept(shop.receipt("gw.1"), NOW_MS)
    shop.issuer.renew()
    book.accept(shop.receipt("gw.2"), NOW_MS)
    assert len(decode_record(Claim, book.claim("default", NOW_MS).record).vouchers) == 2
    book.settle(a_settlement(paid=AMOUNT, settled=AMOUNT, epoch=2))
    assert [is_settled for _, is_settled in book.receipts("default")] == [False, True]
    assert book.standing("default", "USD") == Standing(
        earned=2 * AMOUNT, settled=AMOUNT, open_since_ms=NOW_MS
    )


def test_everything_is_there_after_a_restart(tmp_path: Path, shop: Shop) -> None:
    with book_in(tmp_path) as book:
        served(book, "gw.1", "gw.2")
        signed = shop.receipt("gw.1")
        answer = book.accept(signed, NOW_MS)
        book.claim("default", NOW_MS)
        before = book.standing("default", "USD")
    with book_in(tmp_path) as book:
        assert book.standing("default", "USD") == before
        assert [each for each, _ in book.receipts()] == [signed]
        assert book.accept(signed, NOW_MS) == answer
        with pytest.raises(AlreadyClaimedError):
            book.claim("default", NOW_MS)
        assert book.accept(shop.receipt("gw.2"), NOW_MS).number == 2


def test_a_book_has_one_writer_and_many_readers(tmp_path: Path, shop: Shop) -> None:
    with pytest.raises(BookError), open_for_reading(tmp_path):
        pass
    with book_in(tmp_path) as book:
        served(book, "gw.1")
        book.accept(shop.receipt("gw.1"), NOW_MS)
        with pytest.raises(BookError), book_in(tmp_path):
            pass
        with open_for_reading(tmp_path) as reading:
            assert reading.execute("SELECT count(*) FROM receipt").fetchone() == (1,)
            with pytest.raises(sqlite3.OperationalError):
                reading.execute("DELETE FROM receipt")


def test_a_book_of_another_version_is_not_opened(tmp_path: Path) -> None:
    with book_in(tmp_path):
        pass
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(BookError), book_in(tmp_path):
        pass
    with pytest.raises(BookError), open_for_reading(tmp_path):
        pass


def test_a_key_of_another_provider_opens_nothing_of_this_one(tmp_path: Path, shop: Shop) -> None:
    with book_in(tmp_path, identity=STRANGER) as book, pytest.raises(ForeignReceiptError):
        book.accept(shop.receipt("gw.1"), NOW_MS)
    assert PROVIDER.public != STRANGER.public


def test_no_receipt_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    count, kept = 400, 0
    for kill_after in (1, 3, 20, 50, 10):
        keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.portal.provider.shop", str(tmp_path), str(count)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert keeper.stdout is not None
        # What was kept before is told of again, each with the same answer.
        for expected in range(1, kept + kill_after + 1):
            assert int(keeper.stdout.readline()) == expected
        keeper.send_signal(signal.SIGKILL)
        told = [int(line) for line in keeper.stdout.read().split("\n")[:-1]]
        keeper.wait()
        keeper.stdout.close()
        kept = max([kept + kill_after, *told])
        with book_in(tmp_path) as book:
            found = len(list(book.receipts()))
            standing = book.standing("default", "USD")
            assert kept <= found <= kept + 1
            assert standing.earned == found * AMOUNT
            assert standing.in_flight in (0, AMOUNT)
            assert [each for each, _ in book.receipts()] == [
                signed for _, signed in days_work(found)
            ]


def test_a_commit_is_on_the_disk_when_it_returns(tmp_path: Path) -> None:
    with open_for_writing(tmp_path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        strict = connection.execute(
            "SELECT min(strict) FROM pragma_table_list "
            "WHERE schema = 'main' AND name NOT LIKE 'sqlite%'"
        )
        assert strict.fetchone() == (1,)
