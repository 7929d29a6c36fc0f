# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The bytes that a NATS server sends, cut into its operations.

nats-py's own parser tries up to seven regular expressions on each line and moves what is left of
its buffer for each message. This one looks at the first byte and copies what belongs to a message
once.
"""

from typing import Protocol

from nats.errors import ProtocolError

CRLF = b"\r\n"
MAX_LINE_BYTES = 1024 * 1024
"""Longest line that is waited for: `INFO` grows with the servers of a cluster."""
MESSAGES = (b"MSG", b"HMSG")
OPERATIONS = (b"PING", b"PONG", b"INFO", b"+OK", b"-ERR")


class Receiver(Protocol):
    """Takes what was parsed."""

    def on_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, header: bytes
    ) -> None:
        """Take a message; `header` is its block of headers, empty where it has none.

        It must not raise.
        """

    def on_operation(self, name: bytes, rest: bytes) -> None:
        """Take one of `OPERATIONS`, and what follows it on its line.

        Raises:
            ValueError: it is no such thing.
        """


class Parser:
    """Cuts a stream, which comes in pieces of any length, into operations."""

    def __init__(self, receiver: Receiver) -> None:
        """Tell `receiver` of each operation."""
        self._receiver = receiver
        self.reset()

    def reset(self) -> None:
        """Forget what is incomplete: another connection begins."""
        self._pieces: list[bytes] = []
        self._held = 0
        self._needed = 0
        self._is_lost = False
        self._generation = object()

    async def parse(self, data: bytes = b"") -> None:
        """Do what `feed` does; nats-py's reading loop calls it by this name."""
        self.feed(data)

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            ProtocolError: this is no NATS server; all is ignored from here to `reset`.
            ValueError: so said the receiver; the same holds.
        """
        if self._is_lost:
            return
        if self._pieces:
            self._pieces.append(data)
            self._held += len(data)
            # A large message comes in many pieces: they are joined once.
            if self._held < self._needed:
                return
            data = b"".join(self._pieces)
            self._pieces.clear()
        try:
            self._cut(data)
        except (ProtocolError, ValueError):
            self._is_lost = True
            raise

    def _cut(self, data: bytes) -> None:
        at, end, generation = 0, len(data), self._generation
        while at < end:
            stop = data.find(CRLF, at)
            if stop < 0:
                if end - at >= MAX_LINE_BYTES:
                    raise ProtocolError
                self._keep(data, at, end - at + 1)
                return
            fields = data[at:stop].split()
            name = fields[0] if fields else b""
            if name in MESSAGES:
                after = self._message(data, stop + 2, end, fields)
                if after > end:
                    self._keep(data, at, after - at)
                    return
                at = after
            elif name not in OPERATIONS:
                raise ProtocolError
            else:
                self._receiver.on_operation(name, data[at + len(name) : stop].strip())
                at = stop + 2
            if self._generation is not generation:
                return

    def _message(self, data: bytes, begin: int, end: int, fields: list[bytes]) -> int:
        """Hand on the message that begins at `begin`; return where the next operation does.

        Nothing is handed on where that is past `end`.
        """
        head = b"0"
        try:
            finish = begin + int(fields[-1])
            if finish + 2 > end:
                return finish + 2
            if fields[0] == b"HMSG":
                head = fields.pop(-2)
            if len(fields) == 4:
                _, subject, sid, _ = fields
                reply = b""
            else:
                _, subject, sid, reply, _ = fields
            number, body = int(sid), begin + int(head)
        except ValueError as error:
            raise ProtocolError from error
        self._receiver.on_message(number, subject, reply, data[body:finish], data[begin:body])
        return finish + 2

    def _keep(self, data: bytes, at: int, needed: int) -> None:
        self._pieces = [data[at:] if at else data]
        self._held = len(data) - at
        self._needed = needed
