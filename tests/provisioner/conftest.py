# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Provisioners on a real server, and neurons that do what a test tells them, over the real bus."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Self

import nats.errors
import pytest
from tests.conftest import Broker

from helexa.bus.buckets import Bucket
from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.bus.lease import Holder
from helexa.bus.resources import Durability, ensure_resources
from helexa.bus.service import Service
from helexa.process.metrics import Metrics
from helexa.protocol import resources, subjects
from helexa.protocol.codec import digest, pack
from helexa.protocol.errors import BadRequestError, HelexaError, StaleCommandError
from helexa.protocol.messages.events import StateEvent
from helexa.protocol.messages.models import (
    ModelCapability,
    ModelConfig,
    ModelId,
    ModelPolicy,
    ModelState,
    ModelStatus,
)
from helexa.protocol.messages.neurons import (
    Acknowledged,
    Departure,
    DrainRequest,
    HardwareSummary,
    NeuronDescriptor,
    NeuronStatus,
    Registration,
)
from helexa.protocol.messages.provisioning import (
    Ensured,
    EnsureRequest,
    LoadModel,
    ProvisioningError,
    ProvisioningOk,
    ProvisioningResponse,
    ProvisionRequest,
    UpsertModelConfig,
)
from helexa.protocol.naming import encode_token, instance_id
from helexa.protocol.subjects import Role
from helexa.provisioner.service import Options, Provisioner

MIB = 1024**2
BEAT_S = 0.2
PATIENCE_S = 20.0


async def flushed(bus: Bus) -> None:
    """Return when the server knows all subscriptions of `bus`.

    The first ping of the client can overtake what it has yet to send; the second cannot.
    """
    for _ in range(2):
        await bus.client.flush()


class Changes:
    """Lets tests wait until something holds that others change."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notify(self) -> None:
        self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()


@dataclass
class Held:
    """A model on a scripted neuron."""

    state: str = ModelState.CONFIGURED
    config: ModelConfig | None = None
    running: ModelConfig | None = None
    error: str | None = None
    busy: int = 0
    idle_s: float = 0.0


class ScriptedNeuron:
    """A neuron without a backend: loads take as long, and fail, as the test says."""

    def __init__(
        self, url: str, name: str, *, key: str = "", memory: int = 1000 * MIB, kinds: str = "fake"
    ) -> None:
        self.name = name
        self.key = key
        self.memory = memory
        self.kinds = (kinds,)
        self.instance = instance_id()
        self.held: dict[str, Held] = {}
        self.gates: dict[str, asyncio.Event] = {}
        """A load of a model in here waits for its event."""
        self.broken: dict[str, str] = {}
        """A load of a model in here fails with the message."""
        self.late: set[str] = set()
        """A load of a model in here that fails is answered before it is reported."""
        self.silent: set[str] = set()
        """A load of a model in here is done, and never answered."""
        self.loads: Counter[str] = Counter()
        self.refused: list[str] = []
        self.fence = 0
        self.draining = False
        self.changes = Changes()
        self._sequence = 0
        self._url = url
        self._stack = AsyncExitStack()
        self._bus = Bus(Connection((url,), name))

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._bus)
        service = Service(self._bus, "neuron", instance=self.instance, version="0")
        token = encode_token(self.name)
        await service.serve(subjects.PROVISION, self._provision, neuron=token)
        await service.serve(subjects.DRAIN, self._drain, neuron=token)
        await flushed(self._bus)
        await self.register()
        beat = asyncio.create_task(self._beat())
        self._stack.callback(beat.cancel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.vanish()

    async def vanish(self) -> None:
        """End without a word."""
        await self._stack.aclose()

    async def register(self) -> None:
        await self._bus.request(
            subjects.REGISTER,
            Registration(descriptor=self.descriptor, status=self._status()),
            deadline_s=5,
            neuron=encode_token(self.name),
        )

    async def depart(self, instance: str | None = None) -> None:
        await self._bus.request(
            subjects.DEPART,
            Departure(neuron_id=self.name, instance=instance or self.instance),
            deadline_s=5,
            neuron=encode_token(self.name),
        )

    @property
    def descriptor(self) -> NeuronDescriptor:
        return NeuronDescriptor(
            neuron_id=self.name,
            public_key=self.key,
            instance=self.instance,
            backend_kinds=self.kinds,
            hardware=self._hardware,
        )

    @property
    def loaded(self) -> set[str]:
        return {name for name, held in self.held.items() if held.state == ModelState.LOADED}

    async def until(self, holds: Callable[[], bool]) -> None:
        await self.changes.until(holds)

    async def report(self) -> None:
        status = self._status()
        await self._bus.publish(subjects.NEURON_STATUS, status, neuron=encode_token(self.name))
        await self._bus.client.flush()
        self.changes.notify()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            with contextlib.suppress(HelexaError, nats.errors.Error):
                await self.report()

    @property
    def _hardware(self) -> HardwareSummary:
        used = sum(
            held.running.capability.memory_bytes or 0 for held in self.held.values() if held.running
        )
        return HardwareSummary(memory_total_bytes=self.memory, memory_free_bytes=self.memory - used)

    def _status(self) -> NeuronStatus:
        self._sequence += 1
        models = tuple(
            ModelStatus(
                model=ModelId(name),
                state=held.state,
                error=held.error,
                slots_total=2,
                slots_busy=held.busy,
                idle_s=held.idle_s,
                config_digest=_digest(held.running or held.config),
            )
            for name, held in self.held.items()
        )
        return NeuronStatus(
            neuron_id=self.name,
            instance=self.instance,
            sequence=self._sequence,
            draining=self.draining,
            slots_total=16,
            models=models,
            hardware=self._hardware,
        )

    async def _drain(self, request: DrainRequest) -> Acknowledged:
        self.draining = request.draining
        await self.report()
        return Acknowledged()

    async def _provision(self, request: ProvisionRequest) -> ProvisioningResponse:
        if request.fence < self.fence:
            self.refused.append(request.command.kind)
            self.changes.notify()
            raise StaleCommandError
        self.fence = request.fence
        command = request.command
        if isinstance(command, UpsertModelConfig):
            self.held.setdefault(command.config.model, Held()).config = command.config
            await self.report()
            return _ok(command.config.model)
        held = self.held.get(command.model)
        if held is None:
            raise BadRequestError("send the configuration first")
        if isinstance(command, LoadModel):
            return await self._load(command.model, held)
        await self._set(held, ModelState.UNLOADING)
        held.running = None
        if command.forget:
            del self.held[command.model]
        await self._set(held, ModelState.UNLOADED)
        return _ok(command.model)

    async def _load(self, model: ModelId, held: Held) -> ProvisioningResponse:
        self.loads[model] += 1
        await self._set(held, ModelState.LOADING)
        if model in self.gates:
            await self.gates[model].wait()
        if model in self.broken:
            held.state, held.error = ModelState.FAILED, self.broken[model]
            if model not in self.late:
                await self.report()
            outcome = ProvisioningError(
                model_id=model, error=self.broken[model], code="model_failed"
            )
            return ProvisioningResponse(outcome=outcome)
        held.running = held.config
        await self._set(held, ModelState.LOADED)
        if model in self.silent:
            await asyncio.Event().wait()
        return _ok(model)

    async def _set(self, held: Held, state: str, *, error: str | None = None) -> None:
        held.state = state
        held.error = error
        await self.report()


def _ok(model: ModelId) -> ProvisioningResponse:
    return ProvisioningResponse(outcome=ProvisioningOk(model_id=model))


def _digest(config: ModelConfig | None) -> str:
    return digest(pack(config)) if config else ""


class Replica:
    """A provisioner that runs."""

    def __init__(self, url: str, name: str, options: Options) -> None:
        self.name = name
        self.metrics = Metrics("provisioner", name)
        self.bus = Bus(Connection((url,), name))
        self.provisioner = Provisioner(self.bus, self.metrics, instance=name, options=options)
        self.service = Service(self.bus, "provisioner", instance=name, version="0")
        self.changes = Changes()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        await self.bus.__aenter__()
        await ensure_resources(self.bus, Role.PROVISIONER, Durability())
        jobs = {**self.provisioner.jobs(), "lease": self.provisioner.lease.run()}
        self._tasks = {name: asyncio.create_task(job, name=name) for name, job in jobs.items()}
        await asyncio.wait_for(self.provisioner.wait_fresh(), PATIENCE_S)
        state = self.provisioner.state
        state.registry.on_change(self.changes.notify)
        state.catalogue.mirror.on_change(lambda *_: self.changes.notify())
        state.placements.mirror.on_change(lambda *_: self.changes.notify())
        await self.provisioner.bind(self.service)
        await flushed(self.bus)

    async def stop(self) -> None:
        """End in order, giving the lease back."""
        if not self._tasks:
            return
        await self.service.drain(1)
        await self._cancel("lease")
        await self._cancel(*self._tasks)
        await self.bus.__aexit__()

    async def kill(self) -> None:
        """End at once, keeping the lease."""
        await self.bus.client.close()
        await self._cancel(*self._tasks)
        await self.bus.__aexit__()

    async def stop_renewing(self) -> None:
        """Go on believing to lead, while others do not."""
        revision = self.provisioner.lease._revision  # noqa: SLF001 - a pause that no call makes
        expires_at = self.provisioner.lease._expires_at  # noqa: SLF001
        await self._cancel("lease")
        self.provisioner.lease._revision = revision  # noqa: SLF001
        self.provisioner.lease._expires_at = expires_at  # noqa: SLF001

    async def leads(self) -> None:
        await asyncio.wait_for(self.provisioner.lease.wait_held(), PATIENCE_S)

    async def until(self, holds: Callable[[], bool]) -> None:
        await self.changes.until(holds)

    async def put(self, *configs: ModelConfig) -> None:
        for config in configs:
            await self.provisioner.state.catalogue.put(config)
        names = {str(config.model) for config in configs}
        await self.until(lambda: names <= set(self.provisioner.state.catalogue.models))

    def placed(self, model: str) -> tuple[str, ...]:
        entry = self.provisioner.state.placements.get(model)
        return entry.value.neurons if entry else ()

    async def _cancel(self, *names: str) -> None:
        tasks = [task for name in names if (task := self._tasks.pop(name, None))]
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


@dataclass
class Site:
    """A server, and what a test has started on it."""

    url: str
    bus: Bus
    events: list[StateEvent] = field(default_factory=list)
    changes: Changes = field(default_factory=Changes)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def neuron(
        self, name: str, *, key: str = "", memory: int = 1000 * MIB, kinds: str = "fake"
    ) -> ScriptedNeuron:
        made = ScriptedNeuron(self.url, name, key=key, memory=memory, kinds=kinds)
        return await self.stack.enter_async_context(made)

    async def replica(self, name: str = "p1", **options: float) -> Replica:
        chosen = {
            "neuron_timeout_s": 1.5,
            "tick_s": 0.2,
            "retry_first_s": 0.5,
            "seed_default_model": False,
            **options,
        }
        made = Replica(self.url, name, Options(**chosen))  # type: ignore[arg-type] # bools and floats
        await made.start()
        self.stack.push_async_callback(made.stop)
        return made

    async def ensure(self, model: str, waiting: int = 1) -> Ensured:
        return await self.bus.request(
            subjects.ENSURE, EnsureRequest(model=ModelId(model), waiting=waiting), deadline_s=5
        )

    async def event(self, kind: str, **fields: str) -> StateEvent:
        """Return the first event of a kind, with certain fields, once it has come."""

        def matching() -> Sequence[StateEvent]:
            return [
                each
                for each in self.events
                if each.type == kind
                and all(getattr(each, name) == value for name, value in fields.items())
            ]

        await self.changes.until(lambda: bool(matching()))
        return matching()[0]

    async def expire_lease(self) -> None:
        """Let the time of the lease pass."""
        await Bucket(self.bus, resources.LEASES, Holder).delete("provisioner")

    def take(self, event: StateEvent) -> None:
        self.events.append(event)
        self.changes.notify()


@pytest.fixture
async def site(broker: Broker) -> AsyncIterator[Site]:
    async with Bus(Connection((broker.url,), "test")) as bus, contextlib.AsyncExitStack() as stack:
        made = Site(broker.url, bus, stack=stack)
        await bus.subscribe(subjects.STATE_EVENT, made.take)
        await flushed(bus)
        yield made


def model(
    name: str, *, size: int = 100 * MIB, policy: ModelPolicy | None = None, aliases: str = ""
) -> ModelConfig:
    return ModelConfig(
        model=ModelId(name),
        backend_kind="fake",
        aliases=tuple(aliases.split()),
        capability=ModelCapability(memory_bytes=size),
        policy=policy or ModelPolicy(),
    )


ON_DEMAND = ModelPolicy(min_replicas=0)
