# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What is known of the neurons now: their last reports, and what was sent to them since."""

from dataclasses import dataclass, field

from helexa.protocol.messages.models import ModelStatus
from helexa.protocol.messages.neurons import NeuronStatus
from helexa.protocol.messages.routing import Feedback
from helexa.scheduler.history import Experience, History


@dataclass(frozen=True, slots=True)
class Candidate:
    """One neuron, as one decision sees it. Busy slots include what was decided since its report."""

    neuron_id: str
    age_s: float
    """Time since its last report."""
    status: NeuronStatus
    model: ModelStatus | None
    """`None`: the neuron does not know the model."""
    slots_busy: int
    model_slots_busy: int
    experience: Experience


@dataclass(slots=True)
class _Neuron:
    status: NeuronStatus
    seen_at: float
    models: dict[str, ModelStatus]
    decided: int = 0
    decided_for: dict[str, int] = field(default_factory=dict)


class Fleet:
    """All neurons that have reported lately. Times are those of one monotonic clock."""

    def __init__(self, history: History, *, forget_after_s: float) -> None:
        """Forget a neuron when it has been silent for `forget_after_s`."""
        self._history = history
        self._forget_after_s = forget_after_s
        self._neurons: dict[str, _Neuron] = {}

    @property
    def size(self) -> int:
        """How many neurons are known."""
        return len(self._neurons)

    def report(self, status: NeuronStatus, now: float) -> None:
        """Take a neuron's report; it stands for everything that was decided before."""
        known = self._neurons.get(status.neuron_id)
        if (
            known is not None
            and known.status.instance == status.instance
            and known.status.sequence > status.sequence
        ):
            return
        if known is not None and known.status.instance != status.instance:
            self._history.forget(status.neuron_id)
        models = {str(each.model): each for each in status.models}
        self._neurons[status.neuron_id] = _Neuron(status, now, models)

    def decided(self, neuron_id: str, model: str) -> None:
        """Count a request that was just sent to a neuron, until its next report shows it."""
        neuron = self._neurons.get(neuron_id)
        if neuron is not None:
            neuron.decided += 1
            neuron.decided_for[model] = neuron.decided_for.get(model, 0) + 1

    def feedback(self, report: Feedback, now: float) -> None:
        """Take what a gateway saw."""
        for outcome in report.outcomes:
            for seconds in outcome.first_token_s:
                self._history.first_token(outcome.neuron_id, outcome.model, seconds, now)
            self._history.attempts(
                outcome.neuron_id,
                outcome.model,
                completed=outcome.completed,
                failed=outcome.failed,
                now=now,
            )

    def candidates(self, model: str, now: float) -> list[Candidate]:
        """Return every known neuron as it is now, seen from `model`."""
        self._forget_silent(now)
        return [self._candidate(neuron, model, now) for neuron in self._neurons.values()]

    def _candidate(self, neuron: _Neuron, model: str, now: float) -> Candidate:
        status = neuron.status
        held = neuron.models.get(model)
        return Candidate(
            neuron_id=status.neuron_id,
            age_s=now - neuron.seen_at,
            status=status,
            model=held,
            slots_busy=status.slots_busy + neuron.decided,
            model_slots_busy=(held.slots_busy if held else 0) + neuron.decided_for.get(model, 0),
            experience=self._history.of(status.neuron_id, model, now),
        )

    def _forget_silent(self, now: float) -> None:
        gone = [
            name
            for name, neuron in self._neurons.items()
            if now - neuron.seen_at > self._forget_after_s
        ]
        for name in gone:
            del self._neurons[name]
            self._history.forget(name)
