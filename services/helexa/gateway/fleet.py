# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The neurons as they report: which models they have, how much room, who has fallen silent."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from helexa.protocol.messages.models import ModelState
from helexa.protocol.reports import ModelReport, NeuronReport

HEARTBEAT_S = 1.0
SILENT_S = 3 * HEARTBEAT_S
"""A neuron that has not reported for so long is not counted on."""
RETURN_GRACE_S = 5.0
"""So much later than this gateway a neuron may be back after the servers were gone."""
DEAF_S = 2 * HEARTBEAT_S
"""Gateways hear their own beats too. One that has heard nothing for so long was away itself."""
FORGET_S = 60.0
SWEEP_S = 1.0
"""How often those who are to be forgotten are looked for."""

Listener = Callable[[str, int, str], None]


@dataclass(frozen=True, slots=True)
class Seats:
    """How many requests for a model the neurons can take, as they report."""

    free: int = 0
    total: int = 0


@dataclass(slots=True)
class _Report:
    status: NeuronReport
    at: float
    taken: Counter[str] = field(default_factory=Counter)
    """Requests that the neuron has accepted from here since, by model."""


_Replica = tuple[_Report, ModelReport]
"""A neuron's last report, and the part of it that is about one model."""


class Fleet:
    """What the neurons last said. Times are those of one monotonic clock.

    Silence counts up to the moment at which anything was heard last: who is frozen, or whose server
    is, cannot tell that others are silent.
    """

    def __init__(self) -> None:
        """Begin without neurons."""
        self._reports: dict[str, _Report] = {}
        self._replicas: dict[str, dict[str, _Replica]] = {}
        """By model, then by neuron: a request asks of one model, whatever else there is."""
        self._swept_at = float("-inf")
        self._heard_at = float("-inf")
        self._listeners: list[Listener] = []
        self.changes: Counter[str] = Counter()
        """How often news came that may help those who wait for a model."""
        self.editions: Counter[str] = Counter()
        """How often it changed what neurons say that a model is and can do."""

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

    def take(self, status: NeuronReport, now: float) -> None:
        """Take in one report."""
        self._heard_at = max(self._heard_at, now)
        held = self._reports.get(status.neuron_id)
        if (
            held is not None
            and held.status.instance == status.instance
            and held.status.sequence > status.sequence
        ):
            return
        before = self._keep(status, now)
        if now - self._swept_at > SWEEP_S:
            self._sweep(now)
        for model in status.models:
            room = _room(status, model)
            was = before.get(model.model)
            newly_failed = model.state == ModelState.FAILED and (
                was is None or was.state != ModelState.FAILED
            )
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
        for held, each in self._live_replicas(model, now):
            if _can_serve(held.status, each):
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
        return sum(1 for held in self._reports.values() if self._is_live(held, now))

    def models(self, now: float) -> set[str]:
        """Return every model that a neuron has or had loaded."""
        return {
            model
            for model, replicas in self._replicas.items()
            if any(self._is_live(held, now) for held, _ in replicas.values())
        }

    def statuses(self, model: str, now: float) -> list[ModelReport]:
        """Return the model's state on each neuron that knows it."""
        return [each for _, each in self._live_replicas(model, now)]

    def can_go_on(self, model: str) -> bool:
        """Whether a neuron that has `model` can go on from a partial answer.

        One that has just fallen silent counts: it may be back.
        """
        replicas = self._replicas.get(model, {}).values()
        return any(each.capability.continues_partial for _, each in replicas)

    def serving(self, model: str, now: float) -> dict[str, ModelReport]:
        """Return the model's state on each neuron that serves it and takes new work."""
        return {
            held.status.neuron_id: each
            for held, each in self._live_replicas(model, now)
            if _can_serve(held.status, each)
        }

    def failure(self, model: str, now: float) -> str | None:
        """Return why `model` could not be loaded, where a neuron says so and none has it."""
        known = self.statuses(model, now)
        if any(each.state in (ModelState.LOADED, ModelState.LOADING) for each in known):
            return None
        failed = [each.error or "" for each in known if each.state == ModelState.FAILED]
        return failed[0] if failed else None

    def _keep(self, status: NeuronReport, now: float) -> dict[str, ModelReport]:
        """Keep a report in the place of the neuron's last; return the models of that one."""
        name = status.neuron_id
        held = self._reports.get(name)
        known = held.status.models if held else ()
        before: dict[str, ModelReport] = {each.model: each for each in known}
        kept = self._reports[name] = _Report(status, now)
        gone = set(before)
        for model in status.models:
            gone.discard(model.model)
            self._replicas.setdefault(model.model, {})[name] = (kept, model)
            if not _is_alike(before.get(model.model), model):
                self.editions[model.model] += 1
        for model_name in gone:
            self._remove(model_name, name)
        return before

    def _sweep(self, now: float) -> None:
        """Forget those who have been silent for long."""
        self._swept_at = now
        for name in [n for n, held in self._reports.items() if now - held.at > FORGET_S]:
            for model in {each.model for each in self._reports.pop(name).status.models}:
                self._remove(model, name)

    def _remove(self, model: str, neuron_id: str) -> None:
        self.editions[model] += 1
        replicas = self._replicas[model]
        del replicas[neuron_id]
        if not replicas:
            del self._replicas[model]

    def _live_replicas(self, model: str, now: float) -> Iterator[_Replica]:
        for replica in self._replicas.get(model, {}).values():
            if self._is_live(replica[0], now):
                yield replica

    def _is_live(self, held: _Report, now: float) -> bool:
        return min(now, self._heard_at) - held.at <= SILENT_S


def _can_serve(status: NeuronReport, model: ModelReport) -> bool:
    return not status.draining and model.state == ModelState.LOADED and model.servable


def _room(status: NeuronReport, model: ModelReport) -> int:
    if not _can_serve(status, model):
        return 0
    free = model.slots_total - model.slots_busy
    if status.slots_total:
        free = min(free, status.slots_total - status.slots_busy)
    return max(0, free)


def _is_alike(before: ModelReport | None, now: ModelReport) -> bool:
    """Whether a model is and can what it was and could."""
    return before is not None and (before.state, before.servable, before.capability) == (
        now.state,
        now.servable,
        now.capability,
    )
