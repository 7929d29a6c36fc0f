# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A gateway with its neighbours: a scheduler, and neurons that do what the test says."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from openai import AsyncOpenAI
from tests.conftest import Broker
from tests.gateway.roles import (
    GatewayProcess,
    Neuron,
    RunningGateway,
    Scheduler,
    Script,
    connected,
    gateway,
    gateway_process,
    hello,
    soon,
)
from tests.ports import free_port

from helexa.bus.client import Bus
from helexa.bus.resources import Durability, ensure_resources
from helexa.protocol.subjects import Role

MODEL = "org/tiny-1"


@dataclass
class Site:
    """What runs, and how to start more of it."""

    broker: Broker
    bus: Bus
    scheduler: Scheduler
    data_dir: Path
    stack: AsyncExitStack
    neurons: list[Neuron] = field(default_factory=list)

    async def neuron(self, name: str = "n.1", script: Script = hello) -> Neuron:
        """Start a neuron and have the scheduler name it."""
        bus = await self.stack.enter_async_context(connected(self.broker.url, name))
        made = Neuron(bus, name, MODEL, script)
        self.stack.push_async_callback(made.die)
        await made.serve()
        self.neurons.append(made)
        self.scheduler.targets.append(name)
        return made

    async def gateway(self, **settings: object) -> RunningGateway:
        """Start a gateway that is ready and knows the model."""
        made = await self.stack.enter_async_context(
            gateway(self.broker.url, self.data_dir, **settings)
        )
        await soon(until_ready(made, self.neurons))
        return made

    async def process(self, **variables: str) -> GatewayProcess:
        """Start a gateway as a process of its own, with these variables besides."""
        made = await self.stack.enter_async_context(
            gateway_process(self.broker.url, self.data_dir, **variables)
        )
        await soon(until_ready(made, self.neurons))
        return made

    def client(self, at: RunningGateway, key: str = "none") -> AsyncOpenAI:
        made = AsyncOpenAI(base_url=at.base_url, api_key=key, max_retries=0, timeout=20)
        self.stack.push_async_callback(made.close)
        return made

    def http(
        self, at: RunningGateway | GatewayProcess, key: str | None = None
    ) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        made = httpx.AsyncClient(base_url=at.url, timeout=20, headers=headers)
        self.stack.push_async_callback(made.aclose)
        return made


async def until_ready(at: RunningGateway | GatewayProcess, neurons: list[Neuron]) -> None:
    async with httpx.AsyncClient(base_url=at.url) as http:
        while (await http.get("/readyz")).status_code != 200:
            pass
        while neurons:
            await neurons[-1].report()
            answer = await http.get(f"/v1/models/{MODEL}")
            if answer.status_code not in (404, 503):
                return


@pytest.fixture
async def site(broker: Broker, tmp_path: Path) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connected(broker.url, "others"))
        await ensure_resources(bus, Role.PROVISIONER, Durability())
        scheduler = Scheduler(bus)
        await scheduler.serve()
        yield Site(broker, bus, scheduler, tmp_path / "data", stack)


@pytest.fixture
async def neuron(site: Site) -> Neuron:
    return await site.neuron()


Starter = Callable[..., Awaitable[RunningGateway]]


@pytest.fixture
async def running(site: Site, neuron: Neuron) -> RunningGateway:
    assert neuron in site.neurons
    return await site.gateway()


@pytest.fixture
def client(site: Site, running: RunningGateway) -> AsyncOpenAI:
    return site.client(running)


@pytest.fixture
def http(site: Site, running: RunningGateway) -> httpx.AsyncClient:
    return site.http(running)


@pytest.fixture
def unused_nats_url() -> str:
    """An address where no server listens."""
    return f"nats://127.0.0.1:{free_port()}"
