# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The provider's book as others look into it, also while it is written."""

from collections.abc import Iterator
from pathlib import Path

from helexa.portal.provider.files import open_for_reading
from helexa.portal.provider.tables import Tables
from helexa.protocol.messages.receipts import SignedReceipt


def read_book(directory: Path, portal: str | None = None) -> Iterator[tuple[SignedReceipt, bool]]:
    """Yield each receipt in the book in `directory`, and whether it is settled.

    Args:
        directory: Of the book.
        portal: The portal whose receipts are wanted; `None`: all.

    Raises:
        BookError: there is no book, or it is of another version.
    """
    with open_for_reading(directory) as connection:
        yield from Tables(connection).receipts(portal)
