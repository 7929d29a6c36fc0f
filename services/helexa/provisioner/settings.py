# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a provisioner can be told."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, SecretStr

from helexa.process.settings import SocketAddress, StreamSettings


class ProvisionerSettings(StreamSettings):
    """Settings of one provisioner."""

    section: ClassVar[str] = "provisioner"

    socket: str = "127.0.0.1:8040"
    """`HOST:PORT` of the orchestrator's API."""
    api_key: SecretStr | None = None
    """The key of the API; `None`: the one in the data directory, made at the first start."""
    seed_default_model: bool = True
    """Put the embedded model into a catalogue that is empty."""
    neuron_timeout_s: float = Field(default=10.0, gt=0)
    """A neuron that has been silent for so long is removed, and its models are placed elsewhere."""
    tick_s: float = Field(default=2.0, gt=0)
    """Longest time between two looks at the whole state, where no change causes one."""
    load_timeout_s: float = Field(default=900.0, gt=0)
    """Longest time for one load, a download included."""
    retry_first_s: float = Field(default=5.0, gt=0)
    """After a failed load, how long the same neuron is not asked again; doubles each time."""
    retry_most_s: float = Field(default=300.0, gt=0)
    """Longest pause after failures in a row."""
    users_file: Path | None = None
    """The file of enrolled neurons that the site's servers include; `None`: the data directory's,
    if a site is run from there."""
    server_count: int | None = Field(default=None, ge=1)
    """Servers of the site, which must all have read that file before a neuron is told it is in;
    `None`: those that answer at that time."""
    join_urls: tuple[str, ...] = ()
    """Addresses of the site's servers for hosts that join; empty: those this process uses."""
    join_token_file: Path | None = None
    """A file in which the leader keeps a join token, for neurons that read it there; `None`: none
    is kept."""
    join_token_s: float = Field(default=3600.0, ge=60)
    """How long that token is good; it is renewed after half of it."""

    @property
    def address(self) -> SocketAddress:
        """Where the API listens.

        Raises:
            SettingsError: it is not an address.
        """
        return SocketAddress.parse(self.socket)
