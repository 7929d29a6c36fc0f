# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A portal whose requests a provider serves; also a program that keeps its receipts."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from tests.protocol.receipting import (
    MODEL,
    NOW_MS,
    PORTAL,
    PRICES,
    PROVIDER,
    Issuer,
    receipt_for,
)

from helexa.portal.provider.book import Book, open_book
from helexa.portal.provider.exposure import CreditTerms
from helexa.portal.provider.work import Work, WorkId
from helexa.protocol.messages.receipts import SignedReceipt
from helexa.protocol.messages.usage import USAGE_DOMAIN, SignedUsage, usage_bytes
from helexa.protocol.receipts.signing import usage_hash
from helexa.site.keys import Identity

AMOUNT = receipt_for("gw.1").amount
TERMS = CreditTerms(first=1_000_000, most=10_000_000, growth_basis_points=1_000)
PORTALS = {"default": frozenset((PORTAL.public,))}


def book_in(
    directory: Path, *, terms: CreditTerms = TERMS, identity: Identity = PROVIDER
) -> AbstractContextManager[Book]:
    """Open the provider's book."""
    return open_book(directory, identity, PORTALS, {"USD": terms})


def work_of(request: str, attempt: int = 1, estimate: int = AMOUNT) -> Work:
    """Return an attempt that begins."""
    return Work(WorkId("default", request, attempt), MODEL, PRICES.version, estimate)


def usage_of(request: str, attempt: int = 1, completion_tokens: int = 500) -> SignedUsage:
    """Return what a neuron signs of it."""
    record = usage_bytes(
        {
            "version": 1,
            "request_id": request,
            "attempt": attempt,
            "neuron_id": "n",
            "portal": "default",
            "account": "a",
            "model": MODEL,
            "operation": "chat",
            "prompt_tokens": 1000,
            "completion_tokens": completion_tokens,
            "counted": "backend",
            "events": 9,
            "output_bytes": 99,
            "output_sha256": "0" * 64,
            "outcome": "done",
            "first_token_ms": 1,
            "total_ms": 2,
        }
    )
    return SignedUsage(
        record=record, key=PROVIDER.public, signature=PROVIDER.sign(USAGE_DOMAIN + record)
    )


@dataclass(slots=True)
class Shop:
    """The portal's side: what was served is paid by the next receipt."""

    issuer: Issuer = field(default_factory=Issuer)

    def receipt(self, request: str, **changes: object) -> SignedReceipt:
        """Return the receipt of a request, but for `changes`."""
        hashed = usage_hash(usage_of(request).record)
        return self.issuer.issue(
            msgspec.structs.replace(receipt_for(request, usage_hash=hashed), **changes)
        )


def served(book: Book, *requests: str) -> None:
    """Serve requests to their end."""
    book.agree(PRICES)
    for request in requests:
        book.begin(work_of(request), NOW_MS)
        book.end(usage_of(request))


def days_work(count: int) -> Iterator[tuple[str, SignedReceipt]]:
    """Yield requests and their receipts, the same in each run."""
    shop = Shop()
    for number in range(1, count + 1):
        yield f"gw.{number}", shop.receipt(f"gw.{number}")


def main() -> None:
    """Serve and keep receipts in the directory that is named, and tell of each."""
    directory, count = Path(sys.argv[1]), int(sys.argv[2])
    with book_in(directory) as book:
        for request, signed in days_work(count):
            served(book, request)
            sys.stdout.write(f"{book.accept(signed, NOW_MS).number}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
