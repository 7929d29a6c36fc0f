# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Random histories of a ledger: commands that make sense, that do not, and that come again."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from helexa.portal.ledger import accounts
from helexa.portal.ledger.commands import (
    WINDOWS,
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
from helexa.portal.ledger.state import State

START_MS = 1_770_000_000_000
USERS = ("ada", "bob", "eve")
PROVIDERS = ("p1", "p2")
CURRENCIES = ("USD", "EUR")
KEYS = ("k1", "k2", "")


@dataclass(slots=True)
class History:
    """Makes one command after another, with the state before it in view."""

    random: Random
    state: State
    time_ms: int = START_MS
    sent: list[AnyCommand] = field(default_factory=list)
    made: int = 0

    def next(self) -> AnyCommand:
        """Return the next command: often a new one, sometimes one that was sent before."""
        self.time_ms += self.random.choice((0, 0, 1, 50, 2_000))
        if self.sent and self.random.random() < 0.1:
            return self.random.choice(self.sent)
        self.made += 1
        command = self.random.choices(MAKERS, WEIGHTS)[0](self)
        self.sent.append(command)
        return command

    def amount(self, most: int = 2_000) -> int:
        return self.random.randint(1, most)

    def user(self) -> str:
        return self.random.choice(USERS)

    def currency(self) -> str:
        return self.random.choice(CURRENCIES)

    def hold(self) -> str:
        return self.item("hold:") or f"g.{self.random.randint(0, self.made)}"

    def payout(self) -> str:
        return self.item("payout:") or f"o{self.random.randint(0, self.made)}"

    def settled(self) -> str:
        found = [each.payout for each in self.sent if isinstance(each, SettlePayout)]
        return self.random.choice(found) if found else self.payout()

    def item(self, prefix: str) -> str | None:
        """Return, mostly, one of the open items whose names begin so."""
        names = [name for name in self.state.items if name.startswith(prefix)]
        is_wanted = names and self.random.random() < 0.8
        return self.random.choice(names).partition(":")[2] if is_wanted else None

    def sent_deposit(self) -> Deposit:
        found = [each for each in self.sent if isinstance(each, Deposit)]
        return self.random.choice(found) if found else _deposit(self)


def _deposit(history: History) -> Deposit:
    amount = history.amount(20_000)
    return Deposit(
        user=history.user(),
        currency=history.currency(),
        rail=history.random.choice(("bank", "card")),
        reference=f"d{history.made}",
        amount=amount,
        fee=history.random.randint(0, amount),
    )


def _refund(history: History) -> Refund:
    of = history.sent_deposit()
    return Refund(
        refund=f"r{history.made}",
        rail=of.rail,
        reference=of.reference,
        amount=history.amount(of.amount),
    )


def _chargeback(history: History) -> Chargeback:
    of = history.sent_deposit()
    return Chargeback(
        dispute=f"c{history.made}",
        rail=of.rail,
        reference=of.reference,
        amount=history.amount(of.amount),
        fee=history.random.choice((0, 15)),
    )


def _grant(history: History) -> Grant:
    return Grant(
        grant=f"g{history.made}",
        user=history.user(),
        currency=history.currency(),
        amount=history.amount(),
        expires_at_ms=history.time_ms + history.random.randint(-10, 100_000),
    )


def _expire(history: History) -> ExpireGrant:
    names = [name for name in history.state.items if name.startswith("grant:")]
    name = history.random.choice(names) if names else "grant:none"
    return ExpireGrant(grant=name.partition(":")[2])


def _hold(history: History) -> Hold:
    return Hold(
        hold=f"g.{history.made}",
        user=history.user(),
        currency=history.currency(),
        amount=history.amount(),
        lifetime_ms=history.amount(60_000),
        api_key=history.random.choice(KEYS),
        price="v1",
    )


def _extend(history: History) -> Extend:
    return Extend(hold=history.hold(), until_ms=history.time_ms + history.amount(60_000))


def _payees(history: History, amount: int) -> tuple[tuple[str, int], ...]:
    if not amount or history.random.random() < 0.2:
        return ()
    share = history.random.randint(1, amount)
    return ((history.random.choice(PROVIDERS), share),)


def _capture(history: History) -> Capture:
    hold = history.hold()
    found = history.state.hold(hold)
    amount = history.random.randint(0, found.left + 50 if found else 100)
    return Capture(
        hold=hold,
        attempt=history.random.randint(1, 3),
        amount=amount,
        payees=_payees(history, amount),
        is_last=history.random.random() < 0.7,
    )


def _release(history: History) -> Release:
    return Release(hold=history.hold(), if_expired=history.random.random() < 0.5)


def _late(history: History) -> LateCapture:
    amount = history.amount(5_000)
    return LateCapture(
        hold=f"g.{history.random.randint(0, history.made)}",
        attempt=history.random.randint(1, 3),
        amount=amount,
        payees=_payees(history, amount),
    )


def _reserve(history: History) -> ReservePayout:
    provider, currency = history.random.choice(PROVIDERS), history.currency()
    left = history.state.balance(accounts.payable(provider, currency))
    return ReservePayout(
        payout=f"o{history.made}",
        provider=provider,
        currency=currency,
        amount=history.amount(left + 50),
    )


def _settle(history: History) -> SettlePayout:
    return SettlePayout(payout=history.payout(), rail="bank")


def _fail(history: History) -> FailPayout:
    return FailPayout(payout=history.payout())


def _return(history: History) -> ReturnPayout:
    return ReturnPayout(payout=history.settled())


def _budget(history: History) -> SetBudget:
    return SetBudget(
        change=f"b{history.made}",
        api_key=history.random.choice(KEYS[:2]),
        currency=history.currency(),
        window=history.random.choice(WINDOWS),
        limit=history.random.choice((None, 0, 5_000, 50_000, 1_000_000)),
    )


_WEIGHTED: tuple[tuple[Callable[[History], AnyCommand], int], ...] = (
    (_deposit, 8),
    (_refund, 3),
    (_chargeback, 2),
    (_grant, 4),
    (_expire, 2),
    (_hold, 40),
    (_extend, 4),
    (_capture, 30),
    (_release, 8),
    (_late, 6),
    (_reserve, 4),
    (_settle, 6),
    (_fail, 3),
    (_return, 2),
    (_budget, 2),
)
MAKERS = [maker for maker, _ in _WEIGHTED]
WEIGHTS = [weight for _, weight in _WEIGHTED]
