# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Neurons: who they are, what they report, and what they and their cortex tell each other."""

from typing import Literal

from helexa.protocol.messages.base import PROTOCOL_VERSION, Message, Record
from helexa.protocol.messages.models import ModelCapability, ModelId, ModelStatus, Price


class GpuSummary(Record):
    """One GPU. `None` means that the driver does not tell."""

    index: int
    uuid: str = ""
    name: str = ""
    memory_total_bytes: int | None = None
    memory_free_bytes: int | None = None
    utilization_percent: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    compute_capability: str | None = None
    error: str | None = None
    """Why this card is out of use, for example that it fell off the bus."""


class HardwareSummary(Record):
    """What a host has and how much of it is free."""

    cpu_model: str = ""
    cpu_cores: int = 0
    """Cores that the process may use."""
    cpu_percent: float | None = None
    memory_total_bytes: int = 0
    memory_free_bytes: int = 0
    disk_free_bytes: int | None = None
    gpus: tuple[GpuSummary, ...] = ()


class NeuronDescriptor(Record):
    """Who a neuron is: identity, software, prices, and what it can run."""

    neuron_id: str
    public_key: str = ""
    """Its ed25519 nkey (`U…`), which signs its usage records."""
    instance: str = ""
    """New at each start of the process."""
    protocol_version: int = PROTOCOL_VERSION
    software_version: str = ""
    host: str = ""
    """Host name, for people."""
    endpoints: dict[str, str] = {}
    """Further addresses that others can really reach; never a guess, never loopback."""
    operator: dict[str, str] = {}
    price: Price = Price()
    backend_kinds: tuple[str, ...] = ()
    slots_total: int = 0
    hardware: HardwareSummary = HardwareSummary()


class NeuronStatus(Message):
    """What a neuron reports each second and on every change."""

    neuron_id: str
    instance: str
    sequence: int
    """Rises by one a report within an instance."""
    uptime_s: float = 0.0
    draining: bool = False
    slots_total: int = 0
    """Requests that the host takes at once over all models and sites."""
    slots_busy: int = 0
    models: tuple[ModelStatus, ...] = ()
    hardware: HardwareSummary = HardwareSummary()
    price: Price = Price()


class Registration(Message):
    """A neuron presents itself; repeated every 20 s and after each reconnect."""

    kind: Literal["register"] = "register"
    descriptor: NeuronDescriptor
    status: NeuronStatus


class Registered(Message):
    """The registration is known."""

    heartbeat_interval_s: float = 1.0


class Departure(Message):
    """A neuron that stops says so, and is forgotten at once."""

    kind: Literal["shutdown"] = "shutdown"
    neuron_id: str
    instance: str
    reason: str = ""


class Acknowledged(Message):
    """Done; there is nothing to add."""


class ShutdownNotice(Message):
    """The cortex is about to stop: keep serving and reconnect."""

    kind: Literal["shutdown_notice"] = "shutdown_notice"
    reason: str = ""
    returns: bool = True
    """It is expected back."""


class CapabilitiesRequest(Message):
    """Ask a neuron what it can do now."""

    kind: Literal["request_capabilities"] = "request_capabilities"


class Capabilities(Message):
    """What a neuron can do: itself, and each model it has loaded."""

    descriptor: NeuronDescriptor
    models: dict[str, ModelCapability] = {}


class HealthRequest(Message):
    """Ask a neuron how it is."""


class Health(Message):
    """A neuron's own view of itself."""

    healthy: bool
    status: NeuronStatus
    impaired_models: tuple[ModelId, ...] = ()
    """Loaded, but not servable."""


class DrainRequest(Message):
    """Take no new work (or take work again)."""

    draining: bool = True


class EnrolRequest(Message):
    """A neuron asks to be let in: its id, its public key, and proof that it holds the key."""

    neuron_id: str
    public_key: str
    nonce: bytes
    signature: bytes
    """ed25519 over `enrolment_proof(neuron_id, nonce)`."""


class Enrolled(Message):
    """The site's servers now accept the neuron."""

    neuron_id: str


def enrolment_proof(neuron_id: str, nonce: bytes) -> bytes:
    """Return the bytes that an enrolling neuron signs."""
    return b"helexa-enrol-v1\0" + neuron_id.encode() + b"\0" + nonce
