# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a request costs: prices of a model, what is counted, and the two rules that join them.

The same rules run where the money is held, where it is booked, and wherever somebody checks it.
"""

from dataclasses import asdict, dataclass, fields

from helexa.protocol.errors import BadRequestError, MalformedError
from helexa.protocol.money import BASIS_POINTS, AmountError, checked_amount, checked_currency

PRICED_TOKENS = 1_000_000
"""Prices of tokens are for so many."""


class UnpricedError(BadRequestError):
    """This portal has no price for it."""

    code = "unpriced"


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in micro-units of `currency`. `None` is no price, which is not zero."""

    currency: str
    prompt: int | None = None
    """For 1,000,000 prompt tokens."""
    cached_prompt: int | None = None
    """For 1,000,000 prompt tokens that were in a cache; `None`: as much as the others."""
    completion: int | None = None
    """For 1,000,000 completion tokens."""
    request: int = 0
    """For the request itself."""
    image: int | None = None
    """For one image."""
    audio_second: int | None = None
    """For one second of audio."""

    def __post_init__(self) -> None:
        """Refuse a price that could exceed a hold.

        Raises:
            AmountError: an amount is negative, or cached tokens cost more than others.
            AmountOverflowError: an amount is too large.
        """
        checked_currency(self.currency)
        for name, amount in self.amounts.items():
            if checked_amount(amount) < 0:
                raise AmountError(f"a price is not negative: {name}", param=name)
        # A hold counts every prompt token as not cached, and must be enough.
        if (self.cached_prompt or 0) > (self.prompt or 0):
            raise AmountError("cached tokens cost at most what others do", param="cached_prompt")

    @property
    def amounts(self) -> dict[str, int]:
        """The prices that there are, by name."""
        return {
            field.name: amount
            for field in fields(self)
            if isinstance(amount := getattr(self, field.name), int)
        }


@dataclass(frozen=True, slots=True)
class Usage:
    """What is counted of one request, or of one attempt of it."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt tokens, those that were in a cache."""
    completion_tokens: int = 0
    requests: int = 1
    """0 for what a later attempt adds: the request itself is paid once."""
    images: int = 0
    audio_seconds: int = 0

    def __post_init__(self) -> None:
        """Refuse counts that cannot be.

        Raises:
            MalformedError: one is negative, or more tokens were cached than there were.
        """
        if (
            min(self.prompt_tokens, self.cached_tokens, self.completion_tokens) < 0
            or min(self.requests, self.images, self.audio_seconds) < 0
        ):
            raise MalformedError("a count is not negative")
        if self.cached_tokens > self.prompt_tokens:
            raise MalformedError("more prompt tokens were cached than there are")

    def plus(self, other: "Usage") -> "Usage":
        """Return both together."""
        mine, theirs = asdict(self), asdict(other)
        return Usage(**{name: count + theirs[name] for name, count in mine.items()})


@dataclass(frozen=True, slots=True)
class Split:
    """An amount between the portal and the provider; nothing is lost between them."""

    fee: int
    provider: int


def cost_of(price: Price, usage: Usage) -> int:
    """Return what `usage` costs, in micro-units: rounded up once, whatever is in it.

    Raises:
        UnpricedError: something was counted that has no price.
        AmountOverflowError: it is more than can be booked.
    """
    cached = price.prompt if price.cached_prompt is None else price.cached_prompt
    tokens = (
        _charge(usage.prompt_tokens - usage.cached_tokens, price.prompt, "prompt tokens")
        + _charge(usage.cached_tokens, cached, "prompt tokens")
        + _charge(usage.completion_tokens, price.completion, "completion tokens")
    )
    whole = (
        usage.requests * price.request
        + _charge(usage.images, price.image, "images")
        + _charge(usage.audio_seconds, price.audio_second, "audio")
    )
    return checked_amount(-(-tokens // PRICED_TOKENS) + whole)


def further_cost(price: Price, before: Usage, usage: Usage) -> int:
    """Return what `usage` of a later attempt adds to a request that has cost `before`.

    The sum over a request's attempts is then rounded once too, and stays within its hold. It is
    what `usage` alone would cost, or one micro-unit less.

    Raises:
        UnpricedError: something was counted that has no price.
        AmountOverflowError: it is more than can be booked.
    """
    return cost_of(price, before.plus(usage)) - cost_of(price, before)


def hold_for(
    price: Price,
    *,
    prompt_tokens: int,
    max_tokens: int,
    choices: int = 1,
    images: int = 0,
    audio_seconds: int = 0,
) -> int:
    """Return the most that a request may cost, in micro-units.

    Args:
        price: Of the model.
        prompt_tokens: An upper bound: the prompt's UTF-8 bytes and what its template adds will do.
        max_tokens: Most completion tokens of each choice.
        choices: Answers that are asked for.
        images: Images in the prompt.
        audio_seconds: Seconds of audio, rounded up.

    Raises:
        UnpricedError: something may be counted that has no price.
        AmountOverflowError: it is more than can be booked.
    """
    bounds = Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=max_tokens * choices,
        images=images,
        audio_seconds=audio_seconds,
    )
    return cost_of(price, bounds)


def split(amount: int, fee_basis_points: int) -> Split:
    """Return the portal's fee of `amount`, rounded down, and the provider's remainder.

    Raises:
        AmountError: the amount is negative, or the fee is not between 0 and 10,000.
    """
    if checked_amount(amount) < 0 or not 0 <= fee_basis_points <= BASIS_POINTS:
        raise AmountError("a fee is a part of an amount that is not negative")
    fee = amount * fee_basis_points // BASIS_POINTS
    return Split(fee=fee, provider=amount - fee)


def _charge(count: int, price: int | None, what: str) -> int:
    if not count:
        return 0
    if price is None:
        raise UnpricedError(f"this portal has no price for {what} of this model")
    return count * price
