# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One model on this host: loaded once however many ask, restarted when it dies, unloaded in order.

`HostedModel` is the only writer of its `ModelRecord`.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from helexa.neuron.abilities import Abilities, abilities_of
from helexa.neuron.backends.interface import Backend
from helexa.neuron.lease import Lease
from helexa.neuron.rate import Rate
from helexa.neuron.registry import ModelRecord
from helexa.neuron.restarts import RestartPolicy
from helexa.neuron.servability import Servability
from helexa.neuron.slots import SlotPool
from helexa.neuron.weights import ModelFiles, Weights
from helexa.protocol.errors import (
    BackendError,
    BusyError,
    ConflictError,
    HelexaError,
    ModelFailedError,
    ModelNotLoadedError,
)
from helexa.protocol.messages.models import ModelConfig, ModelState

_log = logging.getLogger(__name__)

MakeBackend = Callable[[ModelConfig, ModelFiles], Backend]


@dataclass(frozen=True, slots=True)
class Runtime:
    """What every model of a host is run with."""

    make_backend: MakeBackend
    weights: Weights
    slots: SlotPool
    load_timeout_s: float = 600.0
    unload_grace_s: float = 30.0
    stop_grace_s: float = 5.0
    restarts: RestartPolicy = field(default_factory=RestartPolicy)


class HostedModel:
    """The life of one model."""

    def __init__(self, record: ModelRecord, runtime: Runtime, changed: Callable[[], None]) -> None:
        """Tell `changed` whenever the state does."""
        self.record = record
        self.backend: Backend | None = None
        self.servable = True
        self.servability: Servability | None = None
        """Of the runtime that is loaded, or was loaded last; so are `abilities`."""
        self.abilities: Abilities | None = None
        self.requests_done = 0
        self.requests_failed = 0
        self.used_at_s = time.monotonic()
        self.load_s: float | None = None
        """How long the last load took."""
        self.rate = Rate()
        self.memory_bytes: int | None = None
        self._runtime = runtime
        self._changed = changed
        self._work: asyncio.Task[None] | None = None
        self._is_unloading = False
        self._watching: asyncio.Task[None] | None = None
        self._unwanted = False
        self._deaths = 0
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_busy(self) -> bool:
        """Whether a request uses it now."""
        return self._running > 0

    def reserve(self) -> Lease:
        """Return a hold on the runtime.

        Raises:
            ModelNotLoadedError: it is not loaded.
            BusyError: there is no free slot.
        """
        abilities, servability = self.abilities, self.servability
        is_loaded = self.backend is not None and self.record.state == ModelState.LOADED
        if abilities is None or servability is None or not is_loaded:
            raise ModelNotLoadedError(f"{self.record.model} is {self.record.state} here")
        if not self.servable or servability.is_doubted:
            raise BusyError(f"{self.record.model} is not well here", retry_after_s=1.0)
        slot = self._runtime.slots.take(self.record.model)
        self._running += 1
        self._idle.clear()
        self.used_at_s = time.monotonic()
        return Lease(self, abilities, servability, slot)

    def finished(self, *, failed: bool) -> None:
        """Note that a reserved request has ended."""
        self._running -= 1
        self.requests_done += not failed
        self.requests_failed += failed
        self.used_at_s = time.monotonic()
        if not self._running:
            self._idle.set()

    async def load(self) -> None:
        """Return when the newest configuration is loaded; all who ask meanwhile share one load.

        Raises:
            BackendError: it cannot be loaded.
            BadRequestError: its configuration cannot be right.
            ConflictError: it was unloaded meanwhile.
        """
        while not self.record.is_current:
            if self._work is None:
                self._deaths = 0
                self._begin(self._load(), "load")
            if self._work is not None:
                await asyncio.shield(self._work)

    async def unload(self) -> None:
        """Return when the runtime is gone: a load is given up, running requests may finish."""
        if self._work is not None and not self._is_unloading:
            self._unwanted = True
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
        if self.record.state == ModelState.LOADED:
            self._begin(self._stop_loaded(), "unload")
        if self._work is not None:
            await asyncio.shield(self._work)
        if self.record.state == ModelState.FAILED:
            self._move(ModelState.UNLOADED)

    async def close(self) -> None:
        """Stop the runtime without waiting for anybody."""
        self._runtime.slots.offer(self.record.model, 0)
        if self.servability is not None:
            await self.servability.close()
        tasks = [task for task in (self._work, self._watching) if task is not None]
        self._unwanted = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        backend, self.backend = self.backend, None
        if backend is not None:
            await backend.stop(self._runtime.stop_grace_s)

    async def probe(self) -> None:
        """Find out whether a request would be served now."""
        if self.servability is not None:
            await self.servability.probe()

    def measure(self) -> None:
        """Read the memory that the runtime uses."""
        self.memory_bytes = self.backend.memory_bytes() if self.backend else None

    def _begin(self, work: Coroutine[None, None, None], what: str) -> None:
        self._unwanted = False
        self._is_unloading = what == "unload"
        task = asyncio.create_task(self._settled(work), name=f"{what}-{self.record.model}")
        self._work = task
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._work = None
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, HelexaError):
            _log.error("model_work_died", extra={"task": task.get_name()}, exc_info=error)

    async def _settled(self, work: Coroutine[None, None, None]) -> None:
        """Do `work`, and leave the model in a state that says how it ended."""
        failure = "a defect of the neuron; its log has the details"
        try:
            await work
        except asyncio.CancelledError:
            if self.record.state == ModelState.LOADING:
                self._move(ModelState.UNLOADED)
            if self._unwanted:
                raise ConflictError("the model was unloaded while it was loading") from None
            raise
        except HelexaError as error:
            failure = error.message
            raise
        finally:
            if self.record.state == ModelState.LOADING:
                self._move(ModelState.FAILED, error=failure)

    async def _load(self) -> None:
        if self.record.state == ModelState.LOADED:
            await self._stop_loaded()
        self._move(ModelState.LOADING)
        await self._start()

    async def _start(self) -> None:
        config = self.record.running
        if config is None:
            raise ModelFailedError("there is no configuration")
        began_s = time.monotonic()
        files = await self._runtime.weights.fetch(config, lambda part: self._progress(part / 2))
        backend = self._runtime.make_backend(config, files)
        try:
            await self._ready(backend)
        except BaseException:
            await backend.stop(0)
            raise
        self.load_s = time.monotonic() - began_s
        self.used_at_s = time.monotonic()
        self.backend, self.abilities = backend, abilities_of(backend)
        self.servable = True
        self.servability = Servability(
            backend, lambda: self.is_busy, lambda well, why: self._hear(backend, why, well=well)
        )
        self._runtime.slots.offer(self.record.model, backend.slots)
        self._move(ModelState.LOADED)
        self._watching = asyncio.create_task(
            self._watch(backend, time.monotonic()), name=f"watch-{self.record.model}"
        )

    async def _ready(self, backend: Backend) -> None:
        try:
            async with asyncio.timeout(self._runtime.load_timeout_s):
                await backend.start(lambda part: self._progress(0.5 + part / 2))
                await backend.probe()
        except TimeoutError as error:
            limit = self._runtime.load_timeout_s
            said = backend.last_words()
            raise ModelFailedError(f"not ready within {limit:g} s. {said}".rstrip()) from error

    async def _watch(self, backend: Backend, born_s: float) -> None:
        await backend.died.wait()
        lived_s = time.monotonic() - born_s
        said = backend.last_words()
        _log.error(
            "backend_died", extra={"model": self.record.model, "lived_s": lived_s, "said": said}
        )
        if lived_s >= self._runtime.restarts.healthy_after_s:
            self._deaths = 0
        self.backend = None
        self._runtime.slots.offer(self.record.model, 0)
        self._move(ModelState.LOADING, error=f"it died and is started again. {said}".rstrip())
        self._begin(self._revive(backend, said), "revive")

    async def _revive(self, dead: Backend, said: str) -> None:
        await dead.stop(0)
        while True:
            self._deaths += 1
            pause_s = self._runtime.restarts.pause_s(self._deaths, random.random())  # noqa: S311 - no secret
            if pause_s is None:
                raise ModelFailedError(f"it died {self._deaths} times in a row. {said}".strip())
            await asyncio.sleep(pause_s)
            try:
                await self._start()
            except BackendError as error:
                said = error.message
            else:
                return

    async def _stop_loaded(self) -> None:
        self._move(ModelState.UNLOADING)
        if self._watching is not None:
            self._watching.cancel()
        backend, self.backend = self.backend, None
        self._runtime.slots.offer(self.record.model, 0)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), self._runtime.unload_grace_s)
        finally:
            if backend is not None:
                await backend.stop(self._runtime.stop_grace_s)
            self._move(ModelState.UNLOADED)

    def _hear(self, backend: Backend, reason: str, *, well: bool) -> bool:
        if backend is not self.backend or self.record.state != ModelState.LOADED:
            return False
        if well != self.servable:
            self.servable = well
            self.record.error = None if well else reason
            extra = {"model": self.record.model, "servable": well, "reason": reason}
            _log.warning("servable_changed", extra=extra)
        # Also without a change: whoever was refused while it was in doubt waits for a word.
        self._changed()
        return True

    def _progress(self, part: float) -> None:
        self.record.progress = round(part, 3)
        self._changed()

    def _move(self, state: str, *, error: str | None = None) -> None:
        self.record.move(state, error=error)
        _log.info("model_state", extra={"model": self.record.model, "state": state, "error": error})
        self._changed()
