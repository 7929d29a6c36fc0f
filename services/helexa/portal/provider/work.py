# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Work that has no receipt yet: what it may earn, and what a receipt must say of it."""

from dataclasses import dataclass

from helexa.protocol.messages.receipts import Receipt
from helexa.protocol.messages.usage import UsageRecord, read_usage
from helexa.protocol.price_list import PriceList
from helexa.protocol.pricing import Usage, cost_of, split
from helexa.protocol.receipts.checks import Expectation
from helexa.protocol.receipts.signing import usage_hash


@dataclass(frozen=True, slots=True)
class WorkId:
    """One attempt of one request of a portal's user."""

    portal: str
    request_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Work:
    """An attempt that was begun, and what was counted of it when it ended."""

    work_id: WorkId
    model: str
    price_version: str
    estimate: int = 0
    """What it is expected to earn at most, in micro-units; when it has ended, what it earned."""
    images: int = 0
    audio_seconds: int = 0
    usage: bytes | None = None
    """The usage record that the neuron signed; `None` while it runs."""
    unpaid_tokens: int = 0
    """Of its completion tokens, those that came too long after the client had gone to be paid."""


def work_id_of(record: UsageRecord) -> WorkId:
    """Return the attempt that `record` counts."""
    return WorkId(record.portal, record.request_id, record.attempt)


def earned_by(work: Work, record: UsageRecord, prices: PriceList) -> int:
    """Return what an attempt that has ended earns its provider, by the provider's own count.

    Raises:
        UnpricedError: `prices` have none for it.
    """
    cost = cost_of(prices.price(work.model), _counted(work, record, int(record.attempt == 1)))
    return split(cost, prices.fee_basis_points).provider


def expected_of(work: Work, prices: PriceList, receipt: Receipt) -> Expectation | None:
    """Return what `receipt` must say of `work`, or `None` when the work has not ended.

    Of several attempts the portal says which one the request itself is paid with.
    """
    if work.usage is None:
        return None
    record = read_usage(work.usage)
    requests = 1 if work.work_id.attempt == 1 else min(1, receipt.requests)
    return Expectation(
        request_id=work.work_id.request_id,
        attempt=work.work_id.attempt,
        model=work.model,
        usage=_counted(work, record, requests),
        usage_hash=usage_hash(work.usage),
        prices=prices,
        unpaid_tokens=work.unpaid_tokens,
    )


def _counted(work: Work, record: UsageRecord, requests: int) -> Usage:
    return Usage(
        prompt_tokens=record.prompt_tokens,
        cached_tokens=record.cached_tokens,
        completion_tokens=record.completion_tokens,
        requests=requests,
        images=work.images,
        audio_seconds=work.audio_seconds,
    )
