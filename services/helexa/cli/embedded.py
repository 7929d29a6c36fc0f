# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The nats-server that a site runs for itself: on the port it had, and up again when it dies."""

import asyncio
import logging
import random
import time
from dataclasses import replace
from typing import Self
from urllib.parse import urlsplit

from helexa.cli.ports import is_free
from helexa.process.restarts import RestartPolicy, Restarts
from helexa.process.settings import SocketAddress
from helexa.protocol.naming import random_id
from helexa.site.binary import find_server
from helexa.site.config import ANY_PORT, LOOPBACK, SiteConfig
from helexa.site.errors import ServerStartError
from helexa.site.layout import DataDir, SiteFile
from helexa.site.server import NatsServer

_log = logging.getLogger(__name__)


class EmbeddedServer:
    """A site's own server, as an asynchronous context."""

    def __init__(self, data: DataDir, config: SiteConfig) -> None:
        """Keep what to run; the caller holds the data directory's lock."""
        self._data = data
        self._config = config
        self._binary = find_server()
        self._server = NatsServer(self._binary, data, config)
        self._leaving = False
        self.url = ""
        """Where this machine reaches the server, also while it is started again."""

    async def __aenter__(self) -> Self:
        """Start the server.

        Raises:
            SiteError: it does not start; the message says why.
        """
        await self._server.__aenter__()
        self.url = self._server.url
        # Clients know the port, so a server that takes over must have the same.
        self._config = replace(self._config, port=urlsplit(self.url).port or ANY_PORT)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the server."""
        self._leaving = True
        await self._server.stop()

    async def keep(self) -> None:
        """Start the server again whenever it ends, until cancelled.

        Raises:
            ServerStartError: it does not stay up.
        """
        restarts = Restarts(RestartPolicy())
        while True:
            code = await self._server.wait()
            if self._leaving:
                return
            wait_s = restarts.next_wait_s(time.monotonic(), random.random())  # noqa: S311 - jitter
            if wait_s is None:
                raise ServerStartError(f"nats-server does not stay up (exit code {code}).")
            _log.warning("nats_server_ended", extra={"code": code})
            await asyncio.sleep(wait_s)
            self._server = NatsServer(self._binary, self._data, self._config)
            await self._server.__aenter__()


def server_config(data: DataDir, address: SocketAddress | None) -> SiteConfig:
    """Return how the server of `data` is run.

    Without an `address` it listens on loopback, on the port it had the last time if that is free.
    """
    known = SiteFile.load(data.site_file)
    name = known.name if known else f"site-{random_id(40)}"
    if address is not None:
        return SiteConfig(name=name, host=address.host, port=address.port or ANY_PORT)
    last = urlsplit(known.nats_urls[0]).port if known and known.nats_urls else None
    if last and is_free(SocketAddress(host=LOOPBACK, port=last)):
        return SiteConfig(name=name, port=last)
    return SiteConfig(name=name, port=ANY_PORT)
