# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The neuron's own numbers."""

from dataclasses import dataclass

from helexa.neuron.ending import Ending
from helexa.neuron.hardware_feed import HardwareFeed
from helexa.neuron.models import ModelHost
from helexa.process.metrics import Metrics
from helexa.process.tallies import Count, Spread
from helexa.protocol.messages.models import ModelState

_STATES = tuple(
    value for name, value in vars(ModelState).items() if name.isupper() and isinstance(value, str)
)


@dataclass(slots=True)
class _OfModel:
    """The numbers that each request of a model adds to, looked up once."""

    input: Count
    output: Count
    cached: Count
    reasoning: Count
    duration: Spread


class Meters:
    """Counts requests as they end; states are read when somebody looks."""

    def __init__(self, metrics: Metrics) -> None:
        """Declare every number in `metrics`."""
        self.metrics = metrics
        self._requests = metrics.counter("neuron_requests", "Attempts that ended.", "model", "code")
        self._tokens = metrics.counter(
            "neuron_tokens", "Tokens of attempts that ended.", "model", "type"
        )
        self._first = metrics.histogram(
            "neuron_time_to_first_token_seconds", "From acceptance to the first token.", "model"
        )
        self._duration = metrics.histogram(
            "neuron_request_duration_seconds", "From acceptance to the end.", "model"
        )
        self._bulk = metrics.counter(
            "neuron_bulk_jobs", "Bulk jobs that were pulled, by what became of them.", "outcome"
        )
        self._slots = metrics.reading("slots", "Requests that the host takes at once.")
        self._busy = metrics.reading("slots_busy", "Requests that the host serves now.")
        self._states = metrics.reading("model_state", "1 for the state it is in.", "model", "state")
        self._load = metrics.reading(
            "neuron_model_load_seconds", "Duration of the last load.", "model"
        )
        self._of_model: dict[str, _OfModel] = {}
        self._gpu = metrics.reading("gpu_memory_used_bytes", "Memory in use on a card.", "gpu")

    def ended(self, model: str, ending: Ending) -> None:
        """Count an attempt that has ended."""
        usage = ending.usage
        of_model = self._of_model.get(model) or self._meet(model)
        self._requests.labels(model, ending.outcome).inc()
        of_model.input.value += usage.prompt_tokens
        of_model.output.value += usage.completion_tokens
        of_model.cached.value += usage.cached_tokens or 0
        of_model.reasoning.value += usage.reasoning_tokens or 0
        of_model.duration.observe(ending.total_s)
        if ending.first_token_s is not None:
            self._first.labels(model).observe(ending.first_token_s)

    def _meet(self, model: str) -> _OfModel:
        tokens = self._tokens
        made = self._of_model[model] = _OfModel(
            input=tokens.labels(model, "input"),
            output=tokens.labels(model, "output"),
            cached=tokens.labels(model, "cached"),
            reasoning=tokens.labels(model, "reasoning"),
            duration=self._duration.labels(model),
        )
        return made

    def bulk_job(self, outcome: str) -> None:
        """Count a bulk job that was pulled: `taken`, `put_back`, `void` or `orphan`."""
        self._bulk.labels(outcome).inc()

    def watch(self, host: ModelHost, hardware: HardwareFeed) -> None:
        """Show the states of `host` and the memory of the cards from now on."""
        self._slots.read = lambda: [((), host.slots.total)]
        self._busy.read = lambda: [((), host.slots.busy)]
        self._states.read = lambda: [
            ((str(hosted.record.model), state), float(hosted.record.state == state))
            for hosted in host.models
            for state in _STATES
        ]
        self._load.read = lambda: [
            ((str(hosted.record.model),), hosted.load_s)
            for hosted in host.models
            if hosted.load_s is not None
        ]
        self._gpu.read = lambda: [
            ((str(card.index),), card.memory_total_bytes - card.memory_free_bytes)
            for card in hardware.latest.gpus
            if card.memory_total_bytes is not None and card.memory_free_bytes is not None
        ]
