# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a visitor is told about the models of a site. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from helexa.protocol.messages.models import ModelConfig, ModelState
from helexa.protocol.reports import ModelReport, NeuronReport

NEURON_SILENT_AFTER_S = 5.0
"""A neuron reports each second; one that missed five reports is not counted."""


@dataclass(frozen=True, slots=True)
class Heard:
    """The last report of one neuron."""

    status: NeuronReport
    at_s: float
    """When it came, on the reader's monotonic clock."""


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model of the site."""

    name: str
    state: str
    """`ready`, `busy`, `loading`, `failed` or `idle`."""
    told: str
    """The state in words."""
    aliases: tuple[str, ...] = ()
    context_tokens: int | None = None


def model_rows(
    catalogue: Mapping[str, ModelConfig], heard: Iterable[Heard], now_s: float
) -> tuple[ModelRow, ...]:
    """Return the models in the order of their names."""
    replicas: dict[str, list[ModelReport]] = {}
    for report in heard:
        if now_s - report.at_s <= NEURON_SILENT_AFTER_S:
            for model in report.status.models:
                replicas.setdefault(str(model.model), []).append(model)
    return tuple(
        _row(name, config, replicas.get(name, [])) for name, config in sorted(catalogue.items())
    )


def _row(name: str, config: ModelConfig, replicas: list[ModelReport]) -> ModelRow:
    state, told = _state_of(replicas)
    contexts = [
        found
        for found in (replica.capability.max_context_tokens for replica in replicas)
        if found is not None
    ]
    # Over replicas the tightest limit is the one that holds for every request.
    context = min(contexts) if contexts else config.context_tokens
    return ModelRow(name, state, told, config.aliases, context)


def _state_of(replicas: list[ModelReport]) -> tuple[str, str]:
    serving = [r for r in replicas if r.state == ModelState.LOADED and r.servable]
    if serving:
        free = sum(max(0, replica.slots_total - replica.slots_busy) for replica in serving)
        places = f"on {len(serving)} host{'s' if len(serving) > 1 else ''}"
        return ("ready", f"Ready {places}") if free else ("busy", f"Busy {places}, requests wait")
    loading = [replica for replica in replicas if replica.state == ModelState.LOADING]
    if loading:
        progress = max((replica.progress or 0.0) for replica in loading)
        return "loading", f"Loading, {progress:.0%}" if progress else "Loading"
    if any(replica.state == ModelState.FAILED for replica in replicas):
        return "failed", "Failed to load"
    return "idle", "Not loaded"
