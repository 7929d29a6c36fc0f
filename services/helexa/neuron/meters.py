# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The neuron's own numbers."""

from helexa.neuron.execution import Ending
from helexa.neuron.hardware_feed import HardwareFeed
from helexa.neuron.models import ModelHost
from helexa.process.metrics import Metrics
from helexa.protocol.messages.models import ModelState

_STATES = tuple(
    value for name, value in vars(ModelState).items() if name.isupper() and isinstance(value, str)
)


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
        self._slots = metrics.gauge("slots", "Requests that the host takes at once.")
        self._busy = metrics.gauge("slots_busy", "Requests that the host serves now.")
        self._states = metrics.gauge("model_state", "1 for the state it is in.", "model", "state")
        self._load = metrics.gauge(
            "neuron_model_load_seconds", "Duration of the last load.", "model"
        )
        self._gpu = metrics.gauge("gpu_memory_used_bytes", "Memory in use on a card.", "gpu")

    def ended(self, model: str, ending: Ending) -> None:
        """Count an attempt that has ended."""
        self._requests.labels(model, ending.outcome).inc()
        self._tokens.labels(model, "input").inc(ending.usage.prompt_tokens)
        self._tokens.labels(model, "output").inc(ending.usage.completion_tokens)
        self._tokens.labels(model, "cached").inc(ending.usage.cached_tokens or 0)
        self._tokens.labels(model, "reasoning").inc(ending.usage.reasoning_tokens or 0)
        self._duration.labels(model).observe(ending.timings.total_s)
        if ending.timings.first_token_s is not None:
            self._first.labels(model).observe(ending.timings.first_token_s)

    def bulk_job(self, outcome: str) -> None:
        """Count a bulk job that was pulled: `taken`, `put_back`, `void` or `orphan`."""
        self._bulk.labels(outcome).inc()

    def watch(self, host: ModelHost, hardware: HardwareFeed) -> None:
        """Show the states of `host` and the memory of the cards from now on."""
        self._slots.set_function(lambda: float(host.slots.total))
        self._busy.set_function(lambda: float(host.slots.busy))

        def read() -> None:
            self._states.clear()
            for hosted in host.models:
                name = str(hosted.record.model)
                for state in _STATES:
                    self._states.labels(name, state).set(hosted.record.state == state)
                if hosted.load_s is not None:
                    self._load.labels(name).set(hosted.load_s)
            for card in hardware.latest.gpus:
                if card.memory_total_bytes is not None and card.memory_free_bytes is not None:
                    used = card.memory_total_bytes - card.memory_free_bytes
                    self._gpu.labels(str(card.index)).set(used)

        host.on_change(read)
        hardware.on_sample(read)
