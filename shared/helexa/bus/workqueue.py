# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Queues of work on a JetStream stream: one subject and one durable pull consumer for each queue.

A message is handed to one puller at a time. It stays in the stream until that puller says that it
is done, and goes to the next one when it has said nothing for `ACK_WAIT_S`.
"""

import asyncio
import contextlib
import json
from dataclasses import dataclass
from hashlib import blake2b
from typing import Self

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import api

from helexa.bus.client import Bus
from helexa.protocol import subjects
from helexa.protocol.errors import (
    HelexaError,
    NoRespondersError,
    QueueFullError,
    UnavailableError,
)
from helexa.protocol.resources import Stream

ACK_WAIT_S = 10.0
PROGRESS_S = 3.0
"""How often a puller says that it is at work: two of these may get lost."""
MAX_WAITING = 4096
"""Pullers that may wait at one queue."""
MAX_NAME = 128
NO_BOUND = -1
NANOSECONDS = 1_000_000_000
STREAM_FULL = 10077
NO_MESSAGE = (10037, 10043, 10057)
"""JetStream's codes for a message that is not there."""
NO_RESPONDERS = "503"
NOTHING_THERE = ("404", "408")


class WorkQueue:
    """The side that puts work into the queues of one stream."""

    def __init__(self, bus: Bus, stream: Stream, *, ack_wait_s: float = ACK_WAIT_S) -> None:
        """Use `stream`, which exists; a message whose puller is silent so long goes to another."""
        self._bus = bus
        self._stream = stream.name
        self._ack_wait_s = ack_wait_s
        self._open: set[str] = set()
        bus.on_reconnected(self._forget)

    async def put(self, subject: str, data: bytes) -> int:
        """Append `data` to the queue of `subject` and return its number, once it is stored.

        Raises:
            QueueFullError: the stream is at its bound.
            UnavailableError: it is not known whether the message is stored.
        """
        try:
            if subject not in self._open:
                await self._open_queue(subject)
            return (await self._bus.jetstream.publish(subject, data)).seq
        except nats.js.errors.APIError as error:
            if error.err_code == STREAM_FULL:
                raise QueueFullError("The queue is full.", retry_after_s=ACK_WAIT_S) from error
            raise UnavailableError("the queue cannot be written") from error
        except (TimeoutError, nats.errors.Error) as error:
            raise UnavailableError("the queue cannot be written") from error

    async def holds(self, sequence: int, data: bytes) -> bool:
        """Whether the message is still in the queue, or with a puller.

        A stream that was lost and made anew counts from 1: the number alone does not tell.

        Raises:
            UnavailableError: the stream cannot be reached.
        """
        try:
            found = await self._bus.jetstream.get_msg(self._stream, sequence)
        except nats.js.errors.NotFoundError:
            return False
        except (TimeoutError, nats.errors.Error) as error:
            raise UnavailableError("the queue cannot be read") from error
        return found.data == data

    async def withdraw(self, sequence: int) -> None:
        """Take a message out again; nothing happens to one that is not there.

        Raises:
            UnavailableError: the stream cannot be reached.
        """
        asked = json.dumps({"seq": sequence, "no_erase": True}).encode()
        try:
            reply = await self._bus.client.request(
                subjects.erase(self._stream), asked, timeout=ACK_WAIT_S
            )
        except (TimeoutError, nats.errors.Error) as error:
            raise UnavailableError("the queue cannot be changed") from error
        error_code = json.loads(reply.data).get("error", {}).get("err_code")
        if error_code not in (None, *NO_MESSAGE):
            raise UnavailableError(f"the queue cannot be changed ({error_code})")

    async def _open_queue(self, subject: str) -> None:
        name = queue_name(subject)
        config = api.ConsumerConfig(
            name=name,
            durable_name=name,
            filter_subject=subject,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=self._ack_wait_s,
            # At a bound, a message would stay in the stream and be handed to nobody.
            max_deliver=NO_BOUND,
            max_ack_pending=NO_BOUND,
            max_waiting=MAX_WAITING,
        )
        await self._bus.jetstream.add_consumer(self._stream, config)
        self._open.add(subject)

    async def _forget(self) -> None:
        # The servers that are back may have lost what the others had.
        self._open.clear()


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that was pulled; it is ours until we fall silent about it."""

    data: bytes
    sequence: int
    """Its number in the stream."""
    deliveries: int
    """How often it has been handed out, this time included."""
    _bus: Bus
    _reply: str

    async def done(self) -> None:
        """Take it out of the queue for good."""
        await self._say(b"+ACK")

    async def in_progress(self) -> None:
        """Keep it from others for another `ACK_WAIT_S`."""
        await self._say(b"+WPI")

    async def put_back(self, after_s: float = 0.0) -> None:
        """Let it be pulled again, by anybody, after so many seconds."""
        delay = {"delay": int(after_s * NANOSECONDS)}
        await self._say(b"-NAK " + json.dumps(delay).encode() if after_s else b"-NAK")

    async def _say(self, word: bytes) -> None:
        # What is lost here shows as silence, and the message is handed out again.
        with contextlib.suppress(HelexaError):
            await self._bus.publish_raw(self._reply, word)


class Puller:
    """The side that takes work from one queue."""

    def __init__(self, bus: Bus, stream: Stream, subject: str) -> None:
        """Pull what is put to `subject`, inside `async with`."""
        self._bus = bus
        self._ask_at = subjects.consumer_next(stream.name, queue_name(subject))
        self._inbox = bus.client.new_inbox()
        self._asked = 0
        self._arrived: asyncio.Queue[Msg | None] = asyncio.Queue()
        self._subscription: Subscription | None = None

    async def __aenter__(self) -> Self:
        """Begin to receive."""
        self._subscription = await self._bus.client.subscribe(f"{self._inbox}.*", cb=self._take)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Receive no more."""
        if self._subscription is not None and not self._bus.closed.is_set():
            with contextlib.suppress(nats.errors.Error):
                await self._subscription.unsubscribe()

    async def next(self, timeout_s: float) -> Delivery | None:
        """Return the next message, or `None` when there was none for so long.

        A message that comes after the time has passed is returned by the next call.

        Raises:
            NoRespondersError: there is no such queue, because nothing was ever put into it.
            UnavailableError: the queue cannot be reached.
        """
        if self._arrived.empty():
            await self._ask(timeout_s)
        try:
            # The server's word comes a little later than its time.
            async with asyncio.timeout(timeout_s + 1):
                message = await self._arrived.get()
        except TimeoutError:
            return None
        return self._read(message) if message is not None else None

    def look_again(self) -> None:
        """End a pull that is under way: the servers may have forgotten it."""
        self._arrived.put_nowait(None)

    async def _ask(self, timeout_s: float) -> None:
        self._asked += 1
        asked = {"batch": 1, "expires": int(timeout_s * NANOSECONDS)}
        await self._bus.publish_raw(
            self._ask_at, json.dumps(asked).encode(), reply=f"{self._inbox}.{self._asked}"
        )

    async def _take(self, message: Msg) -> None:
        is_status = "Status" in (message.headers or {})
        if is_status and message.subject != f"{self._inbox}.{self._asked}":
            return
        self._arrived.put_nowait(message)

    def _read(self, message: Msg) -> Delivery | None:
        status = (message.headers or {}).get("Status")
        if status == NO_RESPONDERS:
            raise NoRespondersError("there is no such queue")
        if status in NOTHING_THERE:
            return None
        if status is not None:
            raise UnavailableError(f"the queue answered {status}")
        told = message.metadata
        return Delivery(
            data=message.data,
            sequence=told.sequence.stream,
            deliveries=told.num_delivered,
            _bus=self._bus,
            _reply=message.reply,
        )


def queue_name(subject: str) -> str:
    """Return the name of the consumer of `subject`: its last token, or a digest of a long one."""
    token = subject.rpartition(".")[2]
    if len(token) <= MAX_NAME:
        return token
    return blake2b(token.encode(), digest_size=16).hexdigest()
