# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One site as separate processes, each behind a link of its own to the server.

The tests are the supervisor: they kill and freeze processes, and start again what has ended.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import httpx
import psutil
from tests.conftest import nats_server_binary
from tests.faults.engine import MODEL, ROOT
from tests.faults.link import Link
from tests.faults.order import Order
from tests.ports import free_port

from helexa.process.parent import die_with_parent
from helexa.process.settings import current_environment
from helexa.protocol.messages.models import ContinuationWay
from helexa.site.config import SiteConfig
from helexa.site.layout import DataDir
from helexa.site.server import write_configuration

UP_WITHIN_S = 60.0
DOWN_WITHIN_S = 20.0
LOOK_S = 0.05
REPLICAS = 2
USUAL = 12
"""Processes of a site; more of them take longer to start."""
SLOTS = 16
Json = dict[str, object]


@dataclass
class Process:
    """A process that can be started again as it was."""

    name: str
    argv: tuple[str, ...]
    log: Path
    ready_url: str
    environment: Mapping[str, str] = field(default_factory=dict)
    link: Link | None = None
    """Its way to the server."""
    running: subprocess.Popen[bytes] | None = None
    known: set[int] = field(default_factory=set)
    """Every process that was ever seen to belong to it."""
    read_to: int = 0
    """How much of its log has been looked at."""

    @property
    def pid(self) -> int:
        assert self.running is not None
        return self.running.pid

    @property
    def is_running(self) -> bool:
        return self.running is not None and self.running.poll() is None

    def start(self) -> None:
        """Start it unless it runs."""
        if self.is_running:
            return
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=current_environment() | dict(self.environment),
                preexec_fn=die_with_parent(os.getpid()),  # noqa: PLW1509 - no threads take part
            )
        self.known.add(self.pid)

    def tree(self) -> list[psutil.Process]:
        """Return it and everything that it has started."""
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.pid)
            found = [first, *first.children(recursive=True)]
            self.known |= {each.pid for each in found}
            return found
        return []

    def signal(self, number: signal.Signals) -> None:
        self.tree()
        if self.running is not None and self.running.poll() is None:
            self.running.send_signal(number)

    async def ended(self, within_s: float = DOWN_WITHIN_S) -> int:
        """Return its exit code."""
        assert self.running is not None
        return await asyncio.to_thread(self.running.wait, within_s)

    async def until_ready(self, within_s: float = UP_WITHIN_S) -> None:
        async with asyncio.timeout(within_s), httpx.AsyncClient() as http:
            while not await self._is_ready(http):
                if self.running is not None and self.running.poll() is not None:
                    raise AssertionError(f"{self.name} has ended\n{self.last_words()}")
                await asyncio.sleep(LOOK_S)

    async def _is_ready(self, http: httpx.AsyncClient) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return (await http.get(self.ready_url)).status_code == 200
        return False

    def last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


class Site:
    """All processes of a site, and what can be read of their state."""

    def __init__(self, directory: Path, *, replicas: int = REPLICAS, neurons: int = 2) -> None:
        self.replicas = replicas
        """Gateways, schedulers and provisioners, of each so many."""
        self.neuron_names = tuple(f"n{number}" for number in range(1, neurons + 1))
        self.data = DataDir(directory / "data")
        self.logs = directory / "logs"
        self.processes: dict[str, Process] = {}
        self.gateways: list[str] = []
        self.orchestrators: list[str] = []
        self.neurons: list[str] = []
        self.nats_port = free_port()
        self.monitor_port = free_port()
        self.engine_link = Link(target=free_port())
        self.http = httpx.AsyncClient(timeout=5, limits=httpx.Limits(max_connections=200))

    @property
    def links(self) -> list[Link]:
        """The links to the server."""
        return [each.link for each in self.processes.values() if each.link is not None]

    @property
    def monitor_url(self) -> str:
        """Where the server tells of itself."""
        return f"http://127.0.0.1:{self.monitor_port}"

    @property
    def engine_url(self) -> str:
        """The engine itself, not by its link."""
        return f"http://127.0.0.1:{self.engine_link.target}"

    async def prepare(self, stack: AsyncExitStack, store: Path | None = None) -> None:
        """Say what belongs to the site; nothing of it is started."""
        self.logs.mkdir(parents=True)
        self._add_server(store)
        self._add_engine()
        await stack.enter_async_context(self.engine_link.relaying())
        numbers = range(1, self.replicas + 1)
        for service in ("provisioner", "scheduler"):
            for number in numbers:
                await self._add_service(stack, f"{service}-{number}")
        gateways = (f"gateway-{number}" for number in numbers)
        for name in (*self.neuron_names, *gateways, "portal"):
            await self._add_service(stack, name)

    async def start(self, stack: AsyncExitStack, store: Path | None = None) -> None:
        """Start everything, and return when a chat would be answered."""
        await self.prepare(stack, store)
        for each in self.processes.values():
            each.start()
            if each.name == "nats":
                await each.until_ready()
        within_s = UP_WITHIN_S * max(1.0, len(self.processes) / USUAL)
        await self.until_ready(within_s)
        await self.add_model()
        await self.until_serving(within_s)

    async def until_ready(self, within_s: float = UP_WITHIN_S) -> None:
        """Return when every process says that it is."""
        await asyncio.gather(*(each.until_ready(within_s) for each in self.processes.values()))

    async def until_serving(self, within_s: float = UP_WITHIN_S) -> float:
        """Return after how long each gateway has answered a chat and every neuron had its model."""
        began = time.monotonic()
        async with asyncio.timeout(within_s):
            for gateway in self.gateways:
                while not await self.answers(gateway, MODEL):
                    await asyncio.sleep(LOOK_S)
            for neuron in self.neurons:
                while not await self._has_model(neuron):
                    await asyncio.sleep(LOOK_S)
        return time.monotonic() - began

    async def stop(self) -> list[str]:
        """End everything in good order; return what had to be killed or stayed behind."""
        await self.http.aclose()
        late: list[str] = []
        for each in reversed(self.processes.values()):
            each.signal(signal.SIGCONT)
            each.signal(signal.SIGTERM)
        for each in reversed(self.processes.values()):
            if each.running is not None:
                try:
                    await each.ended()
                except subprocess.TimeoutExpired:
                    late.append(f"{each.name} did not stop")
                    each.running.kill()
                    each.running.wait()
        known = {pid for each in self.processes.values() for pid in each.known}
        return late + [f"process {pid} is left" for pid in known if psutil.pid_exists(pid)]

    async def add_model(
        self,
        name: str = MODEL,
        *,
        slots: int = SLOTS,
        neurons: tuple[str, ...] = (),
        on_every_neuron: bool = True,
    ) -> None:
        """Let `neurons`, else every one or one of them, serve the engine's model as `name`."""
        policy: Json = {"on_every_neuron": True} if on_every_neuron else {"max_replicas": 1}
        config: Json = {
            "backend_kind": "openai_proxy",
            "listen_endpoint": f"http://127.0.0.1:{self.engine_link.port}",
            "upstream_model": MODEL,
            "slots": slots,
            "policy": {"pinned_neurons": neurons} if neurons else policy,
            "continuation": ContinuationWay.ASSISTANT_MESSAGE,
        }
        await self.orchestrate("PUT", f"/api/models/{name}", config)

    async def counters(self) -> dict[str, int]:
        """Return what the engine does now, by itself."""
        return dict((await self.http.get(f"{self.engine_url}/counters")).json())

    async def neuron_status(self, url: str) -> dict[str, object]:
        return dict((await self.http.get(f"{url}/status")).json())

    async def metrics(self, url: str) -> dict[str, float]:
        """Return the numbers of a process by name, those with labels added up."""
        found: dict[str, float] = {}
        for line in (await self.http.get(f"{url}/metrics")).text.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                name = name.partition("{")[0]
                found[name] = found.get(name, 0.0) + float(value)
        return found

    async def orchestrate(
        self, method: str, path: str, body: Json | None = None, *, at: str = ""
    ) -> Json:
        """Ask a provisioner."""
        key = self.data.orchestrator_key.read_text().strip()
        answer = await self.http.request(
            method,
            (at or self.orchestrators[0]) + path,
            json=body,
            headers={"Authorization": f"Bearer {key}"},
        )
        answer.raise_for_status()
        return cast("Json", answer.json())

    def _add(self, process: Process) -> None:
        self.processes[process.name] = process

    def _add_server(self, store: Path | None) -> None:
        config = SiteConfig(name="faults", port=self.nats_port, monitor_port=self.monitor_port)
        self.data.create()
        if store is not None:
            self.data.jetstream.symlink_to(store)
        write_configuration(self.data, config)
        argv = (nats_server_binary(), "-c", str(self.data.nats_conf))
        ready = f"{self.monitor_url}/healthz?js-enabled-only=true"
        self._add(Process("nats", argv, self.logs / "nats.log", ready))

    def _add_engine(self) -> None:
        port = self.engine_link.target
        argv = (sys.executable, "-m", "tests.faults.engine", "--port", str(port))
        ready = f"http://127.0.0.1:{port}/health"
        self._add(Process("backend", argv, self.logs / "backend.log", ready))

    async def _add_service(self, stack: AsyncExitStack, name: str) -> None:
        link = await stack.enter_async_context(Link(self.nats_port).relaying())
        service = "neuron" if name in self.neuron_names else name.partition("-")[0]
        address = f"127.0.0.1:{free_port()}"
        url = f"http://{address}"
        words = ["--nats-url", f"nats://127.0.0.1:{link.port}", "--data-dir", str(self.data.path)]
        words += {
            "neuron": ["--node-id", name, "--api-socket", address],
            "scheduler": ["--control-socket", address],
        }.get(service, ["--socket", address])
        known = {"gateway": self.gateways, "provisioner": self.orchestrators}
        known["neuron"] = self.neurons
        known.get(service, []).append(url)
        argv = (sys.executable, "-P", "-m", "helexa.cli", service, *words, "--grace-s", "5")
        environment = {"HELEXA_PROVISIONER_SEED_DEFAULT_MODEL": "false"}
        self._add(
            Process(name, argv, self.logs / f"{name}.log", f"{url}/readyz", environment, link)
        )

    async def answers(self, gateway: str, model: str) -> bool:
        """Return whether a chat is answered."""
        message = {"role": "user", "content": Order(tokens=1).prompt()}
        with contextlib.suppress(httpx.HTTPError):
            answer = await self.http.post(
                f"{gateway}/v1/chat/completions", json={"model": model, "messages": [message]}
            )
            return answer.status_code == 200
        return False

    async def _has_model(self, neuron: str) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            models = cast("list[Json]", (await self.neuron_status(neuron))["models"])
            return any(each["state"] == "loaded" and each["servable"] for each in models)
        return False


@contextlib.asynccontextmanager
async def running_site(
    directory: Path, store: Path | None = None, *, replicas: int = REPLICAS, neurons: int = 2
) -> AsyncIterator[Site]:
    """Run a site inside the block; at its end nothing of it may be left."""
    site = Site(directory, replicas=replicas, neurons=neurons)
    async with AsyncExitStack() as stack:
        try:
            await site.start(stack, store)
            yield site
        finally:
            left = await site.stop()
    assert left == []
