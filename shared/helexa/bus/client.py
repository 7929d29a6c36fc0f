# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One process's connection to its site's servers."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Self

import nats
import nats.errors
import nats.js.errors
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext

from helexa.bus import headers
from helexa.bus.bodies import get_body, put_body
from helexa.bus.closing import close, drop_socket
from helexa.bus.connection import Connection
from helexa.bus.context import DEADLINE
from helexa.bus.direct import DirectClient
from helexa.bus.subscription import Hearer
from helexa.protocol.codec import pack, unpack
from helexa.protocol.errors import (
    DeadlineExceededError,
    ErrorReply,
    HelexaError,
    NoRespondersError,
    RequestTooLargeError,
    UnavailableError,
    from_reply,
)
from helexa.protocol.subjects import Call, Event, MessageT, ReplyT, RequestT, pattern_of, subject_of

_log = logging.getLogger(__name__)

RECONNECT_WAIT_S = 0.25
CONNECT_TIMEOUT_S = 2
PING_INTERVAL_S = 5
PENDING_WHILE_AWAY_BYTES = 8 * 1024 * 1024
HEADROOM_BYTES = 16 * 1024
"""Room for headers below the server's largest payload."""


class Bus:
    """Requests, events and raw subscriptions, over a connection that always comes back.

    Entering does not wait for a server: a process starts before its broker.
    """

    def __init__(self, connection: Connection) -> None:
        """Keep the options; nothing connects before `__aenter__`."""
        self.connection = connection
        self.client = DirectClient()
        self.closed = asyncio.Event()
        """Set when the client has given up, which is a reason to end the process."""
        self.last_error: str | None = None
        self._connected = asyncio.Event()
        self._reconnected: list[Callable[[], Awaitable[None]]] = []
        self._connecting: asyncio.Task[None] | None = None
        self._leaving = False

    async def __aenter__(self) -> Self:
        """Begin to connect, for ever."""
        self._connecting = asyncio.create_task(self._connect(), name="bus-connect")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Flush what was published and close."""
        self._leaving = True
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        await close(self.client)

    @property
    def is_connected(self) -> bool:
        """Whether a server can be reached now."""
        return self.client.is_connected

    @property
    def max_payload_bytes(self) -> int:
        """The largest body that fits one message beside its headers."""
        return self.client.max_payload - HEADROOM_BYTES

    @property
    def jetstream(self) -> JetStreamContext:
        """The durable half of the connection."""
        return self.client.jetstream(timeout=5)

    @property
    def is_behind(self) -> bool:
        """Whether more waits to be sent than should: the server reads slower than we publish."""
        return self.client.is_behind

    async def catch_up(self) -> None:
        """Return when what waits has been sent, or there is no connection."""
        await self.client.catch_up()

    async def wait_connected(self) -> None:
        """Return when the first connection stands."""
        await self._connected.wait()

    def on_reconnected(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Call `callback` after each reconnection."""
        self._reconnected.append(callback)

    async def request(
        self, call: Call[RequestT, ReplyT], message: RequestT, *, deadline_s: float, **tokens: str
    ) -> ReplyT:
        """Return the reply to `message`.

        Raises:
            NoRespondersError: nobody serves the subject.
            DeadlineExceededError: no reply within `deadline_s`.
            UnavailableError: there is no connection.
            RequestTooLargeError: it fits neither a message nor the object store.
            HelexaError: what the other side raised.
        """
        at = time.monotonic() + deadline_s
        inherited = DEADLINE.get()
        if inherited is not None and inherited.at < at:
            at = inherited.at
        subject = subject_of(call.subject, **tokens)
        payload = pack(message)
        claim = ""
        if len(payload) > self.max_payload_bytes:
            claim, payload = await put_body(self.jetstream, payload), b""
        left_s = at - time.monotonic()
        if left_s <= 0:
            raise DeadlineExceededError
        self._require_connection()
        try:
            reply, block = await self.client.exchange(
                subject, payload, headers.outgoing(left_s, claim), at
            )
        except nats.errors.Error as error:
            raise _ours(error, subject) from error
        if block:
            fields = headers.decode(block)
            if headers.ERROR_CODE_HEADER in fields:
                raise from_reply(unpack(ErrorReply, reply))
            if name := fields.get(headers.CLAIM_HEADER):
                reply = await get_body(self.jetstream, name)
        return unpack(call.reply, reply)

    async def publish(self, event: Event[MessageT], message: MessageT, **tokens: str) -> None:
        """Publish `message`; it is lost if nobody listens.

        Raises:
            UnavailableError: there is no connection and the buffer for that time is full.
        """
        data = message.model_dump_json().encode() if event.as_json else pack(message)
        await self.publish_raw(subject_of(event.subject, **tokens), data)

    async def publish_raw(self, subject: str, data: bytes, *, reply: str = "") -> None:
        """Publish bytes; raises as `send_raw`."""
        self.send_raw(subject, data, reply=reply)
        if self.is_behind:
            await self.catch_up()

    def send_raw(self, subject: str, data: bytes, *, reply: str = "") -> None:
        """Publish bytes without waiting: the path of frames.

        Whoever sends much looks at `is_behind` meanwhile.

        Raises:
            UnavailableError: there is no connection and the buffer for that time is full.
            RequestTooLargeError: more than the server's largest payload.
        """
        try:
            self.client.send(subject, data, reply=reply)
        except nats.errors.Error as error:
            raise _ours(error, subject) from error

    async def publish_stored(self, subject: str, data: bytes, *, deadline_s: float = 5.0) -> None:
        """Publish `data` and return when a stream holds it.

        Raises:
            HelexaError: no stream has confirmed it.
        """
        self._require_connection()
        at = time.monotonic() + deadline_s
        try:
            reply, _ = await self.client.exchange(subject, data, b"", at)
        except nats.errors.Error as error:
            raise _ours(error, subject) from error
        ack = json.loads(reply)
        if "error" in ack:
            raise UnavailableError(str(ack["error"].get("description", "not stored")))

    async def subscribe(
        self,
        event: Event[MessageT],
        handler: Callable[[MessageT], None],
        *,
        queue: str = "",
        **tokens: str,
    ) -> Subscription:
        """Call `handler` with every message of `event`. It must not block and must not raise.

        A message that does not decode is counted in the log and dropped: nobody waits for it.
        """

        def take(subject: str, data: bytes) -> None:
            try:
                message = (
                    event.message.model_validate_json(data)
                    if event.as_json
                    else unpack(event.message, data)
                )
            except (HelexaError, ValueError) as error:
                _log.warning("event_unreadable", extra={"subject": subject, "error": str(error)})
                return
            handler(message)

        return await self.subscribe_raw(pattern_of(event.subject, **tokens), take, queue=queue)

    async def subscribe_raw(
        self, subject: str, handler: Hearer, *, queue: str = ""
    ) -> Subscription:
        """Call `handler` with the subject and bytes of every message, in order.

        Messages with headers are dropped: what JetStream sends on somebody's behalf, whose subject
        does not tell its author, and what was appended to a log, which subscribers get even where
        the log refuses it (seen). Who appends publishes a copy once it is accepted.
        """
        await self.wait_connected()
        return await self.client.hear(subject, handler, queue=queue)

    def _require_connection(self) -> None:
        if not self.client.is_connected:
            raise UnavailableError("the site's servers cannot be reached")

    async def _connect(self) -> None:
        await self.client.connect(
            servers=list(self.connection.servers),
            name=self.connection.name,
            nkeys_seed_str=self.connection.seed,
            inbox_prefix=self.connection.inbox_prefix.encode(),
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            connect_timeout=CONNECT_TIMEOUT_S,
            reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type] # a float works
            ping_interval=PING_INTERVAL_S,
            max_outstanding_pings=2,
            pending_size=PENDING_WHILE_AWAY_BYTES,
            skip_subject_validation=True,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            closed_cb=self._on_closed,
        )
        self.last_error = None
        self._connected.set()
        url = self.client.connected_url
        _log.info("bus_connected", extra={"server": url.netloc if url else ""})

    async def _on_error(self, error: Exception) -> None:
        if not self.client.is_connected:
            drop_socket(self.client)
        text = f"{type(error).__name__}: {error}"
        if text != self.last_error:
            self.last_error = text
            level = logging.INFO if self.connection.may_be_refused else logging.WARNING
            _log.log(level, "bus_error", extra={"error": text})

    async def _on_disconnected(self) -> None:
        if not self._leaving:
            _log.warning("bus_disconnected")

    async def _on_reconnected(self) -> None:
        self.last_error = None
        _log.info("bus_reconnected")
        for callback in self._reconnected:
            try:
                await callback()
            except HelexaError as error:
                _log.warning("after_reconnect_failed", extra={"error": error.message})

    async def _on_closed(self) -> None:
        self.closed.set()
        if not self._leaving:
            _log.error("bus_closed", extra={"error": self.last_error})


def _ours(error: nats.errors.Error, subject: str) -> HelexaError:
    """Return what callers are told of an error of the client."""
    if isinstance(error, nats.errors.NoRespondersError):
        return NoRespondersError(f"nobody serves {subject}")
    if isinstance(error, nats.errors.TimeoutError):
        return DeadlineExceededError(f"no answer from {subject} in time")
    if isinstance(error, nats.errors.MaxPayloadError):
        return RequestTooLargeError(f"what is for {subject} does not fit one message")
    return UnavailableError("the site's servers cannot be reached")
