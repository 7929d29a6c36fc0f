# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The connections of a step: one that is free is used again."""

from helexa.cli.bench import trouble
from helexa.cli.bench.answer import Answer
from helexa.cli.bench.connection import Clock, Connection
from helexa.cli.bench.endpoint import Endpoint


class Pool:
    """As many connections to one endpoint as are needed at once."""

    def __init__(self, endpoint: Endpoint, clock: Clock) -> None:
        """Begin with none."""
        self.opened = 0
        self._endpoint = endpoint
        self._clock = clock
        self._open: set[Connection] = set()
        self._idle: list[Connection] = []

    async def warm(self) -> None:
        """Open a connection. That it fails is told by the request that needs it."""
        try:
            self._idle.append(await self._connect())
        except OSError:
            return

    async def exchange(self, request: bytes, answer: Answer) -> None:
        """Send a request and return when its answer has ended, for better or worse."""
        connection = self._take()
        if connection is not None:
            await self._use(connection, request, answer)
            if answer.trouble is not trouble.CLOSED or connection.has_received:
                return
            # The endpoint closed an idle connection just when it was used again.
            answer.forget()
        try:
            connection = await self._connect()
        except OSError as error:
            answer.fail(trouble.of_connecting(error), self._clock())
            return
        await self._use(connection, request, answer)

    def end_silent(self, timeout_s: float) -> None:
        """End the exchanges in which nothing came for `timeout_s`."""
        before_s = self._clock() - timeout_s
        for connection in list(self._open):
            if connection.is_busy and connection.heard_s < before_s:
                connection.give_up(trouble.SILENT)

    def close(self) -> None:
        """Close every connection."""
        for connection in self._open:
            connection.close()
        self._open.clear()
        self._idle.clear()

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                return connection
            self._open.discard(connection)
        return None

    async def _connect(self) -> Connection:
        connection = await self._endpoint.connect(self._clock)
        self.opened += 1
        self._open.add(connection)
        return connection

    async def _use(self, connection: Connection, request: bytes, answer: Answer) -> None:
        await connection.exchange(request, answer)
        if connection.is_usable:
            self._idle.append(connection)
        else:
            self._open.discard(connection)
