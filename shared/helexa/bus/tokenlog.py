# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The kept frames of answers: reading them back, and taking over an answer."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import nats.errors
import nats.js.errors
from nats.js import api

from helexa.bus import headers
from helexa.bus.client import Bus
from helexa.protocol import resources, subjects
from helexa.protocol.errors import ConflictError, UnavailableError

BATCH = 1024
CONSUMER_IDLE_S = 30.0
"""The server forgets a consumer that its reader has left."""
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


async def read_matching(bus: Bus, pattern: str, take: Callable[[str, Kept], bool]) -> None:
    """Call `take` with the subject of everything kept on `pattern`, oldest first.

    Ends early when `take` returns False. One consumer reads for all who want a part of it: of a log
    of 150,000 frames half was read in a second, and a hundred single reads took two (measured).

    Raises:
        UnavailableError: the log cannot be read.
    """
    config = api.ConsumerConfig(
        filter_subject=pattern,
        ack_policy=api.AckPolicy.NONE,
        inactive_threshold=CONSUMER_IDLE_S,
        mem_storage=True,
        num_replicas=1,
    )
    stream = resources.TOKENS.name
    try:
        consumer = await bus.jetstream.add_consumer(stream, config)
    except (TimeoutError, nats.errors.Error) as error:
        raise UnavailableError("the token log cannot be reached") from error
    pull = _Pull(bus, subjects.consumer_next(stream, consumer.name), take)
    try:
        await pull.run(consumer.num_pending or 0)
    finally:
        with contextlib.suppress(TimeoutError, nats.errors.Error):
            await bus.jetstream.delete_consumer(stream, consumer.name)


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
    arrived: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue()
    subscription = await bus.client.listen(
        inbox, lambda _, __, data, block: arrived.put_nowait((data, block))
    )
    query = {"seq": start, "next_by_subj": subject, "batch": BATCH}
    kept: list[Kept] = []
    try:
        await bus.client.publish(
            subjects.direct_get(resources.TOKENS.name), json.dumps(query).encode(), reply=inbox
        )
        async with asyncio.timeout(BATCH_DEADLINE_S):
            while True:
                data, block = await arrived.get()
                fields = headers.decode(block)
                status = fields.get(headers.STATUS)
                if status is not None:
                    if status not in (END_OF_BATCH, NOT_FOUND):
                        raise UnavailableError(f"the token log answered {status}")
                    return kept, len(kept) == BATCH
                kept.append(Kept(data, int(fields.get("Nats-Sequence", "0"))))
    except (nats.errors.Error, TimeoutError) as error:
        raise UnavailableError("the token log cannot be reached") from error
    finally:
        await subscription.unsubscribe()


class _Pull:
    """Takes messages from a consumer, so many at a time that neither side is swamped."""

    def __init__(self, bus: Bus, subject: str, take: Callable[[str, Kept], bool]) -> None:
        self._bus = bus
        self._subject = subject
        self._take = take
        self._missing = 0
        self._turn = asyncio.Event()
        """Set when a batch is complete."""
        self._has_ended = False

    async def run(self, pending: int) -> None:
        """Take `pending` messages."""
        inbox = self._bus.client.new_inbox()
        subscription = await self._bus.client.listen(inbox, self._arrive)
        try:
            while pending > 0 and not self._has_ended:
                self._missing = min(pending, BATCH)
                pending -= self._missing
                self._turn.clear()
                asked = json.dumps({"batch": self._missing, "no_wait": True}).encode()
                await self._bus.client.publish(self._subject, asked, reply=inbox)
                async with asyncio.timeout(BATCH_DEADLINE_S):
                    await self._turn.wait()
        except (nats.errors.Error, TimeoutError) as error:
            raise UnavailableError("the token log cannot be reached") from error
        finally:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()

    def _arrive(self, subject: str, reply: str, data: bytes, block: bytes) -> None:
        if block and headers.STATUS in headers.decode(block):
            # The log has dropped some since they were counted.
            self._has_ended = True
        elif self._take(subject, Kept(data, _sequence_in(reply))):
            self._missing -= 1
        else:
            self._has_ended = True
        if self._has_ended or not self._missing:
            self._turn.set()


def _sequence_in(reply: str) -> int:
    """Return a message's place from what its consumer is to be answered on.

    `$JS.ACK.STREAM.CONSUMER.DELIVERED.SEQUENCE…`, in which servers may name their domain and
    account after `ACK`. nats-py reads all of it, which takes longer than everything else here.
    """
    fields = reply.split(".")
    return int(fields[5] if len(fields) == 9 else fields[7])
