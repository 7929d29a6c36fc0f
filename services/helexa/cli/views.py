# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What the orchestrator's API answers, as far as commands read it, and tables of it."""

from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict, Field

from helexa.protocol.messages.models import ModelConfig, ModelStatus
from helexa.protocol.messages.neurons import HardwareSummary
from helexa.protocol.messages.routing import Explanation

GIB = 1 << 30


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class NeuronView(_View):
    """A neuron."""

    id: str
    health: str
    draining: bool = False
    slots_total: int | None = None
    slots_busy: int | None = None
    uptime_s: float | None = None
    hardware: HardwareSummary = HardwareSummary()
    models: tuple[ModelStatus, ...] = ()


class NeuronList(_View):
    """All neurons."""

    neurons: tuple[NeuronView, ...]


class ReplicaView(_View):
    """A model on one neuron."""

    neuron: str
    state: str
    slots_total: int = 0
    slots_busy: int = 0
    progress: float | None = None
    error: str | None = None


class ModelView(_View):
    """A model."""

    id: str
    state: str
    config: ModelConfig
    replicas: tuple[ReplicaView, ...] = ()


class ModelList(_View):
    """All models."""

    models: tuple[ModelView, ...]


class LoadStatus(_View):
    """How far the loading of a model is."""

    state: str
    progress: float | None = None
    replicas: tuple[ReplicaView, ...] = ()


class JoinToken(_View):
    """What lets a neuron in."""

    token: str
    urls: tuple[str, ...] = ()


class PlanView(_View):
    """Where a model shall be."""

    neurons: tuple[str, ...] = ()
    wanted: int = 0
    needs: str = ""
    rejected: dict[str, str] = Field(default_factory=dict)


class DecisionView(_View):
    """A decision of the provisioner about one model."""

    at_ms: int = 0
    neurons: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


class RoutingView(Explanation):
    """The scheduler's explanation, or why there is none."""

    error: str | None = None


class WhyView(_View):
    """Why a request or a model is where it is."""

    routing: RoutingView
    placement: PlanView | None = None
    decisions: tuple[DecisionView, ...] = ()


def neuron_table(neurons: Iterable[NeuronView]) -> str:
    """Return the neurons, one a line."""
    return table(
        ("NEURON", "HEALTH", "BUSY", "MODELS", "HARDWARE", "UP"),
        [
            (
                neuron.id,
                "draining" if neuron.draining else neuron.health,
                _slots(neuron.slots_busy, neuron.slots_total),
                ", ".join(f"{model.model} ({model.state})" for model in neuron.models) or "-",
                hardware(neuron.hardware),
                _span(neuron.uptime_s),
            )
            for neuron in neurons
        ],
    )


def model_table(models: Iterable[ModelView]) -> str:
    """Return the models, one a line."""
    return table(
        ("MODEL", "STATE", "BUSY", "NEURONS", "BACKEND", "SOURCE"),
        [
            (
                model.id,
                model.state,
                _slots(
                    sum(replica.slots_busy for replica in model.replicas),
                    sum(replica.slots_total for replica in model.replicas),
                ),
                ", ".join(replica.neuron for replica in model.replicas) or "-",
                model.config.backend_kind,
                model.config.source or model.config.listen_endpoint or "-",
            )
            for model in models
        ],
    )


def hardware(summary: HardwareSummary) -> str:
    """Return the hardware in a few words."""
    memory = f"{summary.memory_free_bytes / GIB:.0f}/{summary.memory_total_bytes / GIB:.0f} GiB"
    cards = [gpu.name or "GPU" for gpu in summary.gpus]
    return ", ".join([f"{summary.cpu_cores} cores", f"{memory} free", *cards])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return columns that line up."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in lines
    )


def _slots(busy: int | None, total: int | None) -> str:
    return "-" if busy is None or total is None else f"{busy}/{total}"


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if hours < 2 else f"{hours:.0f} h"
