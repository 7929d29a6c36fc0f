# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The rules of holds: what is set aside for a request, and what becomes of it. Pure."""

from datetime import UTC, datetime

from helexa.portal.accounts.periods import period_at
from helexa.portal.ledger import accounts
from helexa.portal.ledger.commands import (
    WINDOWS,
    Capture,
    Extend,
    Hold,
    LateCapture,
    Release,
    SetBudget,
)
from helexa.portal.ledger.draft import (
    Draft,
    counted,
    drawn,
    given_back,
    paid_out,
    spent,
    taken_from,
)
from helexa.portal.ledger.entries import EntryKind
from helexa.portal.ledger.ids import capture_id, closing_id, hold_id
from helexa.portal.ledger.items import Item, Limit, OpenHold, hold_name, limit_name
from helexa.portal.ledger.refusals import Code, Refusal
from helexa.portal.ledger.state import State


def hold(state: State, command: Hold, time_ms: int) -> Draft:
    """Set money aside.

    Raises:
        Refusal: there is too little, a budget is used up, or the user owes money.
    """
    user, currency, amount = command.user, command.currency, command.amount
    if state.balance(accounts.debt(user, currency)):
        raise Refusal(Code.IN_DEBT, "A deposit was taken back; pay what is owed first.")
    budgets = _budgets(state, command, time_ms)
    sources, missing = drawn(state, user, currency, amount, time_ms)
    if missing:
        raise Refusal(
            Code.INSUFFICIENT_FUNDS, "The balance is too low.", available=amount - missing
        )
    opened = OpenHold(
        user=user,
        currency=currency,
        api_key=command.api_key,
        sources=sources,
        budgets=budgets,
        price=command.price,
        expires_at_ms=time_ms + command.lifetime_ms,
        attempts=(),
    )
    return Draft(
        EntryKind.HOLD,
        (
            *taken_from(sources),
            (accounts.held(user, currency), amount),
            *counted(budgets, amount, currency),
        ),
        opened={hold_name(command.hold): opened},
    )


def extend(state: State, command: Extend, time_ms: int) -> Draft:
    """Let a hold last longer.

    Raises:
        Refusal: it is not open, or already lasts as long.
    """
    found = _open(state, command.hold)
    if command.until_ms <= max(found.expires_at_ms, time_ms):
        raise Refusal(Code.NOT_LATER, "The hold lasts as long already.")
    changed = _changed(found, expires_at_ms=command.until_ms)
    return Draft(EntryKind.EXTENSION, opened={hold_name(command.hold): changed})


def capture(state: State, command: Capture, time_ms: int) -> Draft:
    """Pay from a hold.

    Raises:
        Refusal: it is not open, has too little left, or has paid this attempt.
    """
    del time_ms
    found = _open(state, command.hold)
    if command.attempt in found.attempts:
        raise Refusal(Code.ALREADY_CAPTURED, "This attempt has been paid.")
    if command.amount > found.left:
        raise Refusal(
            Code.OVER_HOLD, "That is more than what is left of the hold.", available=found.left
        )
    _check_payees(command)
    currency, name = found.currency, hold_name(command.hold)
    left = spent(found.sources, command.amount)
    moves = paid_out(command.payees, command.amount, currency)
    taken, opened = command.amount, dict[str, Item]()
    if command.is_last:
        taken = found.left
        moves += given_back(state, found.user, currency, left)
        moves += counted(found.budgets, command.amount - taken, currency)
    else:
        attempts = (*found.attempts, command.attempt)
        opened[name] = _changed(found, sources=left, attempts=attempts)
    return Draft(
        EntryKind.CAPTURE,
        (*moves, (accounts.held(found.user, currency), -taken)),
        opened=opened,
        closed=(name,) if command.is_last else (),
        facts=_facts(command) | {"user": found.user, "price": found.price},
    )


def release(state: State, command: Release, time_ms: int) -> Draft:
    """Give a hold back.

    Raises:
        Refusal: it is not open, or its time, that was asked for, is not over.
    """
    found = _open(state, command.hold)
    if command.if_expired and found.expires_at_ms > time_ms:
        raise Refusal(Code.NOT_EXPIRED, "The time of the hold is not over.")
    return Draft(
        EntryKind.RELEASE,
        (
            (accounts.held(found.user, found.currency), -found.left),
            *given_back(state, found.user, found.currency, found.sources),
            *counted(found.budgets, -found.left, found.currency),
        ),
        closed=(hold_name(command.hold),),
        facts={"user": found.user, "reason": command.reason},
    )


def late_capture(state: State, command: LateCapture, time_ms: int) -> Draft:
    """Pay what became known after a hold was closed, at the portal's cost where need be.

    Raises:
        Refusal: there was no such hold, it is open, or this attempt has been paid.
    """
    taken = state.find(hold_id(command.hold))
    found = None if taken is None else taken.opened[hold_name(command.hold)]
    if not isinstance(found, OpenHold):
        raise Refusal(Code.UNKNOWN_HOLD, "There was no such hold.")
    closing = state.find(closing_id(command.hold))
    if closing is None:
        raise Refusal(Code.HOLD_OPEN, "The hold is open: capture it.")
    before = state.find(capture_id(command.hold, command.attempt))
    if before is not None or closing.facts.get("attempt") == command.attempt:
        raise Refusal(Code.ALREADY_CAPTURED, "This attempt has been paid.")
    _check_payees(command)
    currency = found.currency
    sources, missing = drawn(state, found.user, currency, command.amount, time_ms)
    return Draft(
        EntryKind.LATE_CAPTURE,
        (
            *taken_from(sources),
            (accounts.bad_debt(currency), -missing),
            *paid_out(command.payees, command.amount, currency),
            *counted(found.budgets, command.amount, currency),
        ),
        facts=_facts(command) | {"user": found.user, "price": found.price, "uncovered": missing},
    )


def set_budget(state: State, command: SetBudget, time_ms: int) -> Draft:
    """Set or remove the limit of a key. What it has used so far counts."""
    del time_ms
    name = limit_name(command.api_key, command.window, command.currency)
    if command.limit is None:
        return Draft(EntryKind.BUDGET, closed=(name,) if name in state.items else ())
    limit = Limit(
        api_key=command.api_key,
        currency=command.currency,
        window=command.window,
        amount=command.limit,
    )
    return Draft(EntryKind.BUDGET, opened={name: limit})


def period_of(window: str, time_ms: int) -> str:
    """Return the name of the day, week or month, in UTC, that a time falls in."""
    return period_at(window, datetime.fromtimestamp(time_ms / 1000, UTC)).name


def _budgets(state: State, command: Hold, time_ms: int) -> tuple[str, ...]:
    if not command.api_key:
        return ()
    budgets: list[str] = []
    for window in WINDOWS:
        limit = state.limit(command.api_key, window, command.currency)
        if limit is None:
            continue
        name = accounts.budget(command.api_key, period_of(window, time_ms), command.currency)
        left = limit - state.balance(name)
        if command.amount > left:
            raise Refusal(
                Code.BUDGET_EXCEEDED,
                f"The key's budget ({window}) is used up.",
                available=max(0, left),
            )
        budgets.append(name)
    return tuple(budgets)


def _open(state: State, hold: str) -> OpenHold:
    found = state.hold(hold)
    if found is None:
        raise Refusal(Code.UNKNOWN_HOLD, "No such hold is open.")
    return found


def _changed(
    found: OpenHold,
    *,
    sources: tuple[tuple[str, int], ...] | None = None,
    attempts: tuple[int, ...] | None = None,
    expires_at_ms: int | None = None,
) -> OpenHold:
    return OpenHold(
        user=found.user,
        currency=found.currency,
        api_key=found.api_key,
        sources=found.sources if sources is None else sources,
        budgets=found.budgets,
        price=found.price,
        expires_at_ms=found.expires_at_ms if expires_at_ms is None else expires_at_ms,
        attempts=found.attempts if attempts is None else attempts,
    )


def _check_payees(command: Capture | LateCapture) -> None:
    if sum(share for _, share in command.payees) > command.amount:
        raise Refusal(Code.MALFORMED, "The payees would get more than is paid.")


def _facts(command: Capture | LateCapture) -> dict[str, str | int]:
    return {"hold": command.hold, "attempt": command.attempt, "memo": command.memo}
