# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
from collections import Counter, defaultdict
from random import Random

import pytest
from tests.portal.ledger.histories import History

from helexa.portal.ledger.accounts import CAPPED, FLOORED, Kind, account_of
from helexa.portal.ledger.block import hash_of, opened, sealed, time_after
from helexa.portal.ledger.commands import AnyCommand, Capture, Deposit
from helexa.portal.ledger.entries import MONEY_IN, Entry, EntryKind
from helexa.portal.ledger.plan import Entered, plan
from helexa.portal.ledger.refusals import Code, Refusal
from helexa.portal.ledger.state import Head, State

SEEDS = range(8)
COMMANDS = 2_000

Made = tuple[AnyCommand, Entry]


def made_by(seed: int) -> tuple[State, list[Made], Counter[Code]]:
    """Return what a random history has come to, what it entered, and what was refused."""
    state = State()
    history = History(Random(seed), state)  # noqa: S311 - a history, not a secret
    made: list[Made] = []
    refused: Counter[Code] = Counter()
    for _ in range(COMMANDS):
        command = history.next()
        before = dict(state.balances)
        answer = plan(state, command, history.time_ms)
        if isinstance(answer, Refusal):
            refused[answer.code] += 1
            assert state.balances == before
        elif answer.is_new:
            made.append((command, answer.entry))
        else:
            assert state.balances == before
        check_floors(state)
    return state, made, refused


def check_floors(state: State) -> None:
    for name, balance in state.balances.items():
        kind = account_of(name).kind
        assert kind not in FLOORED or balance >= 0, name
        assert kind not in CAPPED or balance <= 0, name


@pytest.fixture(scope="module", params=SEEDS)
def history(request: pytest.FixtureRequest) -> tuple[State, list[Made], Counter[Code]]:
    return made_by(request.param)


History_ = tuple[State, list[Made], Counter[Code]]


def test_every_currency_adds_up_to_zero(history: History_) -> None:
    state, _, _ = history
    sums: defaultdict[tuple[bool, str], int] = defaultdict(int)
    for name, balance in state.balances.items():
        account = account_of(name)
        sums[account.is_money, account.currency] += balance
    assert len(sums) == 4
    assert set(sums.values()) == {0}


def test_money_comes_from_deposits_alone(history: History_) -> None:
    state, made, _ = history
    inside: defaultdict[str, int] = defaultdict(int)
    for _, entry in made:
        for name, amount in entry.postings:
            account = account_of(name)
            if account.kind is Kind.CLEARING:
                inside[account.currency] -= amount
                assert amount > 0 or entry.kind in MONEY_IN
    returned = sum(entry.kind == EntryKind.PAYOUT_RETURNED for _, entry in made)
    settled = sum(entry.kind == EntryKind.PAYOUT_SETTLED for _, entry in made)
    assert returned <= settled
    owned: defaultdict[str, int] = defaultdict(int)
    for name, balance in state.balances.items():
        account = account_of(name)
        if account.kind is not Kind.CLEARING and account.is_money:
            owned[account.currency] += balance
    assert owned == inside


def test_nothing_is_refused_for_a_defect(history: History_) -> None:
    _, made, refused = history
    assert Code.OUT_OF_RANGE not in refused
    assert len({entry.kind for _, entry in made}) == len(EntryKind)
    assert len(made) > COMMANDS // 4


def test_what_is_held_is_what_open_holds_say(history: History_) -> None:
    state, _, _ = history
    held: defaultdict[str, int] = defaultdict(int)
    for _, hold in state.expired_holds(2**62):
        held[f"user:{hold.user}:hold:{hold.currency}"] += hold.left
    kept = {
        name: balance
        for name, balance in state.balances.items()
        if account_of(name).kind is Kind.HELD
    }
    assert kept == {name: amount for name, amount in held.items() if amount}


def test_each_hold_is_closed_once_and_pays_no_more_than_it_held(history: History_) -> None:
    state, made, _ = history
    amounts: dict[str, int] = {}
    paid: defaultdict[str, int] = defaultdict(int)
    attempts: Counter[tuple[str, int]] = Counter()
    closings: Counter[str] = Counter()
    for command, entry in made:
        if entry.kind == EntryKind.HOLD:
            amounts[entry.id.partition(":")[2]] = command.amount  # type: ignore[union-attr]
        if isinstance(command, Capture):
            paid[command.hold] += command.amount
            attempts[command.hold, command.attempt] += 1
        closings.update(name.partition(":")[2] for name in entry.closed if name[:5] == "hold:")
    assert set(closings.values()) == {1}
    assert set(attempts.values()) == {1}
    assert all(amount <= amounts[hold] for hold, amount in paid.items())
    still_open = {name for name, _ in state.expired_holds(2**62)}
    assert still_open == set(amounts) - set(closings)


def test_the_same_commands_again_change_nothing(history: History_) -> None:
    state, made, _ = history
    before = dict(state.balances)
    for command, entry in made:
        assert plan(state, command, state.head.time_ms + 1) == Entered(entry, is_new=False)
    assert state.balances == before


def test_another_command_under_a_known_id_is_a_conflict(history: History_) -> None:
    state, made, _ = history
    first = next(command for command, _ in made if isinstance(command, Deposit))
    other = Deposit(
        user="mallory",
        currency=first.currency,
        rail=first.rail,
        reference=first.reference,
        amount=first.amount,
    )
    answer = plan(state, other, 0)
    assert isinstance(answer, Refusal)
    assert answer.code == Code.CONFLICT


def test_a_state_folded_from_blocks_is_the_state_that_planned_them(history: History_) -> None:
    state, made, _ = history
    entries = [entry for _, entry in made]
    folded, head = State(), Head()
    for start in range(0, len(entries), 200):
        time_ms = time_after(head, start)
        data, made_head = sealed("default", head, time_ms, entries[start : start + 200])
        block, head = opened("default", head, data)
        assert head == made_head == Head(head.number, hash_of(data), time_ms)
        for entry in block.entries:
            folded.apply(entry)
    assert folded == state
    assert folded.take_changes() == state.take_changes()
