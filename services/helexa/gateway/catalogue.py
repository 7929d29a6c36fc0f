# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The models that can be asked for, and how they stand."""

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from helexa.gateway.fields import Fields
from helexa.gateway.fleet import Fleet
from helexa.protocol.errors import UnavailableError, UnknownModelError
from helexa.protocol.messages.models import ModelConfig, ModelState, Workload
from helexa.protocol.reports import ModelReport

_BEST_FIRST = (
    ModelState.LOADED,
    ModelState.LOADING,
    ModelState.UNLOADING,
    ModelState.FAILED,
)


class Kept(Protocol):
    """The catalogue's records; `helexa.bus.buckets.Mirror` is one."""

    @property
    def values(self) -> Mapping[str, ModelConfig]:
        """The records that are at hand, by model."""

    @property
    def is_fresh(self) -> bool:
        """Whether these are all there are."""

    async def get(self, key: str) -> ModelConfig | None:
        """Return one record, asking for it where the copy is not fresh."""


class Catalogue:
    """Every model of the site: those kept in the catalogue and those that a neuron has loaded."""

    def __init__(self, kept: Kept, fleet: Fleet, is_reachable: Callable[[], bool]) -> None:
        """Read `kept` while it `is_reachable()`, and the states from `fleet`."""
        self._kept = kept
        self._is_reachable = is_reachable
        self._fleet = fleet
        self._aliases: dict[str, str] = {}
        self._configs: dict[str, ModelConfig] = {}
        self._workloads: dict[str, tuple[int, int, set[str]]] = {}
        """What the replicas of a model can do, in the edition and the second in which that held."""
        self._created = int(time.time())

    def take(self, name: str, config: ModelConfig | None) -> None:
        """Take in a changed record."""
        before = self._configs.pop(name, None)
        for alias in before.aliases if before else ():
            self._aliases.pop(alias, None)
        if config is not None:
            self._configs[name] = config
            self._aliases |= dict.fromkeys(config.aliases, name)

    async def resolve(self, name: str) -> tuple[str, ModelConfig | None]:
        """Return the canonical name of a model and its record, if the catalogue has one.

        Raises:
            UnknownModelError: there is no such model.
            UnavailableError: the catalogue cannot be read now.
        """
        canonical = name if name in self._configs else self._aliases.get(name, name)
        config = self._configs.get(canonical)
        if config is not None or self._fleet.statuses(canonical, time.monotonic()):
            return canonical, config
        if self._kept.is_fresh:
            raise UnknownModelError(f"The model {name!r} does not exist.", param="model")
        try:
            config = await self._kept.get(name) if self._is_reachable() else None
        except UnavailableError:
            config = None
        if config is None:
            raise UnavailableError("The catalogue of models is not at hand yet.", retry_after_s=2)
        return name, config

    def workloads(self, name: str, config: ModelConfig | None) -> set[str]:
        """Return what the model can be asked to do."""
        now, edition = time.monotonic(), self._fleet.editions[name]
        known = self._workloads.get(name)
        if known is None or known[:2] != (edition, int(now)):
            # Each request asks, and seldom anew.
            known = self._workloads[name] = (edition, int(now), self._loaded_workloads(name, now))
        loaded = known[2]
        if loaded:
            return loaded
        # What a model that is not loaded does with text shows only when it is.
        text = {Workload.CHAT, Workload.COMPLETION, Workload.EMBEDDING}
        if config is None:
            return text
        media = {Workload.VISION, Workload.AUDIO} if config.projector else set()
        return text | media | set(config.capability.workloads)

    def names(self, name: str) -> tuple[str, ...]:
        """Return a model's own name and its aliases."""
        config = self._configs.get(name)
        return (name, *config.aliases) if config else (name,)

    def listed(self, is_shown: Callable[[str], bool]) -> list[Fields]:
        """Return the models that `is_shown`, as `GET /v1/models` shows them."""
        names = self._configs.keys() | self._fleet.models(time.monotonic())
        return [self.shown(name) for name in sorted(names) if is_shown(name)]

    def shown(self, name: str) -> Fields:
        """Return one model as OpenAI shows it, with its state under `helexa`."""
        config = self._configs.get(name)
        statuses = self._fleet.statuses(name, time.monotonic())
        loaded = [each for each in statuses if each.state == ModelState.LOADED]
        usable = [each for each in loaded if each.servable]
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "helexa",
            "helexa": {
                "state": _state(statuses, usable),
                "workloads": sorted(_workloads(usable, config)),
                "context_tokens": _context(usable, config),
                "replicas": len(usable),
                "slots_total": sum(each.slots_total for each in usable),
                "slots_busy": sum(each.slots_busy for each in usable),
                "aliases": list(config.aliases) if config else [],
            },
        }

    def _loaded_workloads(self, name: str, now: float) -> set[str]:
        """Return what the replicas can do, together."""
        return {
            each
            for status in self._fleet.statuses(name, now)
            if status.state == ModelState.LOADED
            for each in status.capability.workloads
        }


def _state(statuses: list[ModelReport], usable: list[ModelReport]) -> str:
    if usable:
        return ModelState.LOADED
    states = {each.state for each in statuses}
    if ModelState.LOADED in states:
        return "impaired"
    return next((state for state in _BEST_FIRST if state in states), ModelState.UNLOADED)


def _workloads(usable: list[ModelReport], config: ModelConfig | None) -> set[str]:
    if usable:
        return {each for status in usable for each in status.capability.workloads}
    return set(config.capability.workloads) if config else set()


def _context(usable: list[ModelReport], config: ModelConfig | None) -> int | None:
    """Return the tightest context: the one that every replica can honour."""
    known = [each.capability.max_context_tokens for each in usable]
    sizes = [size for size in known if size]
    if sizes:
        return min(sizes)
    return (config.context_tokens or config.capability.max_context_tokens) if config else None
