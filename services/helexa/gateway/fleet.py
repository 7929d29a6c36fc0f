# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The neurons as they report: which models they have, how much room, who has fallen silent."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from helexa.protocol.messages.models import ModelState, ModelStatus
from helexa.protocol.messages.neurons import NeuronStatus

HEARTBEAT_S = 1.0
SILENT_S = 3 * HEARTBEAT_S
"""A neuron that has not reported for so long is not counted on."""
RETURN_GRACE_S = 5.0
"""So much later than this gateway a neuron may be back after the servers were gone."""
DEAF_S = 2 * HEARTBEAT_S
"""Gateways hear their own beats too. One that has heard nothing for so long was away itself."""
FORGET_S = 60.0

Listener = Callable[[str, int, str], None]


@dataclass(frozen=True, slots=True)
class Seats:
    """How many requests for a model the neurons can take, as they report."""

    free: int = 0
    total: int = 0


@dataclass(slots=True)
class _Report:
    status: NeuronStatus
    at: float
    taken: Counter[str] = field(default_factory=Counter)
    """Requests that the neuron has accepted from here since, by model."""


class Fleet:
    """What the neurons last said. Times are those of one monotonic clock.

    Silence counts up to the moment at which anything was heard last: who is frozen, or whose server
    is, cannot tell that others are silent.
    """

    def __init__(self) -> None:
        """Begin without neurons."""
        self._reports: dict[str, _Report] = {}
        self._heard_at = float("-inf")
        self._listeners: list[Listener] = []
        self.changes: Counter[str] = Counter()
        """How often news came that may help those who wait for a model."""

    def on_news(self, listener: Listener) -> None:
        """Call `listener` with a model, its free slots and where when waiting for it may be over.

        That is when a neuron reports room for it, and, with 0, when it reports that the model
        cannot be loaded.
        """
        self._listeners.append(listener)

    def hear(self, now: float) -> bool:
        """Note that something was heard; return whether that ends a time in which nothing was."""
        was_deaf = now - self._heard_at > DEAF_S
        self._heard_at = now
        if was_deaf:
            self.listen_anew(now)
        return was_deaf

    def take(self, status: NeuronStatus, now: float) -> None:
        """Take in one report."""
        self._heard_at = max(self._heard_at, now)
        held = self._reports.get(status.neuron_id)
        if (
            held is not None
            and held.status.instance == status.instance
            and held.status.sequence > status.sequence
        ):
            return
        self._reports[status.neuron_id] = _Report(status, now)
        for model in status.models:
            room = _room(status, model)
            newly_failed = model.state == ModelState.FAILED and not _had_failed(held, model)
            if room or (newly_failed and self.failure(model.model, now) is not None):
                self.changes[model.model] += 1
                for listener in self._listeners:
                    listener(model.model, room, status.neuron_id)

    def took(self, neuron_id: str, model: str) -> None:
        """Note that `neuron_id` has accepted a request from here, before it reports so itself."""
        held = self._reports.get(neuron_id)
        if held is not None:
            held.taken[model] += 1

    def seats(self, model: str, now: float) -> Seats:
        """Return how many requests for `model` the neurons can take, together."""
        free = total = 0
        for held in self._live(now):
            for each in held.status.models:
                if each.model == model and _can_serve(held.status, each):
                    total += each.slots_total
                    free += max(0, _room(held.status, each) - held.taken[model])
        return Seats(free, total)

    def silence_s(self, neuron_id: str, now: float) -> float:
        """Return how long `neuron_id` has not reported; for ever if it never did."""
        held = self._reports.get(neuron_id)
        return min(now, self._heard_at) - held.at if held else float("inf")

    def listen_anew(self, now: float) -> None:
        """Forget the silence of a time in which nothing could be heard.

        The neurons lost the connection too, and may be back later than we are.
        """
        for report in self._reports.values():
            report.at = now + RETURN_GRACE_S

    def neurons(self, now: float) -> int:
        """Return how many neurons report."""
        return sum(1 for _ in self._live(now))

    def replicas(self, now: float) -> dict[str, list[ModelStatus]]:
        """Return every model that a neuron has or had loaded, by name."""
        found: dict[str, list[ModelStatus]] = {}
        for held in self._live(now):
            for model in held.status.models:
                found.setdefault(model.model, []).append(model)
        return found

    def statuses(self, model: str, now: float) -> list[ModelStatus]:
        """Return the model's state on each neuron that knows it."""
        return [
            each for held in self._live(now) for each in held.status.models if each.model == model
        ]

    def can_go_on(self, model: str) -> bool:
        """Whether a neuron that has `model` can go on from a partial answer.

        One that has just fallen silent counts: it may be back.
        """
        return any(
            each.model == model and each.capability.continues_partial
            for held in self._reports.values()
            for each in held.status.models
        )

    def serving(self, model: str, now: float) -> dict[str, ModelStatus]:
        """Return the model's state on each neuron that serves it and takes new work."""
        return {
            held.status.neuron_id: each
            for held in self._live(now)
            for each in held.status.models
            if each.model == model and _can_serve(held.status, each)
        }

    def failure(self, model: str, now: float) -> str | None:
        """Return why `model` could not be loaded, where a neuron says so and none has it."""
        known = self.statuses(model, now)
        if any(each.state in (ModelState.LOADED, ModelState.LOADING) for each in known):
            return None
        failed = [each.error or "" for each in known if each.state == ModelState.FAILED]
        return failed[0] if failed else None

    def _live(self, now: float) -> Iterator[_Report]:
        heard_at = min(now, self._heard_at)
        for name in [n for n, held in self._reports.items() if heard_at - held.at > FORGET_S]:
            del self._reports[name]
        for held in self._reports.values():
            if heard_at - held.at <= SILENT_S:
                yield held


def _can_serve(status: NeuronStatus, model: ModelStatus) -> bool:
    return not status.draining and model.state == ModelState.LOADED and model.servable


def _room(status: NeuronStatus, model: ModelStatus) -> int:
    if not _can_serve(status, model):
        return 0
    free = model.slots_total - model.slots_busy
    if status.slots_total:
        free = min(free, status.slots_total - status.slots_busy)
    return max(0, free)


def _had_failed(held: _Report | None, model: ModelStatus) -> bool:
    if held is None:
        return False
    return any(
        each.model == model.model and each.state == ModelState.FAILED for each in held.status.models
    )
