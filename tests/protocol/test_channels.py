# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The chain of receipts, what is claimed with its end, and what portals may try."""

from dataclasses import replace

import msgspec
import pytest
from tests.protocol.receipting import (
    NAME,
    NOW_MS,
    PORTAL,
    PRICES,
    PROVIDER,
    STRANGER,
    USAGE,
    VERIFIER,
    Issuer,
    a_claim,
    a_settlement,
    expectation,
    opened,
    receipt_for,
)

from helexa.protocol.messages.receipts import ForkProof, SignedReceipt
from helexa.protocol.pricing import Usage
from helexa.protocol.receipts.channel import Channel, is_fork
from helexa.protocol.receipts.checks import check_price
from helexa.protocol.receipts.claims import EpochName, dues, settled_after
from helexa.protocol.receipts.faults import (
    ForeignReceiptError,
    ReceiptError,
    ReceiptExpiredError,
    ReceiptForkedError,
    ReceiptGapError,
    ReceiptOverpaidError,
    ReceiptPriceError,
    ReceiptReplayedError,
    ReceiptTotalError,
    ReceiptUnderpaidError,
    ReceiptUsageError,
)
from helexa.protocol.receipts.signing import CLAIM_WITHIN_MS, sign_claim, sign_receipt

AMOUNT = receipt_for("gw.a").amount
EPOCH = EpochName(NAME, 1)


def accepted(channel: Channel, signed: SignedReceipt, request: str) -> Channel:
    return channel.accept(opened(signed), expectation(request))


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


def test_a_chain_of_receipts_adds_up(issuer: Issuer) -> None:
    channel = Channel(NAME)
    for number in range(1, 6):
        request = f"gw.{number}"
        channel = accepted(channel, issuer.issue(receipt_for(request)), request)
        assert (channel.number, channel.cumulative) == (number, number * AMOUNT)
    assert channel == issuer.channel


@pytest.mark.accepts("LAB-13")
def test_a_receipt_that_is_kept_already_is_replayed(issuer: Issuer) -> None:
    first = issuer.issue(receipt_for("gw.1"))
    channel = accepted(Channel(NAME), first, "gw.1")
    for earlier in (first, None):
        with pytest.raises(ReceiptReplayedError):
            channel.accept(opened(first), expectation("gw.1"), earlier)


@pytest.mark.accepts("LAB-13")
def test_two_receipts_in_one_place_are_a_fork_that_anybody_can_see(issuer: Issuer) -> None:
    first = issuer.issue(receipt_for("gw.1"))
    other = Issuer().issue(receipt_for("gw.2"))
    channel = accepted(Channel(NAME), first, "gw.1")
    with pytest.raises(ReceiptForkedError) as caught:
        channel.accept(opened(other), expectation("gw.2"), first)
    assert caught.value.proof == ForkProof(first=first, second=other)
    anybody = replace(VERIFIER, provider=None)
    assert is_fork(ForkProof.model_validate_json(caught.value.proof.model_dump_json()), anybody)


def test_a_receipt_that_follows_another_one_is_a_fork(issuer: Issuer) -> None:
    channel = accepted(Channel(NAME), issuer.issue(receipt_for("gw.1")), "gw.1")
    hidden = Issuer()
    hidden.issue(receipt_for("gw.2"))
    third = hidden.issue(receipt_for("gw.3"))
    with pytest.raises(ReceiptForkedError) as caught:
        accepted(channel, third, "gw.3")
    assert is_fork(caught.value.proof, VERIFIER)


def test_what_is_no_fork_proves_nothing(issuer: Issuer) -> None:
    first, second, third = (issuer.issue(receipt_for(f"gw.{each}")) for each in range(3))
    other = Issuer(Channel(replace(NAME, currency="EUR"))).issue(receipt_for("gw.9"))
    forged = Issuer(signer=STRANGER).issue(receipt_for("gw.9"))
    later = Issuer(Channel(NAME, 2)).issue(receipt_for("gw.9"))
    for pair in (
        (first, first),
        (first, second),
        (first, third),
        (second, first),
        (first, other),
        (first, forged),
        (first, later),
    ):
        assert not is_fork(ForkProof(first=pair[0], second=pair[1]), VERIFIER)


def test_a_missing_receipt_is_a_gap(issuer: Issuer) -> None:
    channel = accepted(Channel(NAME), issuer.issue(receipt_for("gw.1")), "gw.1")
    issuer.issue(receipt_for("gw.2"))
    third = issuer.issue(receipt_for("gw.3"))
    with pytest.raises(ReceiptGapError):
        accepted(channel, third, "gw.3")
    with pytest.raises(ReceiptGapError):
        accepted(Channel(NAME), sign_receipt(opened(third).record, PORTAL), "gw.3")


def test_a_first_receipt_that_names_one_before_it_is_refused() -> None:
    receipt = receipt_for("gw.1", previous=b"x" * 32, cumulative=AMOUNT)
    with pytest.raises(ReceiptGapError):
        accepted(Channel(NAME), sign_receipt(receipt, PORTAL), "gw.1")


@pytest.mark.parametrize("slip", [-1, 1])
def test_a_total_that_does_not_add_up_is_refused(slip: int) -> None:
    receipt = receipt_for("gw.1", cumulative=AMOUNT + slip)
    with pytest.raises(ReceiptTotalError):
        accepted(Channel(NAME), sign_receipt(receipt, PORTAL), "gw.1")


def test_a_new_epoch_begins_anew_and_ends_the_old_one(issuer: Issuer) -> None:
    first = issuer.issue(receipt_for("gw.1"))
    old = Issuer(issuer.channel)
    channel = accepted(Channel(NAME), first, "gw.1")
    issuer.renew()
    channel = accepted(channel, issuer.issue(receipt_for("gw.2")), "gw.2")
    assert (channel.epoch, channel.number, channel.cumulative) == (2, 1, AMOUNT)
    with pytest.raises(ReceiptReplayedError):
        accepted(channel, old.issue(receipt_for("gw.3")), "gw.3")


def test_a_receipt_of_another_channel_is_foreign() -> None:
    signed = Issuer(Channel(replace(NAME, currency="EUR"))).issue(receipt_for("gw.1"))
    with pytest.raises(ForeignReceiptError):
        accepted(Channel(NAME), signed, "gw.1")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"amount": AMOUNT + 1}, ReceiptOverpaidError),
        ({"amount": AMOUNT - 1}, ReceiptUnderpaidError),
        ({"cost": 451}, ReceiptOverpaidError),
        ({"cost": 449}, ReceiptUnderpaidError),
        ({"price_version": "0" * 64}, ReceiptPriceError),
        ({"request_id": "gw.2"}, ReceiptUsageError),
        ({"attempt": 2}, ReceiptUsageError),
        ({"model": "other"}, ReceiptUsageError),
        ({"usage_hash": b"x" * 32}, ReceiptUsageError),
        ({"completion_tokens": 501}, ReceiptUnderpaidError),
        ({"completion_tokens": 490}, ReceiptOverpaidError),
    ],
)
def test_a_receipt_that_is_not_about_the_work_is_refused(
    issuer: Issuer, changes: dict[str, object], fault: type[ReceiptError]
) -> None:
    signed = issuer.issue(msgspec.structs.replace(receipt_for("gw.1"), **changes))
    with pytest.raises(fault) as caught:
        accepted(Channel(NAME), signed, "gw.1")
    assert type(caught.value) is fault


@pytest.mark.accepts("LAB-13")
@pytest.mark.parametrize(
    ("tokens", "fault"), [(501, ReceiptOverpaidError), (490, ReceiptUnderpaidError)]
)
def test_a_receipt_that_counts_otherwise_is_refused(
    issuer: Issuer, tokens: int, fault: type[ReceiptError]
) -> None:
    signed = issuer.issue(receipt_for("gw.1", replace(USAGE, completion_tokens=tokens)))
    with pytest.raises(fault):
        accepted(Channel(NAME), signed, "gw.1")


def test_tokens_after_a_client_had_gone_need_not_be_paid(issuer: Issuer) -> None:
    signed = issuer.issue(receipt_for("gw.1", replace(USAGE, completion_tokens=490)))
    lenient = replace(expectation("gw.1"), unpaid_tokens=10)
    assert Channel(NAME).accept(opened(signed), lenient).number == 1
    with pytest.raises(ReceiptUnderpaidError):
        Channel(NAME).accept(opened(signed), replace(lenient, unpaid_tokens=9))


def test_a_later_attempt_may_cost_a_micro_unit_less(issuer: Issuer) -> None:
    usage = Usage(completion_tokens=1, requests=0)
    for cost in (0, 1):
        check_price(receipt_for("gw.1", usage, attempt=2, cost=cost, amount=cost), PRICES)
    with pytest.raises(ReceiptUnderpaidError):
        check_price(receipt_for("gw.1", usage, attempt=1, cost=0, amount=0), PRICES)
    with pytest.raises(ReceiptOverpaidError):
        check_price(receipt_for("gw.1", usage, attempt=2, cost=2, amount=2), PRICES)
    del issuer


@pytest.mark.accepts("NET-11")
def test_a_user_recomputes_what_was_paid_from_the_receipt_alone() -> None:
    receipt = receipt_for("gw.1")
    check_price(receipt, PRICES)
    assert receipt.cost == 450
    assert receipt.amount == 450 - 11
    with pytest.raises(ReceiptPriceError):
        check_price(receipt_for("gw.1", currency="EUR"), PRICES)


def test_a_claim_is_worth_what_its_last_receipt_says_and_is_paid_once(issuer: Issuer) -> None:
    receipts = [issuer.issue(receipt_for(f"gw.{each}")) for each in range(3)]
    portal = replace(VERIFIER, provider=None)
    claim = portal.claim(sign_claim(a_claim(receipts[2], receipts[0]), PROVIDER))
    assert dues(claim, {}, portal, NOW_MS) == {EPOCH: 3 * AMOUNT}
    assert dues(claim, {EPOCH: AMOUNT}, portal, NOW_MS) == {EPOCH: 2 * AMOUNT}
    assert dues(claim, {EPOCH: 3 * AMOUNT}, portal, NOW_MS) == {EPOCH: 0}
    with pytest.raises(ReceiptExpiredError):
        dues(claim, {}, portal, NOW_MS + CLAIM_WITHIN_MS + 1)


def test_nobody_claims_what_another_earned(issuer: Issuer) -> None:
    stolen = a_claim(issuer.issue(receipt_for("gw.1")), provider=STRANGER.public)
    portal = replace(VERIFIER, provider=None)
    with pytest.raises(ForeignReceiptError):
        dues(portal.claim(sign_claim(stolen, STRANGER)), {}, portal, NOW_MS)


def test_a_settlement_settles_once_and_not_more_than_was_earned() -> None:
    note = VERIFIER.settlement(a_settlement(paid=60, settled=100))
    assert settled_after(note, earned=100, settled=40) == 100
    with pytest.raises(ReceiptReplayedError):
        settled_after(note, earned=100, settled=100)
    with pytest.raises(ReceiptTotalError):
        settled_after(note, earned=100, settled=50)
    with pytest.raises(ReceiptGapError):
        settled_after(note, earned=100, settled=30)
    with pytest.raises(ReceiptOverpaidError):
        settled_after(note, earned=99, settled=40)
