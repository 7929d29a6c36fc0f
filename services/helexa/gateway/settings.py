# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a gateway can be told."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from helexa.process.settings import SocketAddress, StreamSettings

_DIGEST_LENGTH = 64


class GatewaySettings(StreamSettings):
    """Settings of the gateway, table `[gateway]`."""

    section: ClassVar[str] = "gateway"

    socket: str = "127.0.0.1:8080"
    """`HOST:PORT` of the HTTP API."""
    share_port: bool = False
    """Other gateways of this user listen on the socket too; the system spreads the connections."""
    api_keys: tuple[str, ...] = ()
    """SHA-256 digests, in hexadecimal, of the keys that are accepted."""
    api_key_file: Path | None = None
    """A file with one key; `None`: the one in the data directory."""
    open: bool | None = None
    """Serve callers without a key too. `None`: only on a loopback socket, while no key is set."""
    default_model: str | None = None
    """The model of requests that name none; `None` refuses them."""
    default_max_tokens: int | None = Field(default=None, gt=0)
    """Cap of requests that set none; `None` leaves it to the model's runtime."""
    bulk_prompt_tokens: int = Field(default=16_384, gt=0)
    """An estimated prompt of more tokens makes a chat bulk work."""
    bulk_limit: int = Field(default=4096, ge=0)
    """Bulk requests that may wait, over all models and gateways of the site; 0: none."""
    bulk_limit_per_key: int = Field(default=3072, ge=0)
    """Bulk requests of one API key that may wait, over all models and gateways of the site."""
    bulk_timeout_s: float = Field(default=3600.0, gt=0, le=86_400)
    """Longest wait of a bulk request for a neuron with room."""
    max_body_bytes: int = Field(default=32 * 1024 * 1024, gt=0)
    """A larger request is refused."""
    queue_limit: int = Field(default=1024, ge=0)
    """Requests that may wait for one model, over all gateways of the site; 0: none."""
    queue_limit_per_key: int = Field(default=768, ge=0)
    """Requests of one API key that may wait for one model, over all gateways of the site."""
    queue_timeout_s: float = Field(default=600.0, gt=0)
    """Longest wait of a request for room at a neuron."""
    away_timeout_s: float = Field(default=10.0, ge=0)
    """How long requests wait for a scheduler, or the site's servers, to come back."""
    heartbeat_s: float = Field(default=1.0, gt=0)
    """Longest silence towards a client that waits for a stream."""
    idle_timeout_s: float = Field(default=120.0, gt=0)
    """Longest silence of an answer that has begun."""
    first_token_timeout_s: float = Field(default=600.0, gt=0)
    """Longest silence of an answer before its first token."""
    go_on_timeout_s: float = Field(default=30.0, gt=0)
    """Longest wait for another neuron that goes on with an answer whose own has failed."""
    client_buffer_bytes: int = Field(default=8 * 1024 * 1024, gt=0)
    """A client that is further behind its answer is cut off."""
    show_route: bool = False
    """Name the neuron and the decision to callers who ask by `x-helexa-show-route: true`."""
    max_attempts: int = Field(default=3, ge=1)
    """Neurons that may fail a request before it fails."""

    @field_validator("socket")
    @classmethod
    def _address(cls, value: str) -> str:
        SocketAddress.parse(value)
        return value

    @field_validator("api_keys")
    @classmethod
    def _digests(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if len(each) != _DIGEST_LENGTH or set(each.lower()) - set("0123456789abcdef"):
                raise ValueError("holds SHA-256 digests of keys (64 hexadecimal digits), not keys")
        return tuple(each.lower() for each in value)
