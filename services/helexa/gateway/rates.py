# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""How many requests and tokens a key may have in a minute.

Each gateway knows of a limit what is left of it: it counts what it lets through itself, and what
the others tell of several times a second. Of what is left, each of N gateways lets through one Nth
in a second, and one request at least while anything is left. So a caller who stays at one gateway
has the whole limit, and all gateways together keep to it:

- any `t` seconds see at most ``limit * (1 + t / 60)`` and one request of each gateway, as long as
  what gateways tell arrives before they begin a new second;
- what one of them lets through before it has heard of the others adds at most the limit once more,
  and is missing from what is let through after that.

A gateway that starts has heard nothing, so each start may add the limit once.

Tokens are those of the prompt, as estimated, and the most that the answer may have; when it ends,
what was not used is given back, and what was used besides is taken.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from helexa.gateway.authority import Caller, Claim
from helexa.gateway.http import Headers
from helexa.process.rates import Allowance, Allowances, rate_of
from helexa.protocol.errors import RateLimitedError
from helexa.protocol.messages.accounts import KeyUse, KeyUses
from helexa.protocol.messages.execution import TokenUsage

PERIOD_S = 60.0
TURN_S = 1.0
"""How long a gateway lets through its part of what was left when that time began."""
REQUESTS, TOKENS = "requests", "tokens"


class Verdict(NamedTuple):
    """Whether a request may go on, and what its client is told of its limits."""

    headers: Headers
    refusal: RateLimitedError | None = None


@dataclass(slots=True)
class _Turn:
    """What this gateway lets through in a second."""

    ends_s: float
    part: float
    used: float = 0.0


class _Meter(NamedTuple):
    """One limit of a key, for one request."""

    name: tuple[str, str]
    """The key and the kind."""
    limit: int
    cost: int
    """Of this request."""
    allowance: Allowance
    turn: _Turn

    def refusal(self, now_s: float) -> RateLimitedError | None:
        kind = self.name[1]
        if self.cost > self.limit:
            return RateLimitedError(
                f"The request may need {self.cost} {kind}, and the API key has "
                f"{self.limit} a minute: make it smaller."
            )
        wait_s = self.allowance.wait_s(self.cost)
        if not wait_s and self.turn.used and self.turn.used + self.cost > self.turn.part:
            wait_s = self.turn.ends_s - now_s
        if not wait_s:
            return None
        return RateLimitedError(
            f"The API key has {self.limit} {kind} a minute, and they are used up. "
            f"Try again in {duration(wait_s)}.",
            retry_after_s=wait_s,
        )

    def headers(self) -> Headers:
        left = max(0, int(self.allowance.level))
        kind = self.name[1].encode()
        return [
            (b"x-ratelimit-limit-" + kind, b"%d" % self.limit),
            (b"x-ratelimit-remaining-" + kind, b"%d" % left),
            (b"x-ratelimit-reset-" + kind, duration(self.allowance.full_in_s()).encode()),
        ]


class Rates:
    """What the keys have had, as far as this gateway knows."""

    def __init__(self, me: str, gateways: Callable[[], int]) -> None:
        """Count at the gateway `me`, which is one of `gateways()`."""
        self.has_news = asyncio.Event()
        """Set while there is something to tell the others."""
        self._me = me
        self._gateways = gateways
        self._allowances = Allowances()
        self._turns: dict[tuple[str, str], _Turn] = {}
        self._untold: dict[tuple[str, str], tuple[int, int]] = {}
        """The limit, and what was used of it."""

    def admit(self, caller: Caller, claim: Claim, now_s: float) -> Verdict:
        """Count a request of a key that has a limit, if it may go on."""
        meters = list(self._meters(caller, claim, now_s))
        refusals = [each for each in (meter.refusal(now_s) for meter in meters) if each is not None]
        if not refusals:
            for meter in meters:
                meter.turn.used += meter.cost
                self._use(meter, meter.cost)
        headers = [header for meter in meters for header in meter.headers()]
        return Verdict(headers, refusals[-1] if refusals else None)

    def correct(self, caller: Caller, claim: Claim, usage: TokenUsage | None, now_s: float) -> None:
        """Count the tokens that a request has used in place of those it might have.

        Args:
            caller: Whose it is.
            claim: As it was admitted.
            usage: `None`: nobody has told; then it has used its prompt.
            now_s: The time.
        """
        if caller.tokens_per_minute is None:
            return
        used = usage.prompt_tokens + usage.completion_tokens if usage else claim.prompt_tokens
        for meter in self._meters(caller, claim, now_s):
            if meter.name[1] == TOKENS:
                self._use(meter, used - meter.cost)

    def hear(self, told: KeyUses, now_s: float) -> None:
        """Count what another gateway has let through."""
        if told.gateway == self._me:
            return
        for use in told.uses:
            self._allowance((use.key, use.kind), use.limit, now_s).use(use.amount)

    def take_untold(self, now_s: float) -> KeyUses:
        """Return what the others have not been told, as told from now on."""
        self.has_news.clear()
        untold, self._untold = self._untold, {}
        self._turns = {name: turn for name, turn in self._turns.items() if now_s < turn.ends_s}
        uses = (
            KeyUse(key=key, kind=kind, limit=limit, amount=amount)
            for (key, kind), (limit, amount) in untold.items()
        )
        return KeyUses(gateway=self._me, uses=tuple(uses))

    def _use(self, meter: _Meter, amount: int) -> None:
        meter.allowance.use(amount)
        before = self._untold.get(meter.name, (0, 0))[1]
        self._untold[meter.name] = (meter.limit, before + amount)
        self.has_news.set()

    def _meters(self, caller: Caller, claim: Claim, now_s: float) -> Iterator[_Meter]:
        tokens = claim.prompt_tokens + (claim.max_tokens or 0) * claim.choices
        for kind, limit, cost in (
            (REQUESTS, caller.requests_per_minute, 1),
            (TOKENS, caller.tokens_per_minute, tokens),
        ):
            if limit is not None:
                name = (caller.bearer, kind)
                allowance = self._allowance(name, limit, now_s)
                yield _Meter(name, limit, cost, allowance, self._turn(name, allowance, now_s))

    def _allowance(self, name: tuple[str, str], limit: int, now_s: float) -> Allowance:
        return self._allowances.of("/".join(name), rate_of(limit, PERIOD_S), now_s)

    def _turn(self, name: tuple[str, str], allowance: Allowance, now_s: float) -> _Turn:
        turn = self._turns.get(name)
        if turn is None or now_s >= turn.ends_s:
            gateways = self._gateways()
            # One that is alone need not wait for what the others tell.
            part = allowance.level / gateways if gateways > 1 else float("inf")
            turn = self._turns[name] = _Turn(now_s + TURN_S, part)
        return turn


def duration(seconds: float) -> str:
    """Return a time as OpenAI's headers show it: `20ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 2), 60)
    shown = f"{rest:.2f}".rstrip("0").rstrip(".")
    return f"{int(minutes)}m{shown}s" if minutes else f"{shown}s"
