# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The provisioner as a process, under the permissions of a real site."""

import asyncio
import contextlib
import json
import os
import signal
import stat
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.conftest import Broker

from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.bus.service import Service
from helexa.protocol import subjects
from helexa.protocol.errors import ForbiddenError, HelexaError, IdentityConflictError
from helexa.protocol.messages.neurons import (
    Enrolled,
    EnrolRequest,
    HardwareSummary,
    NeuronDescriptor,
    NeuronStatus,
    Registration,
    enrolment_proof,
)
from helexa.protocol.messages.provisioning import (
    LoadModel,
    ProvisioningOk,
    ProvisioningResponse,
    ProvisionRequest,
    UpsertModelConfig,
)
from helexa.protocol.naming import encode_token
from helexa.protocol.subjects import Role, inbox_prefix
from helexa.site.binary import find_server
from helexa.site.config import ANY_PORT, SiteConfig
from helexa.site.enrolment import EnrolledUsers, parse_join_token
from helexa.site.keys import Identity
from helexa.site.layout import DataDir
from helexa.site.server import NatsServer

GIB = 1024**3
PATIENCE_S = 30


class Child:
    """A service in a process of its own, and the lines it logs."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.seen: list[dict[str, object]] = []

    @classmethod
    async def start(cls, module: str, **settings: str) -> "Child":
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}  # noqa: TID251 - for the child
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, env={**kept, **settings}, stderr=PIPE
        )
        return cls(process)

    async def line(self, event: str) -> dict[str, object]:
        """Return the next line that tells of an event."""
        stderr = self.process.stderr
        assert stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            while raw := await stderr.readline():
                found = json.loads(raw) if raw.startswith(b"{") else {"event": raw.decode()}
                self.seen.append(found)
                if found["event"] == event:
                    return found
        pytest.fail(f"it ended with {await self.process.wait()}: {self.seen}")

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        _, rest = await asyncio.wait_for(self.process.communicate(), PATIENCE_S)
        self.seen += [json.loads(raw) for raw in rest.splitlines() if raw.startswith(b"{")]
        assert self.process.returncode is not None
        return self.process.returncode


@dataclass
class Site:
    """A site with a server that knows its users, and one provisioner."""

    data: DataDir
    url: str
    child: Child
    http: httpx.AsyncClient

    @contextlib.asynccontextmanager
    async def bus(
        self, identity: Identity, role: Role, neuron: str | None = None
    ) -> AsyncIterator[Bus]:
        prefix = inbox_prefix(role, encode_token(neuron) if neuron else None)
        async with Bus(Connection((self.url,), "test", identity.seed, prefix)) as bus:
            await asyncio.wait_for(bus.wait_connected(), PATIENCE_S)
            yield bus

    async def token(self, **asked: float) -> Identity:
        answer = await self.http.post("/api/neurons/tokens", json=asked)
        assert answer.status_code == 201
        identity, urls = parse_join_token(answer.json()["token"])
        assert urls == (self.url,)
        return identity

    async def enrol(
        self, bus: Bus, neuron: str, identity: Identity, *, signer: Identity | None = None
    ) -> Enrolled:
        nonce = b"n" * 16
        request = EnrolRequest(
            neuron_id=neuron,
            public_key=identity.public,
            nonce=nonce,
            signature=(signer or identity).sign(enrolment_proof(neuron, nonce)),
        )
        return await bus.request(subjects.ENROL, request, deadline_s=10)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    data = DataDir(tmp_path / "site")
    async with NatsServer(find_server(), data, SiteConfig("test", port=ANY_PORT)) as server:
        child = await Child.start(
            "helexa.provisioner",
            NATS_URL=server.url,
            HELEXA_DATA_DIR=str(data.path),
            HELEXA_PROVISIONER_SOCKET="127.0.0.1:0",
        )
        try:
            url = str((await child.line("serving"))["url"])
            key = data.orchestrator_key.read_text().strip()
            headers = {"Authorization": f"Bearer {key}"}
            async with httpx.AsyncClient(base_url=url, headers=headers) as http:
                await child.line("catalogue_seeded")
                yield Site(data, server.url, child, http)
        finally:
            await child.stop()


async def test_the_key_of_the_api_is_made_once_and_private(site: Site) -> None:
    path = site.data.orchestrator_key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith("sk-hx-")
    assert site.child.seen[-1]["hint"] is not None
    assert "helexa models add" in str(site.child.seen[-1]["hint"])


@pytest.mark.accepts("CX-6", "CX-7", "DEP-2")
async def test_a_neuron_joins_by_token_registers_and_is_given_a_model(site: Site) -> None:
    token = await site.token()
    identity = Identity.generate()
    loads: asyncio.Queue[str] = asyncio.Queue()

    async def provision(request: ProvisionRequest) -> ProvisioningResponse:
        command = request.command
        if isinstance(command, LoadModel):
            loads.put_nowait(command.model)
        model = command.config.model if isinstance(command, UpsertModelConfig) else command.model
        return ProvisioningResponse(outcome=ProvisioningOk(model_id=model))

    async with site.bus(token, Role.ENROLMENT) as bus:
        assert await site.enrol(bus, "host.1", identity) == Enrolled(neuron_id="host.1")
        again = await site.enrol(bus, "host.1", identity)
        assert again.neuron_id == "host.1"
    async with site.bus(identity, Role.NEURON, "host.1") as bus:
        service = Service(bus, "neuron", instance="i", version="0")
        await service.serve(subjects.PROVISION, provision, neuron=encode_token("host.1"))
        hardware = HardwareSummary(memory_total_bytes=8 * GIB, memory_free_bytes=8 * GIB)
        registration = Registration(
            descriptor=NeuronDescriptor(
                neuron_id="host.1", public_key=identity.public, instance="i"
            ),
            status=NeuronStatus(neuron_id="host.1", instance="i", sequence=1, hardware=hardware),
        )
        await bus.request(
            subjects.REGISTER, registration, deadline_s=5, neuron=encode_token("host.1")
        )
        assert await asyncio.wait_for(loads.get(), PATIENCE_S) == "helexa-tiny"
    (shown,) = (await site.http.get("/api/neurons")).json()["neurons"]
    assert shown["descriptor"]["public_key"] == identity.public


@pytest.mark.accepts("CX-7", "NET-7")
async def test_who_may_not_join_is_told_why(site: Site) -> None:
    owner, thief = Identity.generate(), Identity.generate()
    async with site.bus(await site.token(), Role.ENROLMENT) as bus:
        await site.enrol(bus, "n1", owner)
        with pytest.raises(IdentityConflictError):
            await site.enrol(bus, "n1", thief)
        with pytest.raises(IdentityConflictError):
            await site.enrol(bus, "n2", owner)
        with pytest.raises(ForbiddenError):
            await site.enrol(bus, "n3", owner, signer=thief)
        with pytest.raises(HelexaError):
            await site.enrol(bus, "x" * 500, thief)
    users = EnrolledUsers.load(site.data.neurons_conf)
    assert users.neurons == {"n1": owner.public}


async def test_a_token_lets_nobody_in_after_its_time(site: Site) -> None:
    token = await site.token(lasts_s=2)
    async with site.bus(token, Role.ENROLMENT) as bus:
        await site.enrol(bus, "n1", Identity.generate())
        async with asyncio.timeout(PATIENCE_S):
            while bus.is_connected:
                await site.http.get("/livez")
    assert EnrolledUsers.load(site.data.neurons_conf).tokens == {}
    assert set(EnrolledUsers.load(site.data.neurons_conf).neurons) == {"n1"}


async def test_many_join_at_once(site: Site) -> None:
    async with site.bus(await site.token(), Role.ENROLMENT) as bus:
        made = {f"n{number}": Identity.generate() for number in range(20)}
        await asyncio.gather(*(site.enrol(bus, *pair) for pair in made.items()))
    for name in ("n0", "n19"):
        async with site.bus(made[name], Role.NEURON, name):
            pass
    assert len(EnrolledUsers.load(site.data.neurons_conf).neurons) == 20


async def test_a_removed_neuron_is_put_out_and_its_id_is_free(site: Site) -> None:
    old, new = Identity.generate(), Identity.generate()
    async with site.bus(await site.token(), Role.ENROLMENT) as bus:
        await site.enrol(bus, "n1", old)
        assert (await site.http.delete("/api/neurons/n1")).status_code == 204
        await site.enrol(bus, "n1", new)
    assert EnrolledUsers.load(site.data.neurons_conf).neurons == {"n1": new.public}


@pytest.mark.accepts("CX-27", "CX-28")
async def test_it_stops_in_order_and_gives_its_leadership_back(site: Site) -> None:
    admin = Identity.load(site.data.role_key(Role.ADMIN))
    told: asyncio.Queue[str] = asyncio.Queue()
    async with site.bus(admin, Role.ADMIN) as bus:
        await bus.subscribe(subjects.NOTICE, lambda notice: told.put_nowait(notice.reason))
        for _ in range(2):
            await bus.client.flush()
        assert await site.child.stop() == 0
        assert await asyncio.wait_for(told.get(), 5) == "the provisioner stops"
    assert site.child.seen[-1]["event"] == "stopped"
    second = await Child.start(
        "helexa.provisioner",
        NATS_URL=site.url,
        HELEXA_DATA_DIR=str(site.data.path),
        HELEXA_PROVISIONER_SOCKET="127.0.0.1:0",
    )
    loop = asyncio.get_running_loop()
    began = loop.time()
    await second.line("lease_changed")
    assert loop.time() - began < 8
    assert await second.stop(signal.SIGINT) == 0


async def readiness(url: str) -> int:
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{url}/livez")).status_code == 200
        return (await http.get(f"{url}/readyz")).status_code


@pytest.mark.parametrize(
    ("module", "socket"),
    [
        ("helexa.provisioner", "HELEXA_PROVISIONER_SOCKET"),
        ("helexa.scheduler", "HELEXA_SCHEDULER_CONTROL_SOCKET"),
    ],
)
async def test_a_process_starts_before_its_server_and_survives_its_restart(
    tmp_path: Path, broker: Broker, module: str, socket: str
) -> None:
    settings = {
        "NATS_URL": broker.url,
        "HELEXA_DATA_DIR": str(tmp_path / "site"),
        "HELEXA_PROVISIONER_SOCKET": "127.0.0.1:0",
        socket: "127.0.0.1:0",
    }
    broker.stop()
    child = await Child.start(module, **settings)
    url = str((await child.line("serving"))["url"])
    assert await readiness(url) == 503
    broker.start()
    other = await Child.start("helexa.provisioner", **settings)
    await other.line("serving")
    await child.line("bus_connected")
    async with asyncio.timeout(PATIENCE_S):
        while await readiness(url) != 200:
            pass
    broker.stop()
    await child.line("bus_disconnected")
    assert await readiness(url) == 503
    broker.start()
    await child.line("bus_reconnected")
    async with asyncio.timeout(PATIENCE_S):
        while await readiness(url) != 200:
            pass
    assert await child.stop() == 0
    assert await other.stop() == 0


async def test_a_wrong_setting_ends_in_one_line(tmp_path: Path) -> None:
    for name, value, says in (
        ("HELEXA_PROVISIONER_TICK_S", "0", "HELEXA_PROVISIONER_TICK_S: tick_s:"),
        ("HELEXA_PROVISIONER_SOCKET", "nowhere", "'nowhere' is not HOST:PORT"),
    ):
        settings = {"HELEXA_DATA_DIR": str(tmp_path), "NATS_URL": "nats://127.0.0.1:9", name: value}
        child = await Child.start("helexa.provisioner", **settings)
        _, rest = await asyncio.wait_for(child.process.communicate(), PATIENCE_S)
        lines = [line for line in rest.decode().splitlines() if not line.startswith("{")]
        assert child.process.returncode == 2
        assert len(lines) == 1
        assert says in lines[0]
