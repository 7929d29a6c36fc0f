# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A network that tests can break: a TCP relay between one process and what it connects to."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

READ_BYTES = 64 * 1024
PIECES_IN_FLIGHT = 256
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class Link:
    """Relays connections to a port of its own to `target`, as well or badly as the test says.

    `cut` resets every connection and each new one. `silence` delivers nothing more and closes
    nothing; what was sent meanwhile arrives after `heal`, as TCP would send it again. `slow` delays
    every piece by a time and holds it to a rate. `heal` ends all of these.
    """

    target: int
    port: int = 0
    delay_s: float = 0.0
    bytes_per_s: float = 0.0
    """0: no bound."""
    _is_cut: bool = False
    _flows: asyncio.Event = field(default_factory=asyncio.Event)
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _carrying: set[asyncio.Task[None]] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def relaying(self) -> AsyncIterator["Link"]:
        """Relay inside the block."""
        self._flows.set()
        server = await asyncio.start_server(self._take, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            for task in self._carrying:
                task.cancel()
            await asyncio.gather(*self._carrying, return_exceptions=True)
            await server.wait_closed()

    @property
    def connections(self) -> int:
        """How many connections are relayed now."""
        return len(self._open) // 2

    def cut(self) -> None:
        """Reset every connection, and every new one."""
        self._is_cut = True
        for writer in list(self._open):
            reset(writer)

    def silence(self) -> None:
        """Deliver nothing more, in either direction."""
        self._flows.clear()

    def slow(self, delay_s: float, bytes_per_s: float) -> None:
        """Deliver every piece `delay_s` later, and not more than `bytes_per_s` each way."""
        self.delay_s, self.bytes_per_s = delay_s, bytes_per_s

    def heal(self) -> None:
        """Be a good network again."""
        self._is_cut = False
        self.delay_s = self.bytes_per_s = 0.0
        self._flows.set()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        try:
            # asyncio.streams logs a callback that was cancelled as a defect (Python 3.11).
            with contextlib.suppress(asyncio.CancelledError):
                await self._carry(reader, writer)
        finally:
            self._carrying.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Nobody behind a silent network answers, so neither does a connection come about.
        await self._flows.wait()
        try:
            if self._is_cut:
                raise ConnectionResetError
            there, onward = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            reset(writer)
            return
        self._open |= {writer, onward}
        ways = {
            asyncio.create_task(self._way(reader, onward)),
            asyncio.create_task(self._way(there, writer)),
        }
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open -= {writer, onward}
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, onward):
                if not end.transport.is_closing():
                    reset(end)

    async def _way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one direction to its end: what is read waits in line until it is due."""
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECES_IN_FLIGHT)
        reading = asyncio.create_task(self._read(reader, line))
        try:
            await self._deliver(line, writer)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(
        self, reader: asyncio.StreamReader, line: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        data = b"..."
        while data:
            try:
                data = await reader.read(READ_BYTES)
            except OSError:
                # The news of a reset travels as slowly as everything else.
                data = b""
            await line.put((asyncio.get_running_loop().time() + self.delay_s, data))

    async def _deliver(
        self, line: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await line.get()
            if self.bytes_per_s:
                due = max(due, loop.time()) + len(data) / self.bytes_per_s
            await asyncio.sleep(max(0.0, due - loop.time()))
            await self._flows.wait()
            if not data:
                # Half-closed connections are not told apart: none of ours uses them.
                writer.close()
                return
            writer.write(data)
            await writer.drain()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection the hard way: the other side sees a reset."""
    inner: socket.socket | None = writer.get_extra_info("socket")
    if inner is not None:
        with contextlib.suppress(OSError):
            inner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()
