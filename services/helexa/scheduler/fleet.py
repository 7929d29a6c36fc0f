# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What is known of the neurons now: their last reports, and what was sent to them since."""

from helexa.protocol.messages.routing import Feedback
from helexa.protocol.reports import ModelReport, NeuronReport
from helexa.scheduler.candidates import NEVER, Candidate, Neuron
from helexa.scheduler.history import History
from helexa.scheduler.replicas import Replicas

SWEEP_S = 1.0
"""How often silent neurons are looked for."""


class Fleet:
    """All neurons that have reported lately. Times are those of one monotonic clock."""

    def __init__(self, history: History, *, forget_after_s: float) -> None:
        """Forget a neuron when it has been silent for `forget_after_s`."""
        self._history = history
        self._forget_after_s = forget_after_s
        self._neurons: dict[str, Neuron] = {}
        self._replicas: dict[str, Replicas] = {}
        self._swept_at = NEVER

    @property
    def size(self) -> int:
        """How many neurons are known."""
        return len(self._neurons)

    def report(self, status: NeuronReport, now: float) -> None:
        """Take a neuron's report; it stands for everything that was decided before."""
        known = self._neurons.get(status.neuron_id)
        if known is not None and known.status.instance != status.instance:
            self._forget(known)
            known = None
        if known is None:
            known = self._neurons[status.neuron_id] = Neuron(status, now)
        elif known.status.sequence > status.sequence:
            return
        known.status, known.seen_at, known.slots_busy = status, now, status.slots_busy
        reported = {each.model: each for each in status.models}
        for model in known.candidates.keys() - reported.keys():
            self._remove(model, known.candidates.pop(model))
        for model, told in reported.items():
            self._take(known, model, told)

    def decided(self, neuron_id: str, model: str) -> None:
        """Count a request that was just sent to a neuron, until its next report shows it."""
        neuron = self._neurons.get(neuron_id)
        if neuron is None:
            return
        neuron.slots_busy += 1
        candidate = neuron.candidates.get(model)
        if candidate is not None:
            candidate.model_slots_busy += 1
            candidate.stand()

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
            candidate = self.replicas(outcome.model).get(outcome.neuron_id)
            if candidate is not None:
                candidate.looked_up_at = NEVER

    def replicas(self, model: str) -> Replicas:
        """Return the neurons that know `model`, loaded or not."""
        return self._replicas.get(model) or Replicas(self._history)

    def candidates(self, model: str) -> list[Candidate]:
        """Return every known neuron, seen from `model`."""
        return [
            neuron.candidates.get(model) or Candidate(neuron, None)
            for neuron in self._neurons.values()
        ]

    def forget_silent(self, now: float) -> None:
        """Forget who has said nothing for long, at a good time."""
        if now - self._swept_at < SWEEP_S:
            return
        self._swept_at = now
        oldest = now - self._forget_after_s
        for neuron in [each for each in self._neurons.values() if each.seen_at < oldest]:
            self._forget(neuron)

    def _take(self, neuron: Neuron, model: str, told: ModelReport) -> None:
        candidate = neuron.candidates.get(model)
        if candidate is None:
            candidate = neuron.candidates[model] = Candidate(neuron, told)
            if model not in self._replicas:
                self._replicas[model] = Replicas(self._history)
            self._replicas[model].add(candidate)
        candidate.model, candidate.looked_up_at = told, NEVER
        candidate.model_slots_busy = told.slots_busy
        candidate.stand()
        self._replicas[model].readers.report(candidate, told.prefix_digests)

    def _remove(self, model: str, candidate: Candidate) -> None:
        replicas = self._replicas[model]
        replicas.remove(candidate)
        if not replicas.all:
            del self._replicas[model]

    def _forget(self, neuron: Neuron) -> None:
        name = neuron.status.neuron_id
        for model, candidate in neuron.candidates.items():
            self._remove(model, candidate)
        del self._neurons[name]
        self._history.forget(name)
