# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a portal can be told."""

from typing import ClassVar

from helexa.process.settings import SocketAddress, StreamSettings


class PortalSettings(StreamSettings):
    """Settings of one portal."""

    section: ClassVar[str] = "portal"

    socket: tuple[str, ...] = ("127.0.0.1:8091",)
    """Each `HOST:PORT` to serve the pages on."""
    site_name: str = "Helexa"
    """The name that the pages show."""
    api_url: str | None = None
    """The base URL of the API that users are told, as `https://api.example.org/v1`; `None`: the
    gateway of the site on this machine, by the name that the visitor reached the portal with."""

    @property
    def addresses(self) -> tuple[SocketAddress, ...]:
        """Where to listen.

        Raises:
            SettingsError: one is not an address.
        """
        return tuple(SocketAddress.parse(text) for text in self.socket)
