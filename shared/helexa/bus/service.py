# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The serving side of requests: concurrent handlers, typed errors, discovery, orderly end."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from dataclasses import dataclass, field

import nats.errors
from nats.aio.subscription import Subscription

from helexa.bus import headers
from helexa.bus.bodies import get_body, put_body
from helexa.bus.client import Bus
from helexa.bus.context import DEADLINE, REQUEST_ID, SUBJECT, TRACEPARENT, Deadline
from helexa.bus.deadlines import Deadlines, TaskLimit
from helexa.bus.discovery import Identity, Tally
from helexa.bus.subscription import Taker, unsubscribe
from helexa.protocol import subjects
from helexa.protocol.codec import pack, unpack
from helexa.protocol.errors import (
    BusyError,
    DeadlineExceededError,
    HelexaError,
    InternalError,
    RequestTooLargeError,
    ShuttingDownError,
)
from helexa.protocol.messages.base import AnyMessage
from helexa.protocol.subjects import Call, ReplyT, RequestT, pattern_of

_log = logging.getLogger(__name__)

DEFAULT_CONCURRENCY = 4096
"""Requests of one endpoint in work at once; more are refused as busy."""


@dataclass(slots=True)
class Endpoint(Tally):
    """One served call."""

    subscription: Subscription | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


@dataclass(slots=True)
class _Asked:
    """A request as it came."""

    subject: str
    reply: str
    data: bytes
    told: headers.Told
    may_wait: bool = False
    """Its reply leaves with whatever is published next, if that comes soon."""


class Service:
    """A named service on the bus: serves calls until it is drained.

    Handlers of one endpoint run concurrently. What a handler raises reaches the caller as the same
    class; a defect reaches it as `InternalError` without details. Every request is answered.
    """

    def __init__(self, bus: Bus, name: str, *, instance: str, version: str) -> None:
        """Name the service; `serve` makes it answer."""
        self.bus = bus
        self.instance = instance
        self.endpoints: list[Endpoint] = []
        self._identity = Identity(f"helexa-{name}", instance, version)
        self._discovery: list[Subscription] = []
        self._stopping = False
        self._deadlines = Deadlines(TaskLimit.end)

    async def serve(
        self,
        call: Call[RequestT, ReplyT],
        handler: Callable[[RequestT], Awaitable[ReplyT]],
        *,
        queue: str = "",
        concurrency: int = DEFAULT_CONCURRENCY,
        **tokens: str,
    ) -> Endpoint:
        """Answer `call` with `handler`; replicas that share `queue` share the requests."""
        endpoint = _endpoint(call, queue, tokens)

        def take(subject: str, reply: str, data: bytes, block: bytes) -> None:
            asked = _Asked(subject, reply, data, headers.incoming(block))
            if len(endpoint.tasks) >= concurrency or self._stopping:
                self._send_error(asked, ShuttingDownError() if self._stopping else BusyError())
            else:
                self._start(endpoint, call, handler, asked)

        return await self._listen(endpoint, take)

    async def serve_at_once(
        self,
        call: Call[RequestT, ReplyT],
        handler: Callable[[RequestT], ReplyT],
        *,
        queue: str = "",
        may_wait: bool = False,
        **tokens: str,
    ) -> None:
        """Answer `call` with `handler`, which never waits, where the request is read.

        That saves a task for each request. Its reply must fit one message, and with `may_wait`
        leaves with whatever is published next, if that comes soon.
        """
        endpoint = _endpoint(call, queue, tokens)

        async def handle(request: RequestT) -> ReplyT:
            return handler(request)

        def take(subject: str, reply: str, data: bytes, block: bytes) -> None:
            asked = _Asked(subject, reply, data, headers.incoming(block), may_wait)
            if self._stopping:
                self._send_error(asked, ShuttingDownError())
            elif asked.told.claim:
                self._start(endpoint, call, handle, asked)
            else:
                copy_context().run(self._answer_at_once, endpoint, call, handler, asked)

        await self._listen(endpoint, take)

    async def _listen(self, endpoint: Endpoint, take: Taker) -> Endpoint:
        await self.bus.wait_connected()
        if not self._discovery:
            await self._announce()
        endpoint.subscription = await self.bus.client.listen(
            endpoint.subject, take, queue=endpoint.queue
        )
        self.endpoints.append(endpoint)
        return endpoint

    async def withdraw(self, endpoint: Endpoint) -> None:
        """Answer a call no more; what was accepted is finished."""
        self.endpoints.remove(endpoint)
        if endpoint.subscription is not None:
            await unsubscribe(endpoint.subscription)

    async def drain(self, grace_s: float) -> None:
        """Accept no more, finish what was accepted within `grace_s`, refuse the rest."""
        if self.bus.is_connected:
            served = [e.subscription for e in self.endpoints if e.subscription is not None]
            # At once: a server that does not answer must not hold us up for each of them.
            await asyncio.gather(*map(unsubscribe, [*served, *self._discovery]))
        tasks = {task for endpoint in self.endpoints for task in endpoint.tasks}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_s)
            self._stopping = True
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=2)
        self._stopping = True

    def _start(
        self,
        endpoint: Endpoint,
        call: Call[RequestT, ReplyT],
        handler: Callable[[RequestT], Awaitable[ReplyT]],
        asked: _Asked,
    ) -> None:
        task = asyncio.create_task(self._answer(endpoint, call, handler, asked))
        endpoint.tasks.add(task)
        task.add_done_callback(endpoint.tasks.discard)

    def _answer_at_once(
        self,
        endpoint: Endpoint,
        call: Call[RequestT, ReplyT],
        handler: Callable[[RequestT], ReplyT],
        asked: _Asked,
    ) -> None:
        began = time.perf_counter()
        endpoint.requests += 1
        try:
            _enter(asked)
            data = pack(handler(unpack(call.request, asked.data)))
            self._send(asked, data)
        except Exception as error:  # noqa: BLE001 - see `_refuse`
            self._refuse(endpoint, asked, error)
        finally:
            endpoint.seconds += time.perf_counter() - began

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
        except Exception as error:  # noqa: BLE001 - see `_refuse`
            self._refuse(endpoint, asked, error)
        finally:
            endpoint.seconds += time.perf_counter() - began

    def _refuse(self, endpoint: Endpoint, asked: _Asked, error: Exception) -> None:
        """Answer with `error`: the caller must never wait in vain, whatever it is.

        Here alone a defect becomes an answer.
        """
        endpoint.errors += 1
        if isinstance(error, HelexaError):
            _log.debug("refused", extra={"endpoint": endpoint.name, "code": error.code})
        else:
            _log.error("handler_failed", exc_info=error, extra={"endpoint": endpoint.name})
            error = InternalError(kind=type(error).__name__)
        endpoint.last_error = error.code
        self._send_error(asked, error)

    async def _handle(
        self,
        call: Call[RequestT, ReplyT],
        handler: Callable[[RequestT], Awaitable[ReplyT]],
        asked: _Asked,
    ) -> ReplyT:
        deadline = _enter(asked)
        claim = asked.told.claim
        data = await get_body(self.bus.jetstream, claim) if claim else asked.data
        request = unpack(call.request, data)
        if deadline is None:
            return await handler(request)
        limit = TaskLimit(asyncio.current_task())
        self._deadlines.set(limit, deadline.at)
        try:
            return await handler(request)
        except asyncio.CancelledError as error:
            if limit.was_the_reason():
                raise DeadlineExceededError from error
            raise
        finally:
            self._deadlines.call_off(limit)

    async def _respond(self, asked: _Asked, reply: AnyMessage) -> None:
        data = pack(reply)
        block = b""
        if len(data) > self.bus.max_payload_bytes:
            claim = await put_body(self.bus.jetstream, data)
            data, block = b"", headers.encode({headers.CLAIM_HEADER: claim})
        self._send(asked, data, block)

    def _send_error(self, asked: _Asked, error: HelexaError) -> None:
        reply = error.to_reply()
        fields = {
            headers.ERROR_CODE_HEADER: reply.code,
            headers.ERROR_HEADER: reply.code,
        }
        self._send(asked, pack(reply), headers.encode(fields))

    def _send(self, asked: _Asked, data: bytes, block: bytes = b"") -> None:
        # Only inboxes are answered: another reply subject would make us speak where the asker
        # itself may not, for example as an order to a neuron.
        if not asked.reply.startswith(subjects.INBOX):
            return
        try:
            self.bus.client.send(asked.reply, data, header=block, may_wait=asked.may_wait)
        except nats.errors.MaxPayloadError as error:
            raise RequestTooLargeError("the reply does not fit one message") from error
        except nats.errors.Error as error:
            _log.warning("reply_lost", extra={"error": str(error)})

    async def _announce(self) -> None:
        def take(subject: str, reply: str, data: bytes, _: bytes) -> None:
            kind = subject.split(".")[1]
            asked = _Asked(subject, reply, data, headers.UNTOLD)
            self._send(asked, self._identity.answer(kind, self.endpoints))

        for subject in subjects.discovery_subjects(self._identity.name, self.instance):
            self._discovery.append(await self.bus.client.listen(subject, take))


def _endpoint(call: Call[RequestT, ReplyT], queue: str, tokens: dict[str, str]) -> Endpoint:
    name = call.subject.rpartition(".")[2].strip("{}")
    return Endpoint(name, pattern_of(call.subject, **tokens), queue)


def _enter(asked: _Asked) -> Deadline | None:
    """Say in the current context whose request is worked on; return until when."""
    told = asked.told
    SUBJECT.set(asked.subject)
    REQUEST_ID.set(told.request_id)
    TRACEPARENT.set(told.traceparent)
    if told.remaining_s is None:
        return None
    deadline = Deadline.after(told.remaining_s)
    DEADLINE.set(deadline)
    return deadline
