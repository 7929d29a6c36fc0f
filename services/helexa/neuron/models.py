# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Every model of this host: configured by messages, loaded on order, reserved by requests."""

import asyncio
import time
from collections.abc import Callable

from helexa.neuron.hosted import HostedModel, Runtime
from helexa.neuron.lease import Lease
from helexa.neuron.prompts import RecentPrompts
from helexa.neuron.registry import ModelRecord
from helexa.neuron.slots import SlotPool
from helexa.protocol.errors import (
    ModelNotLoadedError,
    RefusedError,
    UnknownModelError,
    UnsupportedError,
)
from helexa.protocol.messages.models import (
    ModelCapability,
    ModelConfig,
    ModelId,
    ModelState,
    ModelStatus,
    Price,
)

PROBE_INTERVAL_S = 15.0
MAX_UNCONFIGURED = 64
"""Models shown although only their name is known."""


class ModelHost:
    """The models of this host, shared by all sites."""

    def __init__(
        self, runtime: Runtime, *, kinds: tuple[str, ...], price: Price | None = None
    ) -> None:
        """Run models with `runtime`, of the given kinds of backend only."""
        self.kinds = kinds
        self.is_closing = False
        self._runtime = runtime
        self._price = price or Price()
        self._models: dict[str, HostedModel] = {}
        self._listeners: list[Callable[[], None]] = []
        self._prompts = RecentPrompts()
        self.slots.on_news(self.notify)

    @property
    def slots(self) -> SlotPool:
        """The one pool of slots."""
        return self._runtime.slots

    @property
    def models(self) -> tuple[HostedModel, ...]:
        """All that is known."""
        return tuple(self._models.values())

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every change of a state, and when many slots have changed hands."""
        self._listeners.append(listener)

    def configure(self, config: ModelConfig) -> bool:
        """Know `config` from now on, and return whether it is news.

        Raises:
            UnsupportedError: this host cannot run that kind of backend.
        """
        if config.backend_kind not in self.kinds:
            known = ", ".join(self.kinds) or "none"
            raise UnsupportedError(
                f"this host has no backend {config.backend_kind!r}; it has: {known}",
                param="backend_kind",
            )
        is_news = self._entry(config.model).record.configure(config)
        if is_news:
            self.notify()
        return is_news

    async def load(self, model: ModelId) -> None:
        """Return when `model` is loaded as configured last.

        Raises:
            UnknownModelError: its configuration has not come yet.
            HelexaError: as `HostedModel.load`.
        """
        found = self._models.get(model)
        if found is None or found.record.config is None:
            if len(self._models) < MAX_UNCONFIGURED:
                self._entry(model).record.error = "it has no configuration"
                self.notify()
            raise UnknownModelError("send the model's configuration first")
        await found.load()

    async def unload(self, model: ModelId, *, forget: bool = False) -> None:
        """Return when `model` is unloaded; nothing happens to one that is not known."""
        found = self._models.get(model)
        if found is None:
            return
        await found.unload()
        if forget and self._models.get(model) is found:
            del self._models[model]
        self.notify()

    def reserve(
        self, model: str, operation: str, *, continues: bool = False, prefix_digests: bytes = b""
    ) -> Lease:
        """Return a hold on `model` for one request, which `continues` a chat's partial answer.

        Raises:
            ModelNotLoadedError: it is not loaded here.
            UnsupportedError: it cannot do `operation`.
            RefusedError: it cannot go on from a partial answer.
            BusyError: there is no free slot.
        """
        found = self.find(model)
        if found is None:
            raise ModelNotLoadedError(f"{model} is not known here")
        backend = found.backend
        if backend is not None and found.abilities is not None:
            if not found.abilities.does(operation):
                raise UnsupportedError(f"{model} does not do {operation!r}", param="model")
            if continues and found.abilities.continuation is None:
                raise RefusedError(f"{model} cannot go on from a partial answer here")
        lease = found.reserve()
        if prefix_digests:
            self._prompts.take(str(found.record.model), backend, prefix_digests)
        return lease

    def find(self, name: str) -> HostedModel | None:
        """Return the model called `name`, by its own name or an alias."""
        exact = self._models.get(name)
        if exact is not None:
            return exact
        for hosted in self._models.values():
            if hosted.record.config is not None and name in hosted.record.config.aliases:
                return hosted
        return None

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Return every model as it is now."""
        now_s = time.monotonic()
        return tuple(self._status(hosted, now_s) for hosted in self._models.values())

    def capabilities(self) -> dict[str, ModelCapability]:
        """Return what each loaded model can do."""
        return {
            name: hosted.backend.capability
            for name, hosted in self._models.items()
            if hosted.backend is not None and hosted.record.state == ModelState.LOADED
        }

    def impaired(self) -> tuple[ModelId, ...]:
        """Return the models that are loaded and would not serve."""
        return tuple(
            hosted.record.model
            for hosted in self._models.values()
            if hosted.record.state == ModelState.LOADED and not hosted.servable
        )

    def measure(self) -> None:
        """Read the memory that each runtime uses."""
        for hosted in self._models.values():
            hosted.measure()

    async def run(self, interval_s: float = PROBE_INTERVAL_S) -> None:
        """Probe the idle models until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            await asyncio.gather(*(hosted.probe() for hosted in self.models))

    async def close(self) -> None:
        """Stop everything."""
        self.is_closing = True
        await asyncio.gather(*(hosted.close() for hosted in self.models))

    def _entry(self, model: ModelId) -> HostedModel:
        found = self._models.get(model)
        if found is None:
            found = HostedModel(ModelRecord(model), self._runtime, self.notify)
            self._models[str(model)] = found
        return found

    def _status(self, hosted: HostedModel, now_s: float) -> ModelStatus:
        record = hosted.record
        config = record.running or record.config
        declared = config.capability if config else ModelCapability()
        own_price = config.price if config else Price()
        return ModelStatus(
            model=record.model,
            state=record.state,
            servable=hosted.servable,
            slots_total=self.slots.offered_of(record.model),
            slots_busy=self.slots.busy_of(record.model),
            capability=hosted.backend.capability if hosted.backend else declared,
            price=self._price if own_price == Price() else own_price,
            config_digest=record.digest,
            progress=record.progress,
            error=record.error,
            prefix_digests=self._prompts.recent(str(record.model), hosted.backend),
            tokens_per_s=round(hosted.rate.per_second(now_s), 2),
            requests_done=hosted.requests_done,
            requests_failed=hosted.requests_failed,
            idle_s=0.0 if hosted.is_busy else round(now_s - hosted.used_at_s, 3),
            memory_bytes=hosted.memory_bytes,
        )

    def notify(self) -> None:
        """Tell the listeners that something has changed."""
        for listener in self._listeners:
            listener()
