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
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from helexa.bus import headers
from helexa.bus.bodies import body_of, put_body
from helexa.bus.client import Bus
from helexa.bus.context import DEADLINE, REQUEST_ID, SUBJECT, TRACEPARENT, Deadline
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

        async def take(message: Msg) -> None:
            if len(endpoint.tasks) >= concurrency or self._stopping:
                refusal: HelexaError = ShuttingDownError() if self._stopping else BusyError()
                await self._respond_error(message, refusal)
                return
            task = asyncio.create_task(self._answer(endpoint, call, handler, message))
            endpoint.tasks.add(task)
            task.add_done_callback(endpoint.tasks.discard)

        await self.bus.wait_connected()
        if not self._discovery:
            await self._announce()
        endpoint.subscription = await self.bus.client.subscribe(subject, queue=queue, cb=take)
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
        message: Msg,
    ) -> None:
        began = time.perf_counter()
        endpoint.requests += 1
        try:
            reply = await self._handle(call, handler, message)
            await self._respond(message, reply)
        except asyncio.CancelledError:
            await self._respond_error(message, ShuttingDownError())
        except HelexaError as error:
            endpoint.errors += 1
            endpoint.last_error = error.code
            _log.debug("refused", extra={"endpoint": endpoint.name, "code": error.code})
            await self._respond_error(message, error)
        except Exception as error:  # noqa: BLE001 - see below
            # The one boundary where a defect becomes an answer: the caller must never wait in vain.
            endpoint.errors += 1
            endpoint.last_error = InternalError.code
            _log.exception("handler_failed", extra={"endpoint": endpoint.name})
            await self._respond_error(message, InternalError(kind=type(error).__name__))
        finally:
            endpoint.seconds += time.perf_counter() - began

    async def _handle(
        self,
        call: Call[RequestT, ReplyT],
        handler: Callable[[RequestT], Awaitable[ReplyT]],
        message: Msg,
    ) -> ReplyT:
        fields = message.headers or {}
        SUBJECT.set(message.subject)
        REQUEST_ID.set(fields.get(headers.REQUEST_ID_HEADER, ""))
        TRACEPARENT.set(fields.get(headers.TRACEPARENT_HEADER, ""))
        remaining = headers.remaining_s(fields)
        request = unpack(call.request, await body_of(self.bus, message))
        if remaining is None:
            return await handler(request)
        DEADLINE.set(Deadline.after(remaining))
        limit = asyncio.timeout(remaining)
        try:
            async with limit:
                return await handler(request)
        except TimeoutError as error:
            if limit.expired():
                raise DeadlineExceededError from error
            raise

    async def _respond(self, message: Msg, reply: Message) -> None:
        data = pack(reply)
        if len(data) <= self.bus.max_payload_bytes:
            await self._send(message, data, None)
            return
        fields = {headers.CLAIM_HEADER: await put_body(self.bus, data)}
        await self._send(message, b"", fields)

    async def _respond_error(self, message: Msg, error: HelexaError) -> None:
        reply = error.to_reply()
        fields = {
            headers.ERROR_CODE_HEADER: reply.code,
            headers.ERROR_HEADER: reply.code,
        }
        await self._send(message, pack(reply), fields)

    async def _send(self, message: Msg, data: bytes, fields: dict[str, str] | None) -> None:
        # Only inboxes are answered: another reply subject would make us speak where the asker
        # itself may not, for example as an order to a neuron.
        if not message.reply.startswith(subjects.INBOX):
            return
        try:
            await self.bus.client.publish(message.reply, data, headers=fields)
        except nats.errors.Error as error:
            _log.warning("reply_lost", extra={"error": str(error)})

    async def _announce(self) -> None:
        async def take(message: Msg) -> None:
            kind = message.subject.split(".")[1]
            body = {"PING": self._identity, "INFO": self._info, "STATS": self._stats}[kind]()
            await self._send(message, json.dumps(body).encode(), None)

        for subject in subjects.discovery_subjects(self.name, self.instance):
            self._discovery.append(await self.bus.client.subscribe(subject, cb=take))

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
