# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The neuron as a process of its own, with the model that comes with Helexa."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.bus.resources import Durability, ensure_resources
from helexa.bus.service import Service
from helexa.neuron.weights import EMBEDDED
from helexa.protocol import subjects
from helexa.protocol.frames import FrameKind, read_done, read_error
from helexa.protocol.messages.execution import CancelRequest, ExecuteRequest
from helexa.protocol.messages.models import BackendKind, ModelConfig, ModelId, ModelState
from helexa.protocol.messages.neurons import Enrolled, EnrolRequest, enrolment_proof
from helexa.protocol.subjects import Role, inbox_prefix
from helexa.site.binary import find_server
from helexa.site.config import ANY_PORT, SiteConfig
from helexa.site.enrolment import EnrolledUsers, make_join_token
from helexa.site.keys import Identity, verify
from helexa.site.layout import DataDir
from helexa.site.reload import reload_servers, system_connection
from helexa.site.server import NatsServer

from .conftest import Gateway

NEURON = "host one"
TINY = ModelConfig(
    model=ModelId("helexa-tiny"),
    backend_kind=BackendKind.LLAMA_CPP,
    source=EMBEDDED,
    projector=EMBEDDED,
    slots=2,
    context_tokens=2048,
)
PATIENCE_S = 40.0


class Registrar:
    """Lets neurons in, as a provisioner does."""

    def __init__(self, data: DataDir, system: Bus) -> None:
        self._path = data.neurons_conf
        self._system = system

    async def enrol(self, request: EnrolRequest) -> Enrolled:
        proof = enrolment_proof(request.neuron_id, request.nonce)
        assert verify(request.public_key, proof, request.signature)
        users = EnrolledUsers.load(self._path).add_neuron(request.neuron_id, request.public_key)
        users.save(self._path)
        await reload_servers(self._system)
        return Enrolled(neuron_id=request.neuron_id)


@dataclass
class Home:
    """A site with its permissions in force, and nobody enrolled."""

    url: str
    token: str
    gateway: Bus
    provisioner: Bus

    async def joined(self) -> Gateway:
        """Return the other side of the neuron, once it has reported."""
        other = Gateway(self.gateway, NEURON, self.provisioner)
        other.patience_s = PATIENCE_S
        await other.listen()
        await other.reported()
        return other


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    data = DataDir(tmp_path / "site")
    join = Identity.generate()
    EnrolledUsers().add_token(join.public, 4_000_000_000).save(data.neurons_conf)
    async with contextlib.AsyncExitStack() as stack:
        server = NatsServer(find_server(), data, SiteConfig("test", port=ANY_PORT))
        await stack.enter_async_context(server)

        async def connected(role: Role) -> Bus:
            seed = Identity.load(data.role_key(role)).seed
            bus = Bus(Connection((server.url,), f"test-{role}", seed, inbox_prefix(role)))
            await stack.enter_async_context(bus)
            await ensure_resources(bus, role, Durability())
            return bus

        gateway, provisioner = await connected(Role.GATEWAY), await connected(Role.PROVISIONER)
        seed = Identity.load(data.system_key).seed
        system = await stack.enter_async_context(Bus(system_connection((server.url,), seed)))
        await system.wait_connected()
        service = Service(provisioner, Role.PROVISIONER, instance="test", version="0")
        await service.serve(subjects.ENROL, Registrar(data, system).enrol)
        token = make_join_token(join.seed, (server.url,))
        yield Home(server.url, token, gateway, provisioner)


@contextlib.asynccontextmanager
async def neuron_process(
    path: Path, *, token: str = "", neuron: str = NEURON
) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {name: value for name, value in os.environ.items() if "HELEXA" not in name}  # noqa: TID251 - a child's
    # A pipe that nobody reads would hold the process up.
    log = (path.parent / f"{path.name}.log").open("wb")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "helexa.neuron"),
        env=environment
        | {
            "HELEXA_DATA_DIR": str(path),
            "HELEXA_NEURON_NODE_ID": neuron,
            "HELEXA_NEURON_JOIN_TOKEN": token,
            "HELEXA_NEURON_API_SOCKET": "127.0.0.1:0",
            "HELEXA_NEURON_GRACE_S": "1",
        },
        stderr=log,
    )
    try:
        yield process
    finally:
        log.close()
        if process.returncode is None:
            process.kill()
        await process.wait()


def chat(gateway: Gateway, text: str, **changes: object) -> ExecuteRequest:
    body = {
        "model": TINY.model,
        "messages": [{"role": "user", "content": text}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
    }
    return gateway.request(model=TINY.model, body=json.dumps(body | changes).encode())


async def answered(gateway: Gateway, request: ExecuteRequest) -> str:
    await gateway.execute(request)
    frames = await gateway.ended(request)
    usage, _ = read_done(frames[-1])
    text = b"".join(
        frame.payload[1]
        for frame in frames
        if frame.kind == FrameKind.DATA and isinstance(frame.payload[1], bytes)
    )
    events = [
        json.loads(line.removeprefix(b"data: "))
        for line in text.split(b"\n")
        if line.startswith(b"data: ")
    ]
    assert {(event["id"], event["model"]) for event in events} == {(request.public_id, TINY.model)}
    assert usage.counted == "backend"
    assert usage.prompt_tokens > 0
    deltas = [event["choices"][0]["delta"].get("content") for event in events]
    return "".join(delta or "" for delta in deltas)


def endless(gateway: Gateway) -> ExecuteRequest:
    return chat(gateway, "Hello!", max_tokens=100_000, ignore_eos=True)


@pytest.mark.accepts("PORT-2", "PORT-7", "NR-8", "NR-2", "NR-7")
async def test_a_neuron_joins_serves_survives_its_runtime_and_leaves_nothing(
    home: Home, tmp_path: Path
) -> None:
    async with neuron_process(tmp_path / "host", token=home.token) as process:
        gateway = await home.joined()
        await gateway.load(TINY)
        assert await answered(gateway, chat(gateway, "What is the capital of Norway?"))

        stopped = endless(gateway)
        await gateway.execute(stopped)
        await gateway.until(lambda: len(gateway.frames(stopped)) > 2)
        order = CancelRequest(request_id=stopped.request_id, owner=gateway.name, attempt=1)
        await gateway.bus.request(
            subjects.CANCEL, order, deadline_s=PATIENCE_S, neuron=gateway.token
        )
        assert read_error((await gateway.ended(stopped))[-1]).code == "cancelled"
        await gateway.reported(lambda status: status.slots_busy == 0)

        broken = endless(gateway)
        await gateway.execute(broken)
        await gateway.until(lambda: len(gateway.frames(broken)) > 2)
        (runtime,) = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if "llama_child" in " ".join(child.cmdline())
        ]
        runtime.send_signal(signal.SIGKILL)
        error = read_error((await gateway.ended(broken))[-1])
        assert error.code in {"backend_failed", "stream_interrupted"}
        await gateway.reported(lambda status: status.models[0].state != ModelState.LOADED)
        await gateway.reported(lambda status: status.models[0].state == ModelState.LOADED)
        assert await answered(gateway, chat(gateway, "Hello!"))

        last = endless(gateway)
        await gateway.execute(last)
        await gateway.until(lambda: len(gateway.frames(last)) > 2)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
        assert (await gateway.ended(last))[-1].is_terminal
        assert gateway.statuses[-1].draining
        assert not [child for child in children if child.is_running()]


@pytest.mark.accepts("NR-6", "PORT-8")
async def test_an_id_that_belongs_to_another_key_ends_the_process(
    home: Home, tmp_path: Path
) -> None:
    async with neuron_process(tmp_path / "host", token=home.token):
        await home.joined()
        async with neuron_process(tmp_path / "thief", token=home.token) as thief:
            assert await asyncio.wait_for(thief.wait(), PATIENCE_S) == 1
    said = (tmp_path / "thief.log").read_text()
    lines = [line for line in said.splitlines() if line.startswith("helexa: ")]
    assert len(lines) == 1
    assert NEURON in lines[0]


@pytest.mark.accepts("NR-6")
async def test_an_enrolled_neuron_is_known_by_its_directory_alone(
    home: Home, tmp_path: Path
) -> None:
    async with neuron_process(tmp_path / "host", token=home.token) as process:
        await home.joined()
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
    async with neuron_process(tmp_path / "host", token=home.token, neuron="") as process:
        await home.joined()
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0


async def test_a_neuron_without_a_site_says_what_to_do(tmp_path: Path) -> None:
    async with neuron_process(tmp_path / "host") as process:
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 2
    assert "helexa: no site is known" in (tmp_path / "host.log").read_text()
