# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Whether a receipt's amounts follow from prices and counts. Users and providers check alike."""

from dataclasses import dataclass, replace

from helexa.protocol.messages.receipts import Receipt
from helexa.protocol.price_list import PriceList
from helexa.protocol.pricing import Usage, cost_of, split
from helexa.protocol.receipts.faults import (
    ReceiptOverpaidError,
    ReceiptPriceError,
    ReceiptUnderpaidError,
    ReceiptUsageError,
)


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a provider knows of an attempt that it has served."""

    request_id: str
    attempt: int
    model: str
    usage: Usage
    """Its own count."""
    usage_hash: bytes
    """Of the usage record that its neuron signed."""
    prices: PriceList
    """The prices at which it was served."""
    unpaid_tokens: int = 0
    """Completion tokens that may be missing: those after a client had gone are not paid."""


def usage_of(receipt: Receipt) -> Usage:
    """Return what `receipt` counts.

    Raises:
        MalformedError: more tokens were cached than there were.
    """
    return Usage(
        prompt_tokens=receipt.prompt_tokens,
        cached_tokens=receipt.cached_tokens,
        completion_tokens=receipt.completion_tokens,
        requests=receipt.requests,
        images=receipt.images,
        audio_seconds=receipt.audio_seconds,
    )


def check_price(receipt: Receipt, prices: PriceList) -> None:
    """Refuse a receipt whose cost is not its counts at `prices`, or whose amount is not its part.

    Raises:
        ReceiptPriceError: it is made by other prices.
        ReceiptOverpaidError: it is about more.
        ReceiptUnderpaidError: it is about less.
        UnpricedError: `prices` have none for its model.
    """
    if (receipt.price_version, receipt.portal) != (prices.version, prices.portal):
        raise ReceiptPriceError
    price = prices.price(receipt.model)
    if price.currency != receipt.currency:
        raise ReceiptPriceError("the receipt is in another currency than the price")
    cost = cost_of(price, usage_of(receipt))
    _check_range("cost", receipt.cost, cost - _rounding(receipt, cost), cost)
    part = split(receipt.cost, prices.fee_basis_points).provider
    _check_range("amount", receipt.amount, part, part)


def check_work(receipt: Receipt, expected: Expectation) -> None:
    """Refuse a receipt that is not about the work that was done.

    Raises:
        ReceiptUsageError: it is about other work.
        ReceiptPriceError: it is made by other prices.
        ReceiptOverpaidError: it counts more.
        ReceiptUnderpaidError: it counts less.
        UnpricedError: the prices have none for its model.
    """
    ours = (expected.request_id, expected.attempt, expected.model, expected.usage_hash)
    if (receipt.request_id, receipt.attempt, receipt.model, receipt.usage_hash) != ours:
        raise ReceiptUsageError
    check_price(receipt, expected.prices)
    price, usage = expected.prices.price(expected.model), expected.usage
    paid_tokens = max(0, usage.completion_tokens - expected.unpaid_tokens)
    least = cost_of(price, replace(usage, completion_tokens=paid_tokens))
    most = cost_of(price, usage)
    _check_range("cost", receipt.cost, least - _rounding(receipt, least), most)


def _rounding(receipt: Receipt, cost: int) -> int:
    # A request is rounded up once, so that an attempt after its first may cost one less.
    return min(1, cost) if receipt.attempt > 1 else 0


def _check_range(what: str, found: int, least: int, most: int) -> None:
    if found > most:
        raise ReceiptOverpaidError(f"the {what} is {found} micro-units, more than {most}")
    if found < least:
        raise ReceiptUnderpaidError(f"the {what} is {found} micro-units, less than {least}")
