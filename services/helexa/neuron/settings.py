# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a neuron can be told."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, SecretStr

from helexa.process.settings import ServiceSettings, SocketAddress
from helexa.protocol.messages.models import Price


class NeuronSettings(ServiceSettings):
    """Settings of one neuron."""

    section: ClassVar[str] = "neuron"

    node_id: str | None = None
    """The neuron's name; `None`: the one kept in the data directory, else `/etc/machine-id`, else,
    with a join token, a new one."""
    site: tuple[str, ...] = ()
    """Sites to join, each `NAME=URL[,URL…]`; empty: the one site of `nats_url`."""
    join_token: SecretStr | None = None
    """Lets the neuron in where it is not known yet; `None`: this machine's own, if a site runs
    here."""
    join_token_file: Path | None = None
    """A file with the join token, for one that is renewed; it is read whenever it is needed."""
    models_dir: Path | None = None
    """Where weights lie; `None`: `models` in the data directory."""
    api_socket: str = "127.0.0.1:8060"
    """`HOST:PORT` of the local API, on loopback; empty: no local API."""
    slots: int = Field(default=0, ge=0)
    """Requests that the host takes at once over all models and sites; 0: the sum of the models'."""
    bulk_slots: int | None = Field(default=None, ge=0)
    """Slots that bulk work may have at once; `None`: all but one; 0: none."""
    backend_kinds: tuple[str, ...] = ()
    """The only kinds of backend that may run here; empty: all that this host can run."""
    hub_token: SecretStr | None = None
    """Token of the Hugging Face hub."""
    hub_endpoint: str = "https://huggingface.co"
    """Where `hf:` sources are fetched from."""
    status_interval_s: float = Field(default=1.0, gt=0)
    """Time between two reports to the site; changes are told at once."""
    backend_load_timeout_s: float = Field(default=600.0, gt=0)
    """Longest time for a runtime to become ready, after its weights are here."""
    unload_grace_s: float = Field(default=30.0, ge=0)
    """How long running requests may hold back the unloading of their model."""
    price_currency: str = "USD"
    """The currency of the price hints."""
    price_input: int | None = Field(default=None, ge=0)
    """Micro-units for a million prompt tokens; `None`: no price is set."""
    price_output: int | None = Field(default=None, ge=0)
    """Micro-units for a million completion tokens; `None`: no price is set."""
    operator_name: str | None = None
    """Who runs the host, for people."""

    @property
    def price(self) -> Price:
        """The host's price hints, for models without their own."""
        return Price(
            currency=self.price_currency,
            input_per_million_tokens=self.price_input,
            output_per_million_tokens=self.price_output,
        )

    @property
    def operator(self) -> dict[str, str]:
        """What is told about the operator."""
        return {"name": self.operator_name} if self.operator_name else {}

    @property
    def api_address(self) -> SocketAddress | None:
        """The address of the local API, if there is one.

        Raises:
            SettingsError: it is not an address.
        """
        return SocketAddress.parse(self.api_socket) if self.api_socket else None
