# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A load balancer of the plainest kind: TCP, in turn to whoever answers `/readyz`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

CHECK_S = 0.2
READ_BYTES = 64 * 1024


@dataclass
class Balancer:
    """Passes each connection to one of the targets that were ready when last asked."""

    targets: Sequence[str]
    url: str = ""
    served: dict[str, int] = field(default_factory=dict)
    """Connections that each target has had."""
    _ready: list[str] = field(default_factory=list)
    _turn: int = 0
    _carrying: set[asyncio.Task[None]] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def balancing(self) -> AsyncIterator["Balancer"]:
        """Balance inside the block."""
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        checking = asyncio.create_task(self._check())
        try:
            yield self
        finally:
            server.close()
            for task in (checking, *self._carrying):
                task.cancel()
            await asyncio.gather(checking, *self._carrying, return_exceptions=True)

    async def _check(self) -> None:
        async with httpx.AsyncClient(timeout=1) as http:
            while True:
                answers = await asyncio.gather(*(_is_ready(http, url) for url in self.targets))
                self._ready = [url for url, ok in zip(self.targets, answers, strict=True) if ok]
                await asyncio.sleep(CHECK_S)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._relay(reader, writer))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            up_reader, up_writer = await self._connect()
            with contextlib.closing(up_writer):
                await asyncio.gather(_carry(reader, up_writer), _carry(up_reader, writer))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the next target; one that refuses is passed over, which harms nobody."""
        for _ in self.targets:
            ready = self._ready or list(self.targets)
            self._turn += 1
            target = ready[self._turn % len(ready)]
            address = urlsplit(target)
            with contextlib.suppress(ConnectionRefusedError):
                opened = await asyncio.open_connection(address.hostname, address.port)
                self.served[target] = self.served.get(target, 0) + 1
                return opened
        raise ConnectionRefusedError


async def _is_ready(http: httpx.AsyncClient, url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return (await http.get(f"{url}/readyz")).status_code == 200
    return False


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(READ_BYTES):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
