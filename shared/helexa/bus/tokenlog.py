# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The kept frames of answers: reading them back, and taking over an answer."""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import nats.errors
import nats.js.errors
from nats.js import api

from helexa.bus import headers
from helexa.bus.batches import BATCH, BATCH_DEADLINE_S, Kept, read_batch
from helexa.bus.client import Bus
from helexa.bus.journal import WRONG_LAST_SEQUENCE
from helexa.protocol import resources, subjects
from helexa.protocol.errors import ConflictError, UnavailableError

CONSUMER_IDLE_S = 30.0
"""The server forgets a consumer that its reader has left."""
LEADER_DEADLINE_S = 1.0
CREATE_DEADLINE_S = 1.5
CREATE_ATTEMPTS = 2
CATCH_UP_S = 5.0
"""A copy of the log that lags behind gets so long."""
CATCH_UP_EVERY_S = 0.05
NOTHING_MISSING = sys.maxsize


async def read_log(bus: Bus, subject: str) -> list[Kept]:
    """Return everything kept on one literal subject, oldest first.

    Raises:
        UnavailableError: the log cannot be reached.
    """
    kept: list[Kept] = []

    async def read() -> int:
        pending = True
        while pending:
            start = kept[-1].sequence + 1 if kept else 1
            batch, pending = await read_batch(bus, resources.TOKENS.name, subject, start)
            kept.extend(batch)
        return kept[-1].sequence if kept else 0

    if not await read():
        # A copy of the log answers, and lacks the last milliseconds at most. Nothing is an answer
        # that nobody mends later: it has to be the leader's.
        await _catch_up(read, 0, await last_sequence(bus, subject))
    return kept


async def read_matching(bus: Bus, pattern: str, take: Callable[[str, Kept], bool]) -> None:
    """Call `take` with the subject of everything kept on `pattern`, oldest first.

    Ends early when `take` returns False. One consumer reads for all who want a part of it: of a log
    of 150,000 frames half was read in a second, and a hundred single reads took two (measured).

    The consumer may be placed at a server that has just started and has nothing yet: for a second
    it says that nothing is kept (measured). The log's leader tells better.

    Raises:
        UnavailableError: the log cannot be read.
    """
    pull = _Pull(bus, take)

    async def read() -> int:
        async with _consumer(bus, pattern, pull.last + 1) as consumer:
            await pull.run(consumer.name, consumer.num_pending or 0)
        return NOTHING_MISSING if pull.has_enough else pull.last

    newest, last = await asyncio.gather(last_sequence(bus, pattern), read(), return_exceptions=True)
    if isinstance(last, BaseException):
        raise last
    if isinstance(newest, BaseException):
        # Without a leader, what was found counts; nothing is not proved.
        if last and isinstance(newest, UnavailableError):
            return
        raise newest
    await _catch_up(read, last, newest)


async def last_sequence(bus: Bus, pattern: str) -> int:
    """Return the place of the newest message on `pattern` as the log's leader has it, 0 for none.

    Raises:
        UnavailableError: the log has no leader, or cannot be reached.
    """
    try:
        async with asyncio.timeout(LEADER_DEADLINE_S):
            found = await bus.jetstream.get_last_msg(resources.TOKENS.name, pattern)
    except nats.js.errors.NotFoundError:
        return 0
    except (TimeoutError, nats.errors.Error) as error:
        raise UnavailableError("the token log has no leader") from error
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


async def _catch_up(read: Callable[[], Awaitable[int]], last: int, newest: int) -> None:
    """Call `read`, which returns the place it has come to, until that is `newest`."""
    give_up_at = time.monotonic() + CATCH_UP_S
    while last < newest:
        if time.monotonic() > give_up_at:
            raise UnavailableError("the token log is behind")
        await asyncio.sleep(CATCH_UP_EVERY_S)
        last = await read()


@contextlib.asynccontextmanager
async def _consumer(bus: Bus, pattern: str, start: int) -> AsyncIterator[api.ConsumerInfo]:
    config = api.ConsumerConfig(
        filter_subject=pattern,
        deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=start,
        ack_policy=api.AckPolicy.NONE,
        inactive_threshold=CONSUMER_IDLE_S,
        mem_storage=True,
        num_replicas=1,
    )
    stream = resources.TOKENS.name
    consumer = await _create(bus, config)
    try:
        yield consumer
    finally:
        with contextlib.suppress(TimeoutError, nats.errors.Error):
            await bus.jetstream.delete_consumer(stream, consumer.name)


async def _create(bus: Bus, config: api.ConsumerConfig) -> api.ConsumerInfo:
    """Create a consumer. A server that has just started may lose one: then there is another."""
    failure: Exception | None = None
    for _ in range(CREATE_ATTEMPTS):
        try:
            async with asyncio.timeout(CREATE_DEADLINE_S):
                return await bus.jetstream.add_consumer(resources.TOKENS.name, config)
        except TimeoutError as error:
            failure = error
        except nats.errors.Error as error:
            failure = error
            break
    raise UnavailableError("the token log cannot be reached") from failure


class _Pull:
    """Takes messages from consumers, so many at a time that neither side is swamped."""

    def __init__(self, bus: Bus, take: Callable[[str, Kept], bool]) -> None:
        self._bus = bus
        self._take = take
        self._missing = 0
        self._turn = asyncio.Event()
        """Set when a batch is complete."""
        self._has_ended = False
        self.has_enough = False
        """Whether `take` wants no more."""
        self.last = 0
        """The place of the last message taken."""

    async def run(self, consumer: str, pending: int) -> None:
        """Take `pending` messages."""
        subject = subjects.consumer_next(resources.TOKENS.name, consumer)
        inbox = self._bus.client.new_inbox()
        subscription = await self._bus.client.listen(inbox, self._arrive)
        self._has_ended = False
        try:
            while pending > 0 and not self._has_ended:
                self._missing = min(pending, BATCH)
                pending -= self._missing
                self._turn.clear()
                asked = json.dumps({"batch": self._missing, "no_wait": True}).encode()
                await self._bus.client.publish(subject, asked, reply=inbox)
                async with asyncio.timeout(BATCH_DEADLINE_S):
                    await self._turn.wait()
        except (nats.errors.Error, TimeoutError) as error:
            raise UnavailableError("the token log cannot be reached") from error
        finally:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()

    def _arrive(self, subject: str, reply: str, data: bytes, block: bytes) -> None:
        if self._has_ended:
            return
        if block and headers.STATUS in headers.decode(block):
            # The log has dropped some since they were counted.
            self._has_ended = True
        else:
            self.last = _sequence_in(reply)
            self._missing -= 1
            self._has_ended = self.has_enough = not self._take(subject, Kept(data, self.last))
        if self._has_ended or not self._missing:
            self._turn.set()


def _sequence_in(reply: str) -> int:
    """Return a message's place from what its consumer is to be answered on.

    `$JS.ACK.STREAM.CONSUMER.DELIVERED.SEQUENCE…`, in which servers may name their domain and
    account after `ACK`. nats-py reads all of it, which takes longer than everything else here.
    """
    fields = reply.split(".")
    return int(fields[5] if len(fields) == 9 else fields[7])
