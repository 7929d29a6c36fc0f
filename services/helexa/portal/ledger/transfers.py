# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The rules of money that comes in or goes out: deposits, grants, payouts. Pure."""

from helexa.portal.ledger import accounts
from helexa.portal.ledger.commands import (
    Chargeback,
    Deposit,
    ExpireGrant,
    FailPayout,
    Grant,
    Refund,
    ReservePayout,
    ReturnPayout,
    SettlePayout,
)
from helexa.portal.ledger.draft import Draft, credited
from helexa.portal.ledger.entries import Entry, EntryKind
from helexa.portal.ledger.ids import deposit_id, settlement_id
from helexa.portal.ledger.items import (
    Item,
    LiveGrant,
    OpenPayout,
    Reversed,
    grant_name,
    payout_name,
    reversed_name,
)
from helexa.portal.ledger.refusals import Code, Refusal
from helexa.portal.ledger.state import State


def deposit(state: State, command: Deposit, time_ms: int) -> Draft:
    """Credit money that has come in.

    Raises:
        Refusal: the rail would keep all of it.
    """
    del time_ms
    currency, amount, fee = command.currency, command.amount, command.fee
    if fee >= amount:
        raise Refusal(Code.MALFORMED, "The fee is as large as the deposit.")
    return Draft(
        EntryKind.DEPOSIT,
        (
            (accounts.clearing(command.rail, currency), fee - amount),
            (accounts.fees(currency), -fee),
            *credited(state, command.user, currency, amount),
        ),
        facts={"user": command.user, "currency": currency, "amount": amount},
    )


def refund(state: State, command: Refund, time_ms: int) -> Draft:
    """Give back what is unspent, over the rail that it came by.

    Raises:
        Refusal: there was no such deposit, or less is left of it or of the balance.
    """
    del time_ms
    user, currency, reversal = _reversal(state, command)
    source = accounts.available(user, currency)
    left = state.balance(source)
    if command.amount > left:
        raise Refusal(Code.INSUFFICIENT_FUNDS, "So much is not unspent.", available=left)
    return Draft(
        EntryKind.REFUND,
        (
            (source, -command.amount),
            (accounts.clearing(command.rail, currency), command.amount),
        ),
        opened=reversal,
        facts=_reversed_facts(user, command),
    )


def chargeback(state: State, command: Chargeback, time_ms: int) -> Draft:
    """Take a deposit back; what the user no longer has is owed.

    Raises:
        Refusal: there was no such deposit, or less is left of it.
    """
    del time_ms
    user, currency, reversal = _reversal(state, command)
    source = accounts.available(user, currency)
    part = min(command.amount, state.balance(source))
    return Draft(
        EntryKind.CHARGEBACK,
        (
            (source, -part),
            (accounts.debt(user, currency), part - command.amount),
            (accounts.fees(currency), -command.fee),
            (accounts.clearing(command.rail, currency), command.amount + command.fee),
        ),
        opened=reversal,
        facts=_reversed_facts(user, command),
    )


def grant(state: State, command: Grant, time_ms: int) -> Draft:
    """Give a user something to spend, at the portal's cost.

    Raises:
        Refusal: its time is over already.
    """
    del state
    if command.expires_at_ms <= time_ms:
        raise Refusal(Code.EXPIRED, "The grant would expire before it begins.")
    live = LiveGrant(
        user=command.user, currency=command.currency, expires_at_ms=command.expires_at_ms
    )
    return Draft(
        EntryKind.GRANT,
        (
            (accounts.promotion(command.currency), -command.amount),
            (accounts.granted(command.user, command.grant, command.currency), command.amount),
        ),
        opened={grant_name(command.grant): live},
    )


def expire_grant(state: State, command: ExpireGrant, time_ms: int) -> Draft:
    """Take back what is left of a grant whose time is over.

    Raises:
        Refusal: there is no such grant, or its time is not over.
    """
    live = state.grant(command.grant)
    if live is None:
        raise Refusal(Code.UNKNOWN_GRANT, "There is no such grant.")
    if live.expires_at_ms > time_ms:
        raise Refusal(Code.NOT_EXPIRED, "The time of the grant is not over.")
    source = accounts.granted(live.user, command.grant, live.currency)
    left = state.balance(source)
    return Draft(
        EntryKind.GRANT_EXPIRED,
        ((source, -left), (accounts.promotion(live.currency), left)),
        closed=(grant_name(command.grant),),
    )


def reserve_payout(state: State, command: ReservePayout, time_ms: int) -> Draft:
    """Set aside what is about to be paid to a provider.

    Raises:
        Refusal: it has earned less.
    """
    del time_ms
    source = accounts.payable(command.provider, command.currency)
    left = state.balance(source)
    if command.amount > left:
        raise Refusal(Code.INSUFFICIENT_FUNDS, "So much is not payable.", available=left)
    opened = OpenPayout(provider=command.provider, currency=command.currency, amount=command.amount)
    return Draft(
        EntryKind.PAYOUT_RESERVED,
        (
            (source, -command.amount),
            (accounts.pending(command.provider, command.currency), command.amount),
        ),
        opened={payout_name(command.payout): opened},
    )


def settle_payout(state: State, command: SettlePayout, time_ms: int) -> Draft:
    """Enter that a payout has arrived.

    Raises:
        Refusal: no such payout is under way.
    """
    del time_ms
    found = _payout(state, command.payout)
    return Draft(
        EntryKind.PAYOUT_SETTLED,
        (
            (accounts.pending(found.provider, found.currency), -found.amount),
            (accounts.clearing(command.rail, found.currency), found.amount),
        ),
        closed=(payout_name(command.payout),),
        facts={
            "provider": found.provider,
            "currency": found.currency,
            "amount": found.amount,
            "rail": command.rail,
            "reference": command.reference,
        },
    )


def fail_payout(state: State, command: FailPayout, time_ms: int) -> Draft:
    """Make payable again what was not paid.

    Raises:
        Refusal: no such payout is under way.
    """
    del time_ms
    found = _payout(state, command.payout)
    return Draft(
        EntryKind.PAYOUT_FAILED,
        (
            (accounts.pending(found.provider, found.currency), -found.amount),
            (accounts.payable(found.provider, found.currency), found.amount),
        ),
        closed=(payout_name(command.payout),),
        facts={"provider": found.provider, "reason": command.reason},
    )


def return_payout(state: State, command: ReturnPayout, time_ms: int) -> Draft:
    """Make payable again what a rail has sent back.

    Raises:
        Refusal: no such payout has arrived.
    """
    del time_ms
    settled = state.find(settlement_id(command.payout))
    if settled is None or settled.kind != EntryKind.PAYOUT_SETTLED:
        raise Refusal(Code.UNKNOWN_PAYOUT, "No such payout has arrived.")
    facts = settled.facts
    provider, currency = str(facts["provider"]), str(facts["currency"])
    amount = int(facts["amount"])
    return Draft(
        EntryKind.PAYOUT_RETURNED,
        (
            (accounts.clearing(str(facts["rail"]), currency), -amount),
            (accounts.payable(provider, currency), amount),
        ),
        facts={"provider": provider, "reason": command.reason},
    )


def _payout(state: State, payout: str) -> OpenPayout:
    found = state.payout(payout)
    if found is None:
        raise Refusal(Code.UNKNOWN_PAYOUT, "No such payout is under way.")
    return found


def _reversal(state: State, command: Refund | Chargeback) -> tuple[str, str, dict[str, Item]]:
    """Return whose deposit goes back, in which currency, and what is noted of it."""
    name = deposit_id(command.rail, command.reference)
    found: Entry | None = state.find(name)
    if found is None:
        raise Refusal(Code.UNKNOWN_DEPOSIT, "There was no such deposit.")
    before = state.reversed_of(name)
    left = int(found.facts["amount"]) - before
    if command.amount > left:
        raise Refusal(
            Code.OVER_DEPOSIT, "That is more than what is left of the deposit.", available=left
        )
    noted = Reversed(amount=before + command.amount)
    return str(found.facts["user"]), str(found.facts["currency"]), {reversed_name(name): noted}


def _reversed_facts(user: str, command: Refund | Chargeback) -> dict[str, str | int]:
    return {"user": user, "deposit": deposit_id(command.rail, command.reference)}
