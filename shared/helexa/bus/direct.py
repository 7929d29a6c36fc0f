# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""nats-py's client with a short way for our own messages.

nats-py puts each message into a queue, wakes a task to take it out, and wakes another one to write.
Here a message goes from the socket's callback to its subscriber, and a publish into the socket's
buffer. Connecting, reconnecting, draining, closing, and the subscriptions that nats-py makes for
itself (key-value watchers, pull consumers) stay nats-py's.

This leans on nats-py's inner names: `tests/bus/test_nats_py.py` says which, and fails where another
release has changed one.
"""

import asyncio
import json
import logging
import time
from typing import Any

from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.transport import TcpTransport
from typing_extensions import override

from helexa.bus import headers as header_block
from helexa.bus.backlog import Backlog
from helexa.bus.deadlines import Deadlines
from helexa.bus.parser import CRLF, Parser
from helexa.bus.reply_tokens import ReplyTokens
from helexa.bus.subscription import DirectSubscription, Hearer, Taker
from helexa.protocol.naming import random_id

_log = logging.getLogger(__name__)

REST_S = 0.001
"""How long a message that may wait does so for another one."""
WRITE_AHEAD_BYTES = 64 * 1024
"""What a slow server may leave in the socket's buffer; what comes then is held back, and is sent
again where the connection breaks."""


class DirectClient(Client):
    """One connection."""

    def __init__(self) -> None:
        """Keep the state that is ours; `connect` connects."""
        super().__init__()
        # nats-py counts its reply tokens up: a neuron could foretell them and forge a reply.
        self._nuid = ReplyTokens()  # type: ignore[assignment]
        self._ps = Parser(self)  # type: ignore[assignment]
        self._socket: asyncio.WriteTransport | None = None
        self._will_write = False
        self._will_write_later = False
        self._inbox = ""
        self._awaited: dict[str, asyncio.Future[tuple[bytes, bytes]]] = {}
        self._deadlines = Deadlines(self._give_up)
        # A pong comes after the messages that the server has sent before it: ours are with their
        # subscribers already, nats-py's are before it in this line.
        self._backlog = Backlog()

    async def listen(self, subject: str, take: Taker, *, queue: str = "") -> DirectSubscription:
        """Call `take` with every message on `subject`, in order, as it is read.

        Raises:
            nats.errors.Error: the connection is about to close, or has.
        """
        made = self._subscription(subject, queue)
        made.take = take
        await self._send_subscribe(made)
        return made

    async def hear(self, subject: str, hear: Hearer, *, queue: str = "") -> DirectSubscription:
        """Call `hear` with every message on `subject` that has no headers, as `listen` does."""
        made = self._subscription(subject, queue)
        made.hear = hear
        await self._send_subscribe(made)
        return made

    def _subscription(self, subject: str, queue: str) -> DirectSubscription:
        if self.is_closed:
            raise errors.ConnectionClosedError
        if self.is_draining:
            raise errors.ConnectionDrainingError
        self._sid += 1
        made = DirectSubscription(self, self._sid, subject, queue)
        self._subs[self._sid] = made
        return made

    def send(
        self,
        subject: str,
        data: bytes,
        *,
        reply: str = "",
        header: bytes = b"",
        may_wait: bool = False,
    ) -> None:
        """Publish without waiting, however far the server is behind.

        With `may_wait` it leaves with what is published next, or after `REST_S`.

        Raises:
            nats.errors.Error: it is too large, the connection is closed, or it is away and what is
                kept for it has reached its bound.
        """
        size = len(data)
        if self._status != Client.CONNECTED:
            self._check(size)
        if size > self._max_payload:
            raise errors.MaxPayloadError
        if header:
            ahead = len(header)
            head = f"HPUB {subject} {reply} {ahead} {ahead + size}\r\n".encode()
            self._emit(b"".join((head, header, data, CRLF)))
        else:
            head = f"PUB {subject} {reply} {size}\r\n".encode()
            self._emit(b"".join((head, data, CRLF)), may_wait=may_wait)

    @property
    def is_behind(self) -> bool:
        """Whether more waits to be sent than should."""
        return self._pending_data_size > self._max_pending_size

    async def catch_up(self) -> None:
        """Return when no more waits than should, or there is no connection."""
        if self.is_behind:
            await self._flush_pending(force_flush=True)

    async def exchange(
        self, subject: str, data: bytes, header: bytes, at: float
    ) -> tuple[bytes, bytes]:
        """Publish a request; return the data and the block of headers of the first reply.

        Raises:
            nats.errors.NoRespondersError: nobody serves the subject.
            nats.errors.TimeoutError: no reply until `time.monotonic()` has reached `at`.
            nats.errors.Error: the request cannot be sent.
        """
        if not self._inbox:
            await self._open_inbox()
        inbox = self._inbox + random_id(128)
        reply = asyncio.get_running_loop().create_future()
        self._awaited[inbox] = reply
        self._deadlines.set(inbox, at)
        try:
            self.send(subject, data, reply=inbox, header=header)
            if self._pending_data_size > self._max_pending_size:
                await self.catch_up()
            answer: tuple[bytes, bytes] = await reply
        finally:
            del self._awaited[inbox]
            self._deadlines.call_off(inbox)
        if answer[1].startswith(header_block.NO_RESPONDERS):
            raise errors.NoRespondersError
        return answer

    @override
    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        reply: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        self.send(
            subject,
            payload,
            reply=reply,
            header=b"" if headers is None else header_block.encode(headers),
        )
        await self.catch_up()

    @override
    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,
        old_style: bool = False,
        headers: dict[str, Any] | None = None,
    ) -> Msg:
        sent = header_block.encode(headers) if headers else b""
        data, got = await self.exchange(subject, payload, sent, time.monotonic() + timeout)
        return Msg(self, data=data, headers=header_block.decode(got) if got else None)

    def on_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, header: bytes
    ) -> None:
        """Hand a message to its subscription; the parser calls this."""
        found = self._subs.get(sid)
        if type(found) is DirectSubscription:
            # What leaves a socket's callback ends the connection for everybody.
            try:
                if found.take is not None:
                    found.take(subject.decode(), reply.decode() if reply else "", data, header)
                elif found.hear is not None and not (header and header_block.decode(header)):
                    found.hear(subject.decode(), data)
            except Exception:  # noqa: BLE001 - see above
                _log.exception("subscriber_failed", extra={"subject": found.subject})
        elif found is not None:
            self._backlog.put(self._process_msg, sid, subject, reply, data, header)

    def on_operation(self, name: bytes, rest: bytes) -> None:
        """Do what the server says; the parser calls this."""
        if name == b"PING":
            self._backlog.put(self._process_ping)
        elif name == b"PONG":
            self._backlog.put(self._process_pong)
        elif name == b"INFO":
            self._backlog.put(self._process_info, json.loads(rest))
        elif name == b"-ERR":
            self._backlog.put(self._process_err, rest.decode().lower())

    @override
    async def _process_connect_init(self) -> None:
        self._socket = None
        await super()._process_connect_init()
        transport = self._transport
        if isinstance(transport, TcpTransport):
            writer, reader = transport._io_writer, transport._io_reader  # noqa: SLF001 - as above
            if writer is not None and reader is not None:
                self._socket = writer.transport
                # What was read already is taken by nats-py's reading loop, which runs next, and
                # then only waits for the end of the connection.
                reader.feed_data = self._feed  # type: ignore[method-assign,assignment]

    @override
    async def _send_command(self, cmd: bytes, priority: bool = False) -> None:
        self._emit(cmd)

    @override
    async def _close(self, status: int, do_cbs: bool = True) -> None:
        self._inbox = ""
        self._backlog.clear()
        await super()._close(status, do_cbs)

    @override
    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        # nats-py would write it before what was published earlier in this turn.
        self._write()
        await super()._send_ping(future)

    def _feed(self, data: bytes) -> None:
        if self.is_connected:
            try:
                self._ps.feed(data)  # type: ignore[attr-defined]
            except (errors.ProtocolError, ValueError) as error:
                self._backlog.put(self._process_op_err, error)

    def _emit(self, command: bytes, *, may_wait: bool = False) -> None:
        self._pending.append(command)
        self._pending_data_size += len(command)
        if self._will_write:
            return
        if not may_wait:
            self._will_write = True
            asyncio.get_running_loop().call_soon(self._write)
        elif not self._will_write_later:
            self._will_write_later = True
            asyncio.get_running_loop().call_later(REST_S, self._write_rest)

    def _write_rest(self) -> None:
        self._will_write_later = False
        self._write()

    def _write(self) -> None:
        """Write what has come in this turn of the loop: most of a publish is the system call."""
        self._will_write = False
        socket, queue = self._socket, self._flush_queue
        if not self._pending or socket is None or queue is None or not self.is_connected:
            return
        if socket.get_write_buffer_size() <= WRITE_AHEAD_BYTES and not socket.is_closing():
            socket.writelines(self._pending)
            self._pending = []
            self._pending_data_size = 0
        elif queue.empty():
            # nats-py's flusher waits until the server has read what was before.
            queue.put_nowait(asyncio.get_running_loop().create_future())

    def _check(self, size: int) -> None:
        if self.is_closed:
            raise errors.ConnectionClosedError
        if self.is_draining_pubs:
            raise errors.ConnectionDrainingError
        if not self.is_connected and size + self._pending_data_size > self._max_pending_size:
            raise errors.OutboundBufferLimitError

    async def _open_inbox(self) -> None:
        self._inbox = f"{self._inbox_prefix.decode()}.{random_id(128)}."
        await self.listen(f"{self._inbox}*", self._take_reply)

    def _take_reply(self, subject: str, _: str, data: bytes, header: bytes) -> None:
        reply = self._awaited.get(subject)
        if reply is not None and not reply.done():
            reply.set_result((data, header))

    def _give_up(self, inbox: str) -> None:
        reply = self._awaited[inbox]
        if not reply.done():
            reply.set_exception(errors.TimeoutError())
