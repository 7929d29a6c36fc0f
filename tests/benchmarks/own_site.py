# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Helexa as a target: a whole site of real processes, with everything on."""

import asyncio
import contextlib
import hashlib
import json
import secrets
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httpx
from tests.benchmarks.programs import CHAT_PATH, Address, MockBackend
from tests.benchmarks.targets import LeftOutError, Target, program, until_right
from tests.ports import free_port
from typing_extensions import override

from helexa.bus.client import Bus
from helexa.process.settings import ServiceSettings, load_settings
from helexa.process.version import software_version
from helexa.protocol.resources import MIB, TOKENS, USAGE
from helexa.protocol.subjects import Role
from helexa.site.connect import site_connection

SLOTS = 4096
SITE_WITHIN_S = 60.0
LOOK_S = 0.1
MODEL = "mock"


@dataclass(frozen=True, slots=True)
class Counts:
    """How many processes of each kind the site has."""

    gateways: int = 1
    schedulers: int = 1
    neurons: int = 1

    @override
    def __str__(self) -> str:
        numbers = f"gateways {self.gateways}, schedulers {self.schedulers}, neurons {self.neurons}"
        return f"{numbers}, a provisioner, a portal, a nats-server, the parent of all"


@contextlib.asynccontextmanager
async def own_site(backend: MockBackend, folder: Path, counts: Counts) -> AsyncIterator[Target]:
    """Run a site whose neurons ask the mock backend; its gateways ask for a key.

    Raises:
        LeftOutError: it does not come up, or serves callers without a key.
    """
    key = f"sk-{secrets.token_hex(16)}"
    data = folder / "data"
    data.mkdir(parents=True)
    sockets = [
        word
        for role in ("gateway", "orchestrator", "portal")
        for word in (f"--{role}-socket", f"127.0.0.1:{free_port()}")
    ]
    numbers = [
        word
        for kind in ("gateways", "schedulers", "neurons")
        for word in (f"--{kind}", str(getattr(counts, kind)))
    ]
    variables = {
        "HELEXA_GATEWAY_API_KEYS": hashlib.sha256(key.encode()).hexdigest(),
        "HELEXA_PROVISIONER_SEED_DEFAULT_MODEL": "false",
    }
    command = (sys.executable, "-P", "-m", "helexa.cli", "up", "--data-dir", str(data))
    up = (*command, *sockets, *numbers)
    async with program(up, folder / "up.log", variables) as (pid, ended):
        urls = await _with_model(data, backend, ended)
        ports = tuple(int(url.rpartition(":")[2]) for url in urls)
        address = Address(ports, MODEL, key)
        await until_right(address, ended)
        await _require_key(urls)
        yield Target("helexa", address, software_version(), pid, look=lambda: kept(data))


async def kept(data: Path) -> dict[str, str]:
    """Return what the site's server holds of the load: the token log and the usage records."""
    settings = load_settings(ServiceSettings, {"data_dir": data}).values
    async with Bus(site_connection(settings, Role.PROVISIONER)) as bus:
        await bus.wait_connected()
        found: dict[str, str] = {}
        for stream in (TOKENS, USAGE):
            told = await bus.jetstream.stream_info(stream.name)
            size = f"{told.state.bytes / MIB:,.0f} MiB of at most {stream.max_bytes / MIB:,.0f} MiB"
            found[f"{stream.name} after the load"] = f"{told.state.messages:,} messages, {size}"
    return found


async def _with_model(data: Path, backend: MockBackend, ended: asyncio.Task[int]) -> list[str]:
    """Add the backend's model as soon as the site takes it; return the gateways' addresses."""
    config = {
        "backend_kind": "openai_proxy",
        "listen_endpoint": backend.url,
        "upstream_model": MODEL,
        "slots": SLOTS,
        "policy": {"on_every_neuron": True},
    }
    try:
        async with asyncio.timeout(SITE_WITHIN_S), httpx.AsyncClient() as http:
            while not await _add(http, data, config):
                if ended.done():
                    raise LeftOutError(f"`helexa up` ended with exit code {ended.result()}")
                await asyncio.sleep(LOOK_S)
    except TimeoutError as error:
        raise LeftOutError("the site takes no model") from error
    return cast("list[str]", json.loads((data / "site.json").read_text())["gateway_urls"])


async def _add(http: httpx.AsyncClient, data: Path, config: dict[str, object]) -> bool:
    # The files appear one after the other while the site starts.
    with contextlib.suppress(OSError, ValueError, httpx.TransportError):
        url = json.loads((data / "site.json").read_text())["orchestrator_url"]
        key = (data / "secrets" / "orchestrator.key").read_text().strip()
        answer = await http.put(
            f"{url}/api/models/{MODEL}", json=config, headers={"Authorization": f"Bearer {key}"}
        )
        return answer.is_success
    return False


async def _require_key(urls: list[str]) -> None:
    async with httpx.AsyncClient() as http:
        for url in urls:
            if (await http.post(f"{url}{CHAT_PATH}", json={})).status_code != 401:
                raise LeftOutError("a gateway serves callers without a key")
