# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Finding out which ports of this machine are free."""

from helexa.process.http import bind
from helexa.process.settings import SettingsError, SocketAddress

LOOPBACK = "127.0.0.1"
_GIVEN: set[int] = set()


def require_free(address: SocketAddress, flag: str) -> None:
    """Return if `address` can be listened on.

    Raises:
        SettingsError: it cannot; the message names `flag`.
    """
    try:
        bind(address).close()
    except SettingsError as error:
        raise SettingsError(f"{flag}: {error}") from error


def is_free(address: SocketAddress) -> bool:
    """Whether `address` can be listened on now."""
    try:
        bind(address).close()
    except SettingsError:
        return False
    return True


def free_address(host: str = LOOPBACK) -> SocketAddress:
    """Return an address on `host` that nobody listens on now; no port is returned twice."""
    while True:
        with bind(SocketAddress(host=host, port=0)) as listener:
            port = int(listener.getsockname()[1])
        # The system may name one again that was asked for a moment ago and is not in use yet.
        if port not in _GIVEN:
            _GIVEN.add(port)
            return SocketAddress(host=host, port=port)


def local_url(address: SocketAddress) -> str:
    """Return how this machine reaches `address` over HTTP."""
    everywhere = {"0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104 - compared only
    host = everywhere.get(address.host, address.host)
    return f"http://{SocketAddress(host=host, port=address.port)}"
