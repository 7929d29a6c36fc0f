# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The serving side of requests: concurrent handlers, typed errors, discovery, orderly end."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import nats.errors
from nats.aio.subscription import Subscription

from helexa.bus import headers
from helexa.bus.bodies import get_body, put_body
from helexa.bus.client import Bus
from helexa.bus.context import DEADLINE, REQUEST_ID, SUBJECT, TRACEPARENT, Deadline
from helexa.bus.deadlines import Deadlines
from helexa.protocol import subjects
from helexa.protocol.codec import pack, unpack
from helexa.protocol.errors import (
    BusyError,
    DeadlineExceededError,
    HelexaError,
    InternalError,
    ShuttingDownError,
)
from helexa.protocol.messages.base import Message
from helexa.protocol.subjects import Call, ReplyT, RequestT, pattern_of

_log = logging.getLogger(__name__)

DEFAULT_CONCURRENCY = 4096
"""Requests of one endpoint in work at once; more are refused as busy."""

UNSUBSCRIBE_S = 2.0


@dataclass(slots=True)
class Endpoint:
    """One served call and what it has done, as `$SRV.STATS` tells it."""

    name: str
    subject: str
    queue: str
    subscription: Subscription | None = None
    requests: int = 0
    errors: int = 0
    seconds: float = 0.0
    last_error: str = ""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


@dataclass(slots=True)
class _Asked:
    """A request as it came."""

    subject: str
    reply: str
    data: bytes
    fields: dict[str, str]


class _Limit:
    """The end of the time that a caller waits for a task."""

    __slots__ = ("_is_over", "_task")

    def __init__(self, task: asyncio.Task[object] | None) -> None:
        self._task = task
        self._is_over = False

    def end(self) -> None:
        """Cancel the task: nobody waits any more."""
        self._is_over = True
        if self._task is not None:
            self._task.cancel()

    def was_the_reason(self) -> bool:
        """Whether the task was cancelled by this, and by nothing else."""
        return self._is_over and self._task is not None and self._task.uncancel() == 0


class Service:
    """A named service on the bus: serves calls until it is drained.

    Handlers of one endpoint run concurrently. What a handler raises reaches the caller as the same
    class; a defect reaches it as `InternalError` without details. Every request is answered.
    """

    def __init__(self, bus: Bus, name: str, *, instance: str, version: str) -> None:
        """Name the service; `serve` makes it answer."""
        self.bus = bus
        self.name = f"helexa-{name}"
        self.instance = instance
        self.version = version
        self.endpoints: list[Endpoint] = []
        self._discovery: list[Subscription] = []
        self._started = datetime.now(UTC)
        self._stopping = False
        self._deadlines = Deadlines(_Limit.end)

    async def serve(
        self,
        call: Call[RequestT, ReplyT],
        handler: Callable[[RequestT], Awaitable[ReplyT]],
        *,
        queue: str = "",
        concurrency: int = DEFAULT_CONCURRENCY,
        **tokens: str,
    ) -> None:
        """Answer `call` with `handler`; replicas that share `queue` share the requests."""
        subject = pattern_of(call.subject, **tokens)
        endpoint = Endpoint(call.subject.rpartition(".")[2].strip("{}"), subject, queue)

        def take(subject: str, reply: str, data: bytes, block: bytes) -> None:
            asked = _Asked(subject, reply, data, headers.decode(block) if block else {})
            if len(endpoint.tasks) >= concurrency or self._stopping:
                self._send_error(asked, ShuttingDownError() if self._stopping else BusyError())
                return
            task = asyncio.create_task(self._answer(endpoint, call, handler, asked))
            endpoint.tasks.add(task)
            task.add_done_callback(endpoint.tasks.discard)

        await self.bus.wait_connected()
        if not self._discovery:
            await self._announce()
        endpoint.subscription = await self.bus.client.listen(subject, take, queue=queue)
        self.endpoints.append(endpoint)

    async def drain(self, grace_s: float) -> None:
        """Accept no more, finish what was accepted within `grace_s`, refuse the rest."""
        if self.bus.is_connected:
            served = [e.subscription for e in self.endpoints if e.subscription is not None]
            # At once: a server that does not answer must not hold us up for each of them.
            await asyncio.gather(*map(_unsubscribe, [*served, *self._discovery]))
        tasks = {task for endpoint in self.endpoints for task in endpoint.tasks}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_s)
            self._stopping = True
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=2)
        self._stopping = True

    async def _answer(
        self,
        endpoint: Endpoint,
        call: Call[RequestT, ReplyT],
        handler: Callable[[RequestT], Awaitable[ReplyT]],
        asked: _Asked,
    ) -> None:
        began = time.perf_counter()
        endpoint.requests += 1
        try:
            reply = await self._handle(call, handler, asked)
            await self._respond(asked, reply)
        except asyncio.CancelledError:
            self._send_error(asked, ShuttingDownError())
        except HelexaError as error:
            endpoint.errors += 1
            endpoint.last_error = error.code
            _log.debug("refused", extra={"endpoint": endpoint.name, "code": error.code})
            self._send_error(asked, error)
        except Exception as error:  # noqa: BLE001 - see below
            # The one boundary where a defect becomes an answer: the caller must never wait in vain.
            endpoint.errors += 1
            endpoint.last_error = InternalError.code
            _log.exception("handler_failed", extra={"endpoint": endpoint.name})
            self._send_error(asked, InternalError(kind=type(error).__name__))
        finally:
            endpoint.seconds += time.perf_counter() - began

    async def _handle(
        self,
        call: Call[RequestT, ReplyT],
        handler: Callable[[RequestT], Awaitable[ReplyT]],
        asked: _Asked,
    ) -> ReplyT:
        fields = asked.fields
        SUBJECT.set(asked.subject)
        REQUEST_ID.set(fields.get(headers.REQUEST_ID_HEADER, ""))
        TRACEPARENT.set(fields.get(headers.TRACEPARENT_HEADER, ""))
        remaining = headers.remaining_s(fields)
        name = fields.get(headers.CLAIM_HEADER)
        data = await get_body(self.bus.jetstream, name) if name else asked.data
        request = unpack(call.request, data)
        if remaining is None:
            return await handler(request)
        deadline = Deadline.after(remaining)
        DEADLINE.set(deadline)
        limit = _Limit(asyncio.current_task())
        self._deadlines.set(limit, deadline.at)
        try:
            return await handler(request)
        except asyncio.CancelledError as error:
            if limit.was_the_reason():
                raise DeadlineExceededError from error
            raise
        finally:
            self._deadlines.call_off(limit)

    async def _respond(self, asked: _Asked, reply: Message) -> None:
        data = pack(reply)
        fields: dict[str, str] = {}
        if len(data) > self.bus.max_payload_bytes:
            fields[headers.CLAIM_HEADER] = await put_body(self.bus.jetstream, data)
            data = b""
        self._send(asked, data, fields)

    def _send_error(self, asked: _Asked, error: HelexaError) -> None:
        reply = error.to_reply()
        fields = {
            headers.ERROR_CODE_HEADER: reply.code,
            headers.ERROR_HEADER: reply.code,
        }
        self._send(asked, pack(reply), fields)

    def _send(self, asked: _Asked, data: bytes, fields: dict[str, str]) -> None:
        # Only inboxes are answered: another reply subject would make us speak where the asker
        # itself may not, for example as an order to a neuron.
        if not asked.reply.startswith(subjects.INBOX):
            return
        try:
            self.bus.client.send(
                asked.reply, data, header=headers.encode(fields) if fields else b""
            )
        except nats.errors.Error as error:
            _log.warning("reply_lost", extra={"error": str(error)})

    async def _announce(self) -> None:
        def take(subject: str, reply: str, data: bytes, _: bytes) -> None:
            kind = subject.split(".")[1]
            body = {"PING": self._identity, "INFO": self._info, "STATS": self._stats}[kind]()
            self._send(_Asked(subject, reply, data, {}), json.dumps(body).encode(), {})

        for subject in subjects.discovery_subjects(self.name, self.instance):
            self._discovery.append(await self.bus.client.listen(subject, take))

    def _identity(self) -> dict[str, object]:
        return {
            "type": "io.nats.micro.v1.ping_response",
            "name": self.name,
            "id": self.instance,
            "version": self.version,
            "metadata": {},
        }

    def _info(self) -> dict[str, object]:
        described = [
            {"name": e.name, "subject": e.subject, "queue_group": e.queue, "metadata": {}}
            for e in self.endpoints
        ]
        return self._identity() | {
            "type": "io.nats.micro.v1.info_response",
            "description": f"Helexa {self.name.removeprefix('helexa-')}",
            "endpoints": described,
        }

    def _stats(self) -> dict[str, object]:
        described = [
            {
                "name": e.name,
                "subject": e.subject,
                "queue_group": e.queue,
                "num_requests": e.requests,
                "num_errors": e.errors,
                "last_error": e.last_error,
                "processing_time": int(e.seconds * 1e9),
                "average_processing_time": int(e.seconds * 1e9 / e.requests) if e.requests else 0,
            }
            for e in self.endpoints
        ]
        return self._identity() | {
            "type": "io.nats.micro.v1.stats_response",
            "started": self._started.isoformat().replace("+00:00", "Z"),
            "endpoints": described,
        }


async def _unsubscribe(subscription: Subscription) -> None:
    with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError):
        await asyncio.wait_for(subscription.drain(), UNSUBSCRIBE_S)
