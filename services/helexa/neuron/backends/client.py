# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Requests to one HTTP server, over connections that are kept for the next request."""

import asyncio
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from helexa.bus.deadlines import Deadlines
from helexa.neuron.backends.connection import Connection
from helexa.neuron.backends.limits import Timeouts
from helexa.neuron.backends.response import Response
from helexa.protocol.errors import BackendError

_CROSSING_S = 1.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int
    is_secure: bool
    path: str
    """Prefix of all paths, without a slash at its end."""

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Return the address that a base URL names; a trailing `/v1` is dropped.

        Raises:
            ValueError: it is no http or https URL.
        """
        parts = urlsplit(url.strip())
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("the base URL of a server is http://… or https://…")
        if not url.isprintable() or any(c.isspace() for c in url.strip()):
            raise ValueError("a base URL holds no spaces or control characters")
        is_secure = parts.scheme == "https"
        path = parts.path.rstrip("/").removesuffix("/v1")
        return cls(parts.hostname, parts.port or (443 if is_secure else 80), is_secure, path)

    @property
    def host_header(self) -> str:
        """The value of the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = self.port == (443 if self.is_secure else 80)
        return host if usual else f"{host}:{self.port}"


class HttpClient:
    """A client of one server.

    Args:
        base_url: http or https; a path in it goes before every path.
        headers: sent with every request.
        max_idle: connections kept open for later requests.
        timeouts: how long the server may be silent.
        tls: replaces the system's trust store.

    Raises:
        ValueError: the URL or a header cannot be sent.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        max_idle: int = 8,
        timeouts: Timeouts | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._address = Address.parse(base_url)
        self._head = self._constant_head(headers or {})
        self._max_idle = max_idle
        self._timeouts = timeouts or Timeouts()
        self._tls = tls
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._deadlines = Deadlines(Response.on_deadline)
        self._is_closed = False

    @property
    def idle_connections(self) -> int:
        """Connections that wait for a request."""
        return len(self._idle)

    async def send(
        self, method: str, path: str, body: bytes = b"", *, timeouts: Timeouts | None = None
    ) -> Response:
        """Send a request and return the response when its head has come.

        Raises:
            BackendError: the server cannot be reached, broke the connection, or was silent.
        """
        limits = timeouts or self._timeouts
        request = self._request(method, path, body)
        kept = self._take()
        if kept is not None:
            sent_s = time.monotonic()
            response = kept.send(request, limits)
            try:
                await response.head()
            except BackendError:
                # A server may close a kept connection just as the request leaves; later it had
                # begun, and a whole answer would be made twice.
                is_late = time.monotonic() - sent_s > _CROSSING_S
                if response.has_received or is_late or not response.was_cut:
                    raise
            else:
                return response
        response = (await self._connect(limits)).send(request, limits)
        await response.head()
        return response

    async def fetch(
        self,
        path: str,
        *,
        limit_bytes: int = 4 << 20,
        timeouts: Timeouts | None = None,
    ) -> tuple[int, bytes]:
        """Return the status and the whole body of a GET; raises as `send`."""
        response = await self.send("GET", path, timeouts=timeouts)
        try:
            return response.status, await response.read_all(limit_bytes)
        finally:
            response.close()

    def close(self) -> None:
        """Close all connections; requests under way end with `BackendError`."""
        self._is_closed = True
        for connection in tuple(self._open):
            connection.abort()

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                return connection
        return None

    async def _connect(self, limits: Timeouts) -> Connection:
        if self._is_closed:
            raise BackendError("the backend has been stopped")
        address = self._address
        try:
            async with asyncio.timeout(limits.connect_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self._deadlines, self._keep, self._forget),
                    address.host,
                    address.port,
                    ssl=self._tls_context() if address.is_secure else None,
                )
        except ssl.SSLError as error:
            raise BackendError("the backend's certificate is not trusted") from error
        except OSError as error:
            raise BackendError("the backend cannot be reached") from error
        self._open.add(connection)
        return connection

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _keep(self, connection: Connection) -> None:
        if self._is_closed or len(self._idle) >= self._max_idle:
            connection.abort()
        else:
            self._idle.append(connection)

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def _constant_head(self, headers: Mapping[str, str]) -> str:
        lines = {"Host": self._address.host_header, "Accept-Encoding": "identity", **headers}
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        if not text.replace("\r\n", "").isprintable() or text.count("\r\n") != len(lines):
            raise ValueError("a header holds no control characters")
        return text

    def _request(self, method: str, path: str, body: bytes) -> bytes:
        head = f"{method} {self._address.path}{path} HTTP/1.1\r\n{self._head}"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return head.encode("latin-1") + b"\r\n" + body
