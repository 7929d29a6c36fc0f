# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The kept frames of answers: reading them back, and taking over an answer."""

import asyncio
import json
from dataclasses import dataclass

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg

from helexa.bus import headers
from helexa.bus.client import Bus
from helexa.protocol import resources, subjects
from helexa.protocol.errors import ConflictError, UnavailableError

BATCH = 1024
BATCH_DEADLINE_S = 5.0
END_OF_BATCH = "204"
NOT_FOUND = "404"
WRONG_LAST_SEQUENCE = 10071


@dataclass(frozen=True, slots=True)
class Kept:
    """A kept message and its place in the log."""

    data: bytes
    sequence: int


async def read_log(bus: Bus, subject: str) -> list[Kept]:
    """Return everything kept on one literal subject, oldest first.

    Raises:
        UnavailableError: the log cannot be reached.
    """
    kept: list[Kept] = []
    while True:
        batch, pending = await _read_batch(bus, subject, kept[-1].sequence + 1 if kept else 1)
        kept += batch
        if not batch or not pending:
            return kept


async def last_sequence(bus: Bus, subject: str) -> int:
    """Return the place of the newest message on `subject`, 0 when there is none.

    Raises:
        UnavailableError: the log cannot be reached.
    """
    try:
        found = await bus.jetstream.get_last_msg(resources.TOKENS.name, subject, direct=True)
    except nats.js.errors.NotFoundError:
        return 0
    except (TimeoutError, nats.errors.Error) as error:
        raise UnavailableError("the token log cannot be reached") from error
    return found.seq or 0


async def append(bus: Bus, subject: str, data: bytes, *, after: int) -> int:
    """Publish `data` if `after` is still the newest on `subject`; of two writers one wins.

    Raises:
        ConflictError: the other one was first.
        UnavailableError: the log cannot be reached.
    """
    fields = {headers.EXPECTED_LAST_SEQUENCE_HEADER: str(after)}
    try:
        ack = await bus.jetstream.publish(subject, data, timeout=2, headers=fields)
    except nats.js.errors.APIError as error:
        if error.err_code == WRONG_LAST_SEQUENCE:
            raise ConflictError("another gateway has taken over this answer") from error
        raise UnavailableError("the token log cannot be written") from error
    except (TimeoutError, nats.errors.Error) as error:
        raise UnavailableError("the token log cannot be written") from error
    return ack.seq


async def _read_batch(bus: Bus, subject: str, start: int) -> tuple[list[Kept], bool]:
    inbox = bus.client.new_inbox()
    arrived: asyncio.Queue[Msg] = asyncio.Queue()

    async def take(message: Msg) -> None:
        arrived.put_nowait(message)

    subscription = await bus.client.subscribe(inbox, cb=take)
    query = {"seq": start, "next_by_subj": subject, "batch": BATCH}
    kept: list[Kept] = []
    try:
        await bus.client.publish(
            subjects.direct_get(resources.TOKENS.name), json.dumps(query).encode(), reply=inbox
        )
        async with asyncio.timeout(BATCH_DEADLINE_S):
            while True:
                message = await arrived.get()
                fields = message.headers or {}
                status = fields.get("Status")
                if status is not None:
                    if status not in (END_OF_BATCH, NOT_FOUND):
                        raise UnavailableError(f"the token log answered {status}")
                    return kept, len(kept) == BATCH
                kept.append(Kept(message.data, int(fields.get("Nats-Sequence", "0"))))
    except (nats.errors.Error, TimeoutError) as error:
        raise UnavailableError("the token log cannot be reached") from error
    finally:
        await subscription.unsubscribe()
