# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A neuron's status, read for its load alone.

Every gateway, scheduler, provisioner and portal hears every neuron each second and on each change.
Read whole, as a `NeuronStatus`, one report takes a reader ten times as long as this (measured: 26
against 2.5 µs with one model and one GPU). So who needs no hardware reads it as this, and who needs
it sometimes reads the rest then. The fields are the message's own, and mean the same; a test keeps
them so.
"""

import msgspec

from helexa.protocol.errors import MalformedError
from helexa.protocol.messages.models import ModelId, Workload


class CapabilityReport(msgspec.Struct, frozen=True, gc=False):
    """The fields of a `ModelCapability`."""

    workloads: tuple[str, ...] = (Workload.CHAT, Workload.COMPLETION)
    max_context_tokens: int | None = None
    throughput_tokens_per_s: float | None = None
    vram_bytes: int | None = None
    memory_bytes: int | None = None
    tools: bool = True
    continues_partial: bool = False


class PriceReport(msgspec.Struct, frozen=True, gc=False):
    """The fields of a `Price`."""

    currency: str = "USD"
    input_per_million_tokens: int | None = None
    cached_per_million_tokens: int | None = None
    output_per_million_tokens: int | None = None
    per_request: int | None = None


class ModelReport(msgspec.Struct, frozen=True, gc=False):
    """The fields of a `ModelStatus`."""

    model: ModelId
    state: str
    servable: bool = True
    slots_total: int = 0
    slots_busy: int = 0
    capability: CapabilityReport = CapabilityReport()
    price: PriceReport = PriceReport()
    config_digest: str = ""
    progress: float | None = None
    error: str | None = None
    tokens_per_s: float | None = None
    requests_done: int = 0
    requests_failed: int = 0
    idle_s: float = 0.0
    memory_bytes: int | None = None
    prefix_digests: bytes = b""


class NeuronReport(msgspec.Struct, frozen=True, gc=False):
    """The fields of a `NeuronStatus`, without the hardware."""

    neuron_id: str
    instance: str
    sequence: int
    uptime_s: float = 0.0
    draining: bool = False
    slots_total: int = 0
    slots_busy: int = 0
    models: tuple[ModelReport, ...] = ()
    price: PriceReport = PriceReport()


def read_report(data: bytes) -> NeuronReport:
    """Return the report in `data`, an encoded `NeuronStatus`.

    Raises:
        MalformedError: it is none.
    """
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"NeuronStatus: {error}") from error


def _read_name(kind: type[object], value: object) -> object:
    del kind
    return ModelId.read(value)


_DECODER = msgspec.msgpack.Decoder(NeuronReport, dec_hook=_read_name)
