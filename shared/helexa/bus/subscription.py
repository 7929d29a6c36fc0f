# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Subscriptions whose messages are handed over where they are read."""

import asyncio
import contextlib
from collections.abc import Callable

import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription

UNSUBSCRIBE_S = 2.0

Taker = Callable[[str, str, bytes, bytes], None]
"""Takes a message: its subject, the subject to answer on, its data, its block of headers.

The last three may be empty. It must not block; what it raises is logged.
"""


Hearer = Callable[[str, bytes], None]
"""Takes the subject and the data of a message; the same holds."""


class DirectSubscription(Subscription):
    """A subscription with code of ours. It knows no limit."""

    def __init__(self, client: Client, number: int, subject: str, queue: str) -> None:
        """Hand what comes on `subject` to `take` or to `hear`, whichever is set."""
        super().__init__(client, number, subject, queue=queue)
        self.take: Taker | None = None
        self.hear: Hearer | None = None


async def unsubscribe(subscription: Subscription) -> None:
    """Hear no more on one subject; what has arrived is still handed out."""
    with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError):
        await asyncio.wait_for(subscription.drain(), UNSUBSCRIBE_S)
