# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Reads kept messages of a stream, many by one request."""

import asyncio
import json
from dataclasses import dataclass

import nats.errors

from helexa.bus import headers
from helexa.bus.client import Bus
from helexa.protocol import subjects
from helexa.protocol.errors import UnavailableError

BATCH = 1024
BATCH_DEADLINE_S = 5.0
END_OF_BATCH = "204"
NOT_FOUND = "404"


@dataclass(frozen=True, slots=True)
class Kept:
    """A kept message and its place in its stream."""

    data: bytes
    sequence: int


async def read_batch(
    bus: Bus, stream: str, subject: str, start: int, *, max_bytes: int = 0
) -> tuple[list[Kept], bool]:
    """Return what is kept on one subject from place `start` on, and whether there may be more.

    Any copy of the stream answers, and may lack the newest.

    Args:
        bus: The connection.
        stream: The stream's name.
        subject: The literal subject.
        start: The first place to look at.
        max_bytes: Ends a batch early; 0 for no bound but that of its number.

    Raises:
        UnavailableError: the stream cannot be reached.
    """
    inbox = bus.client.new_inbox()
    arrived: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue()
    subscription = await bus.client.listen(
        inbox, lambda _, __, data, block: arrived.put_nowait((data, block))
    )
    query = {"seq": start, "next_by_subj": subject, "batch": BATCH}
    if max_bytes:
        query["max_bytes"] = max_bytes
    kept: list[Kept] = []
    try:
        await bus.client.publish(
            subjects.direct_get(stream), json.dumps(query).encode(), reply=inbox
        )
        async with asyncio.timeout(BATCH_DEADLINE_S):
            while True:
                data, block = await arrived.get()
                fields = headers.decode(block)
                status = fields.get(headers.STATUS)
                if status is not None:
                    if status not in (END_OF_BATCH, NOT_FOUND):
                        raise UnavailableError(f"the stream {stream} answered {status}")
                    return kept, len(kept) == BATCH or bool(max_bytes and kept)
                kept.append(Kept(data, int(fields.get("Nats-Sequence", "0"))))
    except (nats.errors.Error, TimeoutError) as error:
        raise UnavailableError(f"the stream {stream} cannot be reached") from error
    finally:
        await subscription.unsubscribe()
