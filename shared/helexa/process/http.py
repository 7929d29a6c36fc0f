# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Serving an ASGI application on a socket of ours, ended by us and not by uvicorn's own signals."""

import asyncio
import contextlib
import socket
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    MutableMapping,
)
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from typing_extensions import override

from helexa.process.connection import OWED, Config, Connection
from helexa.process.direct import DefaultHeaders, DirectRoutes
from helexa.process.health import Readiness
from helexa.process.settings import SettingsError, SocketAddress

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

BACKLOG = 2048


class _Server(uvicorn.Server):
    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The process handles its signals itself: it drains more than HTTP.
        yield

    def close_when_answered(self) -> None:
        last = (b"connection", b"close")
        self.config.encoded_headers.append(last)
        state = self.server_state
        state.default_headers = [*state.default_headers, last]
        for connection in state.connections:
            if not isinstance(connection, Connection):
                continue
            cycle = connection.cycle
            if cycle is None or cycle.response_started:
                # Its client does not know yet, and may have sent the next request already.
                connection.app_state = {**connection.app_state, OWED: True}
            else:
                cycle.keep_alive = False


@dataclass(frozen=True, slots=True)
class Listening:
    """A socket that is being served."""

    address: SocketAddress
    _server: _Server = field(repr=False)

    @property
    def url(self) -> str:
        """The base URL for a client on this machine."""
        host = self.address.host
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared only
        return f"http://{SocketAddress(host=shown, port=self.address.port)}"

    def close_when_answered(self) -> None:
        """Say in each answer from now on that it is the last one of its connection.

        Connections whose client has not been told stay open until the block is left: closing one
        under a request that is on its way would lose it. `is_owed` tells such a request.
        """
        self._server.close_when_answered()


def is_owed(scope: Scope) -> bool:
    """Whether a request came on a connection whose client has not been told that we leave."""
    return OWED in scope.get("state", ())


def bind(address: SocketAddress, *, share: bool = False) -> socket.socket:
    """Return a listening socket.

    Args:
        address: Where to listen.
        share: Others of this user that say so too may listen there as well; the system spreads
            the connections over them.

    Raises:
        SettingsError: the address is taken or not ours; the message names it.
    """
    made = reserve(address, share=share)
    made.listen(BACKLOG)
    return made


def reserve(address: SocketAddress, *, share: bool) -> socket.socket:
    """Return a socket that has `address` and does not listen.

    Raises:
        SettingsError: as `bind`.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if share:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # Without it a small last write of an answer can wait 40 ms for a delayed acknowledgement.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        made.bind((address.host, address.port))
    except OSError as error:
        made.close()
        raise SettingsError(
            f"cannot listen on {address}: {error.strerror}; choose another address"
        ) from error
    return made


@contextlib.asynccontextmanager
async def serve_http(
    app: AsgiApp,
    address: SocketAddress,
    *,
    grace_s: float = 5.0,
    direct: DirectRoutes | None = None,
    share_port: bool = False,
) -> AsyncIterator[Listening]:
    """Serve `app`, and the `direct` routes without it, inside the block.

    On leaving, no connection is accepted any more, running requests get `grace_s` seconds, and the
    rest is cut.

    Args:
        app: What serves every other route.
        address: Where to listen.
        grace_s: How long running requests may take at the end.
        direct: What serves a POST to a path without ASGI.
        share_port: As `bind` has it.

    Raises:
        SettingsError: the address cannot be listened on.
    """
    listener = bind(address, share=share_port)
    port = int(listener.getsockname()[1])
    config = Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, round(grace_s)),
        timeout_keep_alive=75,
    )
    config.direct = direct or {}
    config.defaults = DefaultHeaders()
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name=f"http-{port}")
    try:
        yield Listening(SocketAddress(host=address.host, port=port), server)
    finally:
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        listener.close()


async def turn_away(readiness: Readiness, listening: Iterable[Listening], delay_s: float) -> None:
    """Ask for no more requests, and return when who heeds `/readyz` has had `delay_s` to look."""
    readiness.stop()
    for each in listening:
        each.close_when_answered()
    await asyncio.sleep(delay_s)
