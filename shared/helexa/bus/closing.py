# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Leaving the site's servers for good, whatever nats-py is doing at that moment."""

import asyncio
import contextlib

import nats.errors
from nats.aio.client import Client

FLUSH_S = 2
LET_GO_S = 0.1


async def close(client: Client) -> None:
    """Flush what was published, close, and leave neither a task nor a socket behind."""
    if client.is_connected:
        with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError):
            await client.flush(timeout=FLUSH_S)
    try:
        await client.close()
    except (asyncio.CancelledError, RuntimeError, OSError):
        # Reconnecting, nats-py cancels what it waits for itself, or writes to a closed socket.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
    # Cancelled while it connects, it may miss that and go on for ever (python/cpython#86296).
    reconnecting = client._reconnection_task  # noqa: SLF001 - no other name
    while reconnecting is not None and not reconnecting.done():
        reconnecting.cancel()
        await asyncio.wait({reconnecting}, timeout=LET_GO_S)
    drop_socket(client)


def drop_socket(client: Client) -> None:
    """Close the socket of an attempt that failed, which nats-py forgets."""
    if (transport := client._transport) is not None:  # noqa: SLF001 - no other name
        transport.close()
