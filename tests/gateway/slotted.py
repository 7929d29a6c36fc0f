# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A neuron whose slots are few and taken until the test says so, and callers who ask for them."""

import asyncio
import hashlib
import json
from dataclasses import dataclass, field

import httpx
from prometheus_client.parser import text_string_to_metric_families
from tests.gateway.conftest import MODEL, Site
from tests.gateway.roles import (
    PATIENCE_S,
    GatewayProcess,
    Neuron,
    Run,
    RunningGateway,
    connected,
    hello,
)
from typing_extensions import override

from helexa.bus.client import Bus
from helexa.protocol.errors import BackendError, BusyError
from helexa.protocol.messages.execution import ExecuteReply, ExecuteRequest

COMPLETIONS = "/v1/completions"


def key_of(name: str) -> str:
    return f"sk-hx-{name}"


def digest_of(name: str) -> str:
    return hashlib.sha256(key_of(name).encode()).hexdigest()


def said(run: Run) -> str:
    """Return what the chat of `run` says."""
    text: str = json.loads(run.request.body)["prompt"]
    return text


class SlottedNeuron(Neuron):
    """It serves as many at once as it has slots, and tells at once when one is taken or free."""

    def __init__(self, bus: Bus, name: str, model: str, slots: int) -> None:
        super().__init__(bus, name, model, self._hold)
        self.slots = slots
        self.busy = 0
        self.started: asyncio.Queue[Run] = asyncio.Queue()
        self._ends: dict[str, asyncio.Event] = {}
        self._failing: set[str] = set()

    async def next(self) -> Run:
        """Return the next run that begins."""
        return await asyncio.wait_for(self.started.get(), PATIENCE_S)

    def fail(self, run: Run) -> None:
        """Let `run` break before its first event; of the slot that comes free nothing is told."""
        self._failing.add(run.request.request_id)
        self.end(run)

    def end(self, run: Run) -> None:
        """Let `run` come to its end."""
        self._ends[run.request.request_id].set()

    @override
    async def report(self, *, busy: int = 0, state: str = "loaded", error: str = "") -> None:
        await super().report(busy=self.busy, state=state, error=error)

    @override
    async def _execute(self, request: ExecuteRequest) -> ExecuteReply:
        if self.busy >= self.slots:
            raise BusyError
        self.busy += 1
        self._ends[request.request_id] = asyncio.Event()
        return await super()._execute(request)

    async def _hold(self, run: Run) -> None:
        await self.report()
        self.started.put_nowait(run)
        waits = [
            asyncio.ensure_future(event.wait())
            for event in (self._ends[run.request.request_id], run.cancelled)
        ]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
        self.busy -= 1
        if run.cancelled.is_set() or run.request.request_id in self._failing:
            await run.fail(BackendError("broken"))
        else:
            await hello(run)
        if run.request.request_id in self._failing:
            self._failing.discard(run.request.request_id)
        else:
            await self.report()


@dataclass
class Crowd:
    """Callers of one gateway."""

    site: Site
    at: RunningGateway | GatewayProcess
    neuron: SlottedNeuron
    tasks: list[asyncio.Task[httpx.Response]] = field(default_factory=list)
    _http: dict[str, httpx.AsyncClient] = field(default_factory=dict)
    _asked: list[asyncio.Task[httpx.Response]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.site.stack.push_async_callback(self._leave)

    def http(self, name: str = "") -> httpx.AsyncClient:
        if name not in self._http:
            self._http[name] = self.site.http(self.at, key_of(name) if name else None)
        return self._http[name]

    def ask(
        self, name: str, text: str = "hi", *, priority: str = "", tier: str | None = None
    ) -> asyncio.Task[httpx.Response]:
        """Send a prompt with the key of `name`, or without one: bulk chats wait elsewhere."""
        body: dict[str, object] = {"model": MODEL, "prompt": text}
        if tier is not None:
            body["service_tier"] = tier
        headers = {"x-helexa-priority": priority} if priority else {}
        task = asyncio.create_task(self.http(name).post(COMPLETIONS, json=body, headers=headers))
        self.tasks.append(task)
        self._asked.append(task)
        return task

    async def depth(self) -> float:
        """Return how many wait, as the gateway's metrics say."""
        return await number(self.http(), "helexa_queue_depth")

    async def until_waiting(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await self.depth() != count:
                await asyncio.sleep(0.05)

    async def queue(self, name: str, text: str = "hi", **how: str) -> asyncio.Task[httpx.Response]:
        """Send a chat, and return when it waits."""
        before = await self.depth()
        task = self.ask(name, text, **how)
        await self.until_waiting(int(before) + 1)
        return task

    async def end_all(self) -> list[httpx.Response]:
        """Let everybody be served, and return the answers."""

        async def serve() -> None:
            while True:
                self.neuron.end(await self.neuron.started.get())

        serving = asyncio.create_task(serve())
        try:
            return await asyncio.wait_for(asyncio.gather(*self.tasks), PATIENCE_S)
        finally:
            serving.cancel()

    async def _leave(self) -> None:
        for each in self._asked:
            each.cancel()
        await asyncio.gather(*self._asked, return_exceptions=True)


async def number(http: httpx.AsyncClient, name: str) -> float:
    """Return the sum over all labels of one metric."""
    for family in text_string_to_metric_families((await http.get("/metrics")).text):
        for sample in family.samples:
            if sample.name == name:
                return sum(each.value for each in family.samples if each.name == name)
    return 0


async def slotted(site: Site, slots: int, name: str = "n.1") -> SlottedNeuron:
    """Start a neuron with so many slots, and have the scheduler name it."""
    bus = await site.stack.enter_async_context(connected(site.broker.url, name))
    made = SlottedNeuron(bus, name, MODEL, slots)
    site.stack.push_async_callback(made.die)
    await made.serve()
    site.neurons.append(made)
    site.scheduler.targets.append(name)
    return made


async def crowd(site: Site, slots: int, *names: str, **settings: object) -> Crowd:
    """Start a neuron and a gateway that knows the keys of `names`."""
    neuron = await slotted(site, slots)
    keys = tuple(digest_of(name) for name in names)
    gateway = await site.gateway(api_keys=keys, **settings)
    return Crowd(site, gateway, neuron)
