# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A site as processes with nothing between them, for tests that load it to its bounds."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from tests.faults.engine import MODEL
from tests.faults.order import Order
from tests.faults.site import Process
from tests.ports import free_port

from helexa.site.layout import DataDir

SERVING_WITHIN_S = 60.0
LOOK_S = 0.05


@dataclass
class BareSite:
    """The services of a site; who makes one gives it servers and an engine."""

    data: DataDir
    nats_urls: Sequence[str]
    engine_url: str
    logs: Path
    slots: int = 16
    variables: Mapping[str, str] = field(default_factory=dict)
    """Settings of every process."""
    config: Mapping[str, object] = field(default_factory=dict)
    """What of the model's configuration is other than usual."""
    processes: dict[str, Process] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)
    """Where each process listens."""

    async def start(self, names: Sequence[str]) -> None:
        """Start services, each called `SERVICE-NUMBER`, and return when a chat would be served."""
        self.logs.mkdir(parents=True, exist_ok=True)
        for name in names:
            self._add(name)
        await asyncio.gather(*(each.until_ready() for each in self.processes.values()))
        await self._put_model()
        gateways = [url for name, url in self.urls.items() if name.startswith("gateway")]
        async with asyncio.timeout(SERVING_WITHIN_S):
            for url in gateways:
                while not await self._answers(url):
                    await asyncio.sleep(LOOK_S)

    def kill(self, name: str) -> None:
        """End a process as a power cut does."""
        self.processes[name].signal(signal.SIGKILL)

    def used_s(self) -> dict[str, float]:
        """Return the processor time that each process has used, in seconds."""
        found = {}
        for name, process in self.processes.items():
            with contextlib.suppress(psutil.Error):
                times = psutil.Process(process.pid).cpu_times()
                found[name] = times.user + times.system
        return found

    async def stop(self) -> None:
        for each in self.processes.values():
            each.signal(signal.SIGKILL)
        for each in self.processes.values():
            await each.ended()

    def _add(self, name: str) -> None:
        service = name.partition("-")[0]
        address = f"127.0.0.1:{free_port()}"
        self.urls[name] = f"http://{address}"
        words = ["--nats-url", ",".join(self.nats_urls), "--data-dir", str(self.data.path)]
        words += {
            "neuron": ["--node-id", name, "--api-socket", address],
            "scheduler": ["--control-socket", address],
        }.get(service, ["--socket", address])
        argv = (sys.executable, "-P", "-m", "helexa.cli", service, *words)
        variables = {"HELEXA_PROVISIONER_SEED_DEFAULT_MODEL": "false", **self.variables}
        ready = f"{self.urls[name]}/readyz"
        process = Process(name, argv, self.logs / f"{name}.log", ready, variables)
        self.processes[name] = process
        process.start()

    async def _put_model(self) -> None:
        key = self.data.orchestrator_key.read_text().strip()
        config = {
            "backend_kind": "openai_proxy",
            "listen_endpoint": self.engine_url,
            "slots": self.slots,
            "policy": {"on_every_neuron": True},
            "capability": {"continues_partial": True},
            **self.config,
        }
        url = next(url for name, url in self.urls.items() if name.startswith("provisioner"))
        async with httpx.AsyncClient(timeout=20) as http:
            answer = await http.put(
                f"{url}/api/models/{MODEL}",
                json=config,
                headers={"Authorization": f"Bearer {key}"},
            )
            answer.raise_for_status()

    async def _answers(self, url: str) -> bool:
        message = {"role": "user", "content": Order(tokens=1).prompt()}
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient(timeout=5) as http:
                answer = await http.post(
                    f"{url}/v1/chat/completions", json={"model": MODEL, "messages": [message]}
                )
                return answer.status_code == 200
        return False


@contextlib.asynccontextmanager
async def bare_site(site: BareSite, *names: str) -> AsyncIterator[BareSite]:
    """Run `site` inside the block."""
    try:
        await site.start(names)
        yield site
    finally:
        await site.stop()
