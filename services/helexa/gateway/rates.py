# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""How many requests and tokens a key may have in a minute.

Each of N gateways enforces one Nth of a limit, on its own: over all of them, any `t` seconds see at
most ``limit * (1 + t / 60)``. A gateway that has just started holds its part of a minute's worth
once more. Where a limit is less than N requests, each gateway holds one all the same.

Tokens are those of the prompt, as estimated, and the most that the answer may have; when it ends,
what was not used is given back, and what was used besides is taken.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from helexa.gateway.authority import Caller, Claim
from helexa.gateway.http import Headers
from helexa.process.rates import Allowance, Allowances, rate_of
from helexa.protocol.errors import RateLimitedError
from helexa.protocol.messages.execution import TokenUsage

PERIOD_S = 60.0


class Verdict(NamedTuple):
    """Whether a request may go on, and what its client is told of its limits."""

    headers: Headers
    refusal: RateLimitedError | None = None


class _Meter(NamedTuple):
    """One limit of a key."""

    kind: str
    limit: int
    cost: int
    """Of this request."""
    allowance: Allowance

    def refusal(self) -> RateLimitedError | None:
        if self.cost > self.limit:
            return RateLimitedError(
                f"The request may need {self.cost} {self.kind}, and the API key has "
                f"{self.limit} a minute: make it smaller."
            )
        wait_s = self.allowance.wait_s(self.cost)
        if not wait_s:
            return None
        return RateLimitedError(
            f"The API key has {self.limit} {self.kind} a minute, and they are used up. "
            f"Try again in {duration(wait_s)}.",
            retry_after_s=wait_s,
        )

    def headers(self) -> Headers:
        left = max(0, int(self.allowance.level))
        kind = self.kind.encode()
        return [
            (b"x-ratelimit-limit-" + kind, b"%d" % self.limit),
            (b"x-ratelimit-remaining-" + kind, b"%d" % left),
            (b"x-ratelimit-reset-" + kind, duration(self.allowance.full_in_s()).encode()),
        ]


class Rates:
    """What the keys have had at this gateway."""

    def __init__(self, gateways: Callable[[], int]) -> None:
        """Divide every limit by `gateways()`."""
        self._gateways = gateways
        self._allowances = Allowances()

    def admit(self, caller: Caller, claim: Claim, now_s: float) -> Verdict:
        """Count a request of a key that has a limit, if it may go on."""
        meters = list(self._meters(caller, claim, now_s))
        refusals = [each for each in (meter.refusal() for meter in meters) if each is not None]
        if not refusals:
            for meter in meters:
                meter.allowance.use(meter.cost)
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
            if meter.kind == "tokens":
                meter.allowance.use(used - meter.cost)

    def _meters(self, caller: Caller, claim: Claim, now_s: float) -> Iterator[_Meter]:
        tokens = claim.prompt_tokens + (claim.max_tokens or 0) * claim.choices
        for kind, limit, cost in (
            ("requests", caller.requests_per_minute, 1),
            ("tokens", caller.tokens_per_minute, tokens),
        ):
            if limit is not None:
                rate = rate_of(limit, PERIOD_S, self._gateways())
                found = self._allowances.of(f"{caller.bearer}/{kind}", rate, now_s)
                yield _Meter(kind, limit, cost, found)


def duration(seconds: float) -> str:
    """Return a time as OpenAI's headers show it: `20ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 2), 60)
    shown = f"{rest:.2f}".rstrip("0").rstrip(".")
    return f"{int(minutes)}m{shown}s" if minutes else f"{shown}s"
