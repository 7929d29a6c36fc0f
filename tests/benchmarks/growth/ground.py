# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A site of a given size, and what each of its processes costs."""

import asyncio
import contextlib
import hashlib
import json
import os
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from tests.benchmarks.growth.crowd import enrol
from tests.benchmarks.programs import Address, MockBackend
from tests.faults.bare_site import BareSite, bare_site
from tests.faults.engine import MODEL, ROOT

from helexa.process.parent import die_with_parent
from helexa.site.binary import find_server
from helexa.site.config import ANY_PORT, SiteConfig
from helexa.site.layout import DataDir
from helexa.site.server import NatsServer

MIB = 1024 * 1024
SLOTS = 8192
REPORTING_WITHIN_S = 300.0
KEY = "sk-growth"


@dataclass(frozen=True, slots=True)
class Size:
    """How large a site is."""

    neurons: int = 1
    """One of them serves; the others only report."""
    models: int = 1
    keys: int = 10
    gateways: int = 1
    hosts: int = 1
    """Neurons that serve."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What each kind of process has had and has."""

    cpu_s: dict[str, float]
    rss_mib: dict[str, float]
    """Of all processes of a kind together."""

    def since(self, before: "Usage") -> dict[str, float]:
        """Return the seconds of processor time that were used since `before`."""
        return {kind: used - before.cpu_s[kind] for kind, used in self.cpu_s.items()}


@dataclass
class Ground:
    """A site that serves."""

    site: BareSite
    server: NatsServer
    backend: MockBackend
    size: Size
    _pids: dict[str, list[int]] = field(default_factory=dict)

    @property
    def address(self) -> Address:
        """Where chats are asked for."""
        urls = (url for name, url in self.site.urls.items() if name.startswith("gateway"))
        return Address(tuple(int(url.rpartition(":")[2]) for url in urls), MODEL, KEY)

    def usage(self) -> Usage:
        """Return what the processes use, by kind."""
        cpu_s: defaultdict[str, float] = defaultdict(float)
        rss_mib: defaultdict[str, float] = defaultdict(float)
        processes = {name: each.pid for name, each in self.site.processes.items()}
        for name, pid in (processes | {"nats": self.server.pid}).items():
            process = psutil.Process(pid)
            times = process.cpu_times()
            kind = name.partition("-")[0]
            cpu_s[kind] += times.user + times.system
            rss_mib[kind] += process.memory_info().rss / MIB
        return Usage(dict(cpu_s), dict(rss_mib))


@contextlib.asynccontextmanager
async def ground(folder: Path, backend: MockBackend, size: Size) -> AsyncIterator[Ground]:
    """Run a site of the given size inside the block."""
    data = DataDir(folder / "data")
    enrol(data, size.neurons - 1)
    names = ["provisioner-1", "scheduler-1"]
    names += [f"neuron-{number + 1}" for number in range(size.hosts)]
    names += [f"gateway-{number + 1}" for number in range(size.gateways)]
    async with NatsServer(find_server(), data, SiteConfig("growth", port=ANY_PORT)) as server:
        site = BareSite(
            data,
            (server.url,),
            backend.url,
            folder / "logs",
            slots=SLOTS,
            variables={
                "HELEXA_CONFIG": str(_configuration(folder, size.keys)),
                "HELEXA_GATEWAY_OPEN": "true",
                # A long prompt is asked at once here, like a short one.
                "HELEXA_GATEWAY_BULK_PROMPT_TOKENS": str(10**9),
            },
            config={
                "upstream_model": "mock",
                # The others would be asked to load it too, and cannot.
                "policy": {
                    "pinned_neurons": [name for name in names if name.startswith("neuron")],
                    "min_replicas": size.hosts,
                },
            },
        )
        async with bare_site(site, *names, "portal-1"):
            await _add_models(site, size.models - 1)
            async with _crowd(server.url, data, size.neurons - 1):
                yield Ground(site, server, backend, size)


def _configuration(folder: Path, keys: int) -> Path:
    """Write settings with so many keys, one of which is ours."""
    texts = [KEY, *(f"sk-other-{number}" for number in range(keys - 1))]
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    path = folder / "helexa.toml"
    path.write_text(f"[gateway]\napi_keys = {json.dumps(digests)}\n")
    return path


async def _add_models(site: BareSite, count: int) -> None:
    """Add so many models that nobody loads to the catalogue."""
    key = site.data.orchestrator_key.read_text().strip()
    url = site.urls["provisioner-1"]
    config = {"backend_kind": "openai_proxy", "policy": {"min_replicas": 0}}
    async with httpx.AsyncClient(timeout=30, headers={"Authorization": f"Bearer {key}"}) as http:
        for number in range(count):
            path = f"{url}/api/models/idle-{number}"
            config |= {"aliases": [f"also-{number}"]}
            (await http.put(path, json=config)).raise_for_status()


@contextlib.asynccontextmanager
async def _crowd(url: str, data: DataDir, count: int) -> AsyncIterator[None]:
    if not count:
        yield
        return
    words = (sys.executable, "-m", "tests.benchmarks.growth.crowd", url, data.path, str(count))
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, cwd=ROOT, preexec_fn=die_with_parent(os.getpid())
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(REPORTING_WITHIN_S):
            if await process.stdout.readline() != b"reporting\n":
                raise RuntimeError("the simulated neurons have ended")
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
