# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import pytest

from helexa.portal.ledger import accounts
from helexa.portal.ledger.accounts import AccountError, account_of
from helexa.portal.ledger.commands import (
    AnyCommand,
    Capture,
    Chargeback,
    Deposit,
    ExpireGrant,
    Extend,
    FailPayout,
    Grant,
    Hold,
    LateCapture,
    Refund,
    Release,
    ReservePayout,
    ReturnPayout,
    SetBudget,
    SettlePayout,
)
from helexa.portal.ledger.entries import Entry, EntryError
from helexa.portal.ledger.holds import period_of
from helexa.portal.ledger.plan import Entered, enter, plan
from helexa.portal.ledger.refusals import Code, Refusal
from helexa.portal.ledger.state import State
from helexa.protocol.money import LARGEST_AMOUNT

NOW = 1_770_000_000_000
USD = "USD"
ADA, HELD = accounts.available("ada", USD), accounts.held("ada", USD)
DEBT, BANK = accounts.debt("ada", USD), accounts.clearing("bank", USD)
PAYABLE, REVENUE = accounts.payable("p", USD), accounts.revenue(USD)


def deposit(amount: int, reference: str = "d", *, fee: int = 0) -> Deposit:
    return Deposit(
        user="ada", currency=USD, rail="bank", reference=reference, amount=amount, fee=fee
    )


def hold(amount: int, name: str = "h", *, api_key: str = "", lifetime_ms: int = 1_000) -> Hold:
    return Hold(
        hold=name,
        user="ada",
        currency=USD,
        amount=amount,
        lifetime_ms=lifetime_ms,
        api_key=api_key,
    )


def capture(amount: int, *, attempt: int = 1, share: int = 0, is_last: bool = True) -> Capture:
    payees = (("p", share),) if share else ()
    return Capture(hold="h", attempt=attempt, amount=amount, payees=payees, is_last=is_last)


def after(*commands: AnyCommand, time_ms: int = NOW) -> State:
    state = State()
    for command in commands:
        assert isinstance(plan(state, command, time_ms), Entered), command
    return state


def refused(state: State, command: AnyCommand, time_ms: int = NOW) -> Code:
    answer = plan(state, command, time_ms)
    assert isinstance(answer, Refusal), answer
    return answer.code


def test_a_deposit_is_credited_whole_and_the_portal_bears_the_fee() -> None:
    state = after(deposit(1_000, fee=30))
    assert state.balances == {ADA: 1_000, BANK: -970, accounts.fees(USD): -30}


def test_a_hold_needs_the_money_that_it_holds() -> None:
    state = after(deposit(100))
    answer = plan(state, hold(101), NOW)
    assert isinstance(answer, Refusal)
    assert (answer.code, answer.available) == (Code.INSUFFICIENT_FUNDS, 100)
    assert isinstance(plan(state, hold(100), NOW), Entered)
    assert state.balances == {HELD: 100, BANK: -100}


def test_a_capture_pays_provider_and_portal_and_gives_back_the_rest() -> None:
    state = after(deposit(100), hold(80), capture(50, share=45))
    assert state.balances == {ADA: 50, PAYABLE: 45, REVENUE: 5, BANK: -100}
    assert state.hold("h") is None


def test_each_attempt_is_paid_once_and_the_last_closes_the_hold() -> None:
    first = capture(30, attempt=1, is_last=False)
    state = after(deposit(100), hold(80), first)
    assert refused(state, capture(10, attempt=1)) == Code.ALREADY_CAPTURED
    assert refused(state, capture(51, attempt=2)) == Code.OVER_HOLD
    assert isinstance(plan(state, capture(20, attempt=2), NOW), Entered)
    assert state.balances == {ADA: 50, REVENUE: 50, BANK: -100}
    assert isinstance(plan(state, first, NOW), Entered)
    late = LateCapture(hold="h", attempt=1, amount=5)
    assert refused(state, late) == Code.ALREADY_CAPTURED
    assert isinstance(plan(state, LateCapture(hold="h", attempt=3, amount=5), NOW), Entered)


def test_of_capture_and_release_the_first_wins() -> None:
    released = after(deposit(100), hold(80), Release(hold="h"))
    assert refused(released, capture(10)) == Code.HOLD_CLOSED
    captured = after(deposit(100), hold(80), capture(10))
    assert refused(captured, Release(hold="h")) == Code.HOLD_CLOSED
    assert refused(captured, capture(11)) == Code.HOLD_CLOSED


def test_a_hold_is_released_for_its_age_only_when_its_time_is_over() -> None:
    state = after(deposit(100), hold(80, lifetime_ms=1_000))
    sweep = Release(hold="h", if_expired=True)
    assert refused(state, sweep, NOW + 999) == Code.NOT_EXPIRED
    assert isinstance(plan(state, Extend(hold="h", until_ms=NOW + 2_000), NOW), Entered)
    assert refused(state, Extend(hold="h", until_ms=NOW + 1_500)) == Code.NOT_LATER
    assert list(state.expired_holds(NOW + 1_000)) == []
    assert refused(state, sweep, NOW + 1_000) == Code.NOT_EXPIRED
    assert isinstance(plan(state, sweep, NOW + 2_000), Entered)
    assert state.balances == {ADA: 100, BANK: -100}


def test_a_late_capture_takes_what_there_is_and_the_portal_loses_the_rest() -> None:
    late = LateCapture(hold="h", attempt=1, amount=130, payees=(("p", 120),))
    state = after(deposit(100), hold(80))
    assert refused(state, late) == Code.HOLD_OPEN
    assert isinstance(plan(state, Release(hold="h"), NOW), Entered)
    answer = plan(state, late, NOW)
    assert isinstance(answer, Entered)
    assert answer.entry.facts["uncovered"] == 30
    loss = accounts.bad_debt(USD)
    assert state.balances == {PAYABLE: 120, REVENUE: 10, loss: -30, BANK: -100}
    unknown = LateCapture(hold="none", attempt=1, amount=1)
    assert refused(state, unknown) == Code.UNKNOWN_HOLD


def test_grants_are_spent_first_and_the_one_that_expires_soonest_before() -> None:
    state = after(
        deposit(100),
        Grant(grant="later", user="ada", currency=USD, amount=10, expires_at_ms=NOW + 500),
        Grant(grant="soon", user="ada", currency=USD, amount=10, expires_at_ms=NOW + 100),
        Grant(grant="past", user="ada", currency=USD, amount=10, expires_at_ms=NOW + 1),
    )
    assert isinstance(plan(state, hold(25), NOW + 1), Entered)
    found = state.hold("h")
    assert found is not None
    soon, later = (accounts.granted("ada", name, USD) for name in ("soon", "later"))
    assert found.sources == ((soon, 10), (later, 10), (ADA, 5))
    assert isinstance(plan(state, ExpireGrant(grant="later"), NOW + 500), Entered)
    assert isinstance(plan(state, capture(12), NOW + 500), Entered)
    assert state.balance(ADA) == 100
    assert state.balance(later) == 0
    assert state.balance(accounts.promotion(USD)) == -10 - 10 - 10 + 8


def test_a_grant_cannot_be_paid_out() -> None:
    state = after(
        deposit(100),
        Grant(grant="g", user="ada", currency=USD, amount=50, expires_at_ms=NOW + 1),
        hold(120),
    )
    refund = Refund(refund="r", rail="bank", reference="d", amount=31)
    assert refused(state, refund) == Code.INSUFFICIENT_FUNDS


def test_no_more_of_a_deposit_goes_back_than_it_was() -> None:
    state = after(deposit(100, "one"), deposit(100, "two"))
    first = Refund(refund="r1", rail="bank", reference="one", amount=60)
    assert isinstance(plan(state, first, NOW), Entered)
    more = Refund(refund="r2", rail="bank", reference="one", amount=41)
    assert refused(state, more) == Code.OVER_DEPOSIT
    disputed = Chargeback(dispute="c", rail="bank", reference="one", amount=41)
    assert refused(state, disputed) == Code.OVER_DEPOSIT
    unknown = Refund(refund="r3", rail="card", reference="one", amount=1)
    assert refused(state, unknown) == Code.UNKNOWN_DEPOSIT


def test_a_chargeback_of_what_is_spent_is_a_debt_that_is_paid_before_anything_else() -> None:
    state = after(
        deposit(100, "one"),
        hold(80),
        Chargeback(dispute="c", rail="bank", reference="one", amount=100, fee=15),
    )
    assert (state.balance(ADA), state.balance(DEBT), state.balance(HELD)) == (0, -80, 80)
    assert refused(state, hold(1, "second")) == Code.IN_DEBT
    assert isinstance(plan(state, capture(30), NOW), Entered)
    assert (state.balance(ADA), state.balance(DEBT)) == (0, -30)
    assert isinstance(plan(state, deposit(50, "two"), NOW), Entered)
    assert (state.balance(ADA), state.balance(DEBT)) == (20, 0)
    assert isinstance(plan(state, hold(20, "second"), NOW), Entered)


def test_a_budget_counts_what_is_held_and_then_what_is_paid() -> None:
    limit = SetBudget(change="b", api_key="k", currency=USD, window="day", limit=100)
    state = after(deposit(1_000), limit, hold(80, api_key="k"))
    answer = plan(state, hold(21, "second", api_key="k"), NOW)
    assert isinstance(answer, Refusal)
    assert (answer.code, answer.available) == (Code.BUDGET_EXCEEDED, 20)
    assert isinstance(plan(state, capture(30), NOW), Entered)
    assert isinstance(plan(state, hold(70, "third", api_key="k"), NOW), Entered)
    assert refused(state, hold(1, "fourth", api_key="k")) == Code.BUDGET_EXCEEDED
    assert isinstance(plan(state, hold(1, "fourth"), NOW), Entered)
    tomorrow = NOW + 86_400_000
    assert isinstance(plan(state, hold(100, "fifth", api_key="k"), tomorrow), Entered)


def test_a_budget_that_is_lowered_counts_what_was_used() -> None:
    state = after(
        deposit(1_000),
        SetBudget(change="1", api_key="k", currency=USD, window="total", limit=500),
        hold(300, api_key="k"),
        SetBudget(change="2", api_key="k", currency=USD, window="total", limit=200),
    )
    assert refused(state, hold(1, "second", api_key="k")) == Code.BUDGET_EXCEEDED
    lifted = SetBudget(change="3", api_key="k", currency=USD, window="total")
    assert isinstance(plan(state, lifted, NOW), Entered)
    assert isinstance(plan(state, hold(1, "second", api_key="k"), NOW), Entered)


def test_periods_are_those_of_utc() -> None:
    last_ms_of_2026 = 1_798_761_599_999
    assert [period_of(window, last_ms_of_2026) for window in ("day", "week", "month", "total")] == [
        "2026-12-31",
        "2026-W53",
        "2026-12",
        "total",
    ]
    assert period_of("day", last_ms_of_2026 + 1) == "2027-01-01"


def test_a_payout_arrives_or_fails_once_and_may_come_back() -> None:
    state = after(deposit(100), hold(80), capture(50, share=45))
    payout = ReservePayout(payout="o", provider="p", currency=USD, amount=45)
    too_much = ReservePayout(payout="x", provider="p", currency=USD, amount=46)
    assert refused(state, too_much) == Code.INSUFFICIENT_FUNDS
    assert isinstance(plan(state, payout, NOW), Entered)
    assert isinstance(plan(state, FailPayout(payout="o"), NOW), Entered)
    assert refused(state, SettlePayout(payout="o", rail="bank")) == Code.PAYOUT_ENDED
    assert refused(state, ReturnPayout(payout="o")) == Code.UNKNOWN_PAYOUT
    again = ReservePayout(payout="o2", provider="p", currency=USD, amount=45)
    for command in (again, SettlePayout(payout="o2", rail="bank")):
        assert isinstance(plan(state, command, NOW), Entered)
    assert (state.balance(PAYABLE), state.balance(BANK)) == (0, -55)
    assert isinstance(plan(state, ReturnPayout(payout="o2"), NOW), Entered)
    assert (state.balance(PAYABLE), state.balance(BANK)) == (45, -100)


@pytest.mark.parametrize(
    "command",
    [
        deposit(0),
        deposit(-5),
        deposit(LARGEST_AMOUNT + 1),
        deposit(2**70),
        deposit(10, fee=10),
        deposit(10, ""),
        deposit(10, "with blank"),
        Deposit(user="a:b", currency=USD, rail="bank", reference="d", amount=1),
        Deposit(user="ada\n", currency=USD, rail="bank", reference="d", amount=1),
        Deposit(user="ada", currency="usd", rail="bank", reference="d", amount=1),
        hold(0),
        SetBudget(change="b", api_key="k", currency=USD, window="year", limit=1),
    ],
)
def test_a_command_outside_its_bounds_is_refused(command: AnyCommand) -> None:
    assert refused(State(), command) == Code.MALFORMED


def test_payees_get_no_more_than_is_paid() -> None:
    state = after(deposit(100), hold(80))
    assert refused(state, capture(10, share=11)) == Code.MALFORMED


def test_bytes_that_are_no_command_are_refused() -> None:
    answer = enter(State(), b"\x81\xa4type\xa5steal", NOW)
    assert isinstance(answer, Refusal)
    assert answer.code == Code.MALFORMED


def test_a_balance_stays_a_64_bit_number() -> None:
    state = after(deposit(LARGEST_AMOUNT))
    before = dict(state.balances)
    assert refused(state, deposit(1, "two")) == Code.OUT_OF_RANGE
    assert state.balances == before


@pytest.mark.parametrize(
    "entry",
    [
        Entry(kind="deposit", id="x", digest=b"", postings=((BANK, -5), (ADA, 4))),
        Entry(kind="hold", id="x", digest=b"", postings=((BANK, -5), (ADA, 5))),
        Entry(kind="deposit", id="x", digest=b"", postings=((BANK, 5), (ADA, -5))),
        Entry(kind="capture", id="x", digest=b"", postings=((REVENUE, 5), (ADA, -5))),
        Entry(
            kind="fx",
            id="x",
            digest=b"",
            postings=(("portal:revenue:EUR", 5), ("portal:revenue:USD", -5)),
        ),
        Entry(
            kind="x",
            id="x",
            digest=b"",
            postings=(("portal:metered:USD", 5), ("portal:revenue:USD", -5)),
        ),
        Entry(kind="x", id="x", digest=b"", postings=(("safe:USD", 5), ("user:u:avail:USD", -5))),
        Entry(kind="release", id="x", digest=b"", closed=("hold:none",)),
    ],
)
def test_an_entry_that_breaks_a_rule_is_not_entered(entry: Entry) -> None:
    state = State()
    with pytest.raises(EntryError):
        state.apply(entry)
    assert state == State()


def test_an_entry_is_entered_once() -> None:
    state = after(deposit(10))
    entry = state.recent["deposit:bank:d"]
    with pytest.raises(EntryError):
        state.apply(entry)
    assert state.balance(ADA) == 10


@pytest.mark.parametrize(
    "name", ["", "ada", "user:ada:avail", "user:ada:avail:us", "user::hold:USD", "cash:USD"]
)
def test_what_names_no_account_is_refused(name: str) -> None:
    with pytest.raises(AccountError):
        account_of(name)
