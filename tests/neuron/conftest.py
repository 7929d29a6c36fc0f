# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A neuron in this process, over a real server, with a runtime that does as it is told."""

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.bus.resources import Durability, ensure_resources
from helexa.neuron.admission import Applicant
from helexa.neuron.backends.continuing import Fields, after_assistant_message
from helexa.neuron.backends.interface import Backend, EventStream, Take
from helexa.neuron.hosted import MakeBackend
from helexa.neuron.joining import JoinToken, Site
from helexa.neuron.node import Node, Tuning
from helexa.neuron.pace import Pace
from helexa.neuron.restarts import RestartPolicy
from helexa.neuron.settings import NeuronSettings
from helexa.neuron.site import SiteLink
from helexa.neuron.weights import ModelFiles
from helexa.process.lifecycle import Life
from helexa.process.metrics import Metrics
from helexa.process.signals import Stop
from helexa.protocol import subjects
from helexa.protocol.errors import BackendError
from helexa.protocol.frames import Frame, unpack_frame
from helexa.protocol.messages.execution import ExecuteReply, ExecuteRequest, Operation
from helexa.protocol.messages.models import ModelCapability, ModelConfig, ModelId, Workload
from helexa.protocol.messages.neurons import NeuronStatus
from helexa.protocol.messages.provisioning import (
    LoadModel,
    ProvisioningCommand,
    ProvisioningError,
    ProvisioningOk,
    ProvisionRequest,
    UpsertModelConfig,
)
from helexa.protocol.naming import encode_token, random_id, request_id
from helexa.protocol.subjects import Role
from helexa.site.keys import Identity
from helexa.site.layout import DataDir

MODEL = ModelId("org/tiny v1")
THEIR_ID = "chatcmpl-of-the-backend"
PATIENCE_S = 10.0


def chunk(text: str | None, *, finish: str | None = None, model: str = MODEL) -> bytes:
    """Return an event as llama.cpp writes it."""
    delta = {"role": "assistant", "content": None} if text is None else {"content": text}
    choice = {"finish_reason": finish, "index": 0, "delta": {} if finish else delta}
    head = {"choices": [choice], "created": 1, "id": THEIR_ID, "model": model}
    body = head | {"object": "chat.completion.chunk"}
    return json.dumps(body, separators=(",", ":")).encode()


def usage_chunk(prompt: int, completion: int, cached: int = 0) -> bytes:
    """Return the event that counts."""
    usage = {
        "completion_tokens": completion,
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    body = {"choices": [], "created": 1, "id": THEIR_ID, "model": MODEL, "usage": usage}
    return json.dumps(body, separators=(",", ":")).encode()


class Script:
    """A stream whose reads the test provides."""

    def __init__(self) -> None:
        self.reads: asyncio.Queue[list[bytes] | BackendError | None] = asyncio.Queue()
        self.closed = asyncio.Event()

    def say(self, *events: bytes) -> None:
        self.reads.put_nowait(list(events))

    def end(self) -> None:
        self.reads.put_nowait(None)

    def fail(self, error: BackendError) -> None:
        self.reads.put_nowait(error)

    def answer(self, *texts: str, prompt: int = 7) -> None:
        """Say a whole answer."""
        self.say(chunk(None))
        for text in texts:
            self.say(chunk(text))
        self.say(chunk(None, finish="stop"))
        self.say(usage_chunk(prompt, len(texts)))
        self.end()

    async def __aiter__(self) -> AsyncIterator[list[bytes]]:
        while (read := await self.reads.get()) is not None:
            if isinstance(read, BackendError):
                raise read
            yield read

    async def pump(self, take: Take) -> bool:
        async for events in self:
            take(events)
        return True

    async def aclose(self) -> None:
        self.closed.set()


class ScriptedBackend:
    """A runtime as `helexa.neuron.backends.interface` asks for it, without a model."""

    def __init__(self, config: ModelConfig, runtimes: "Runtimes") -> None:
        self.config = config
        self.capability = config.capability
        self.slots = config.slots or 4
        self.died = asyncio.Event()
        self.is_stopped = False
        self.scripts: list[Script] = []
        self._runtimes = runtimes

    async def start(self, progress: Callable[[float], None]) -> None:
        progress(0.5)
        await self._runtimes.may_start.wait()
        if self._runtimes.start_failures:
            raise self._runtimes.start_failures.pop(0)

    async def stop(self, grace_s: float) -> None:
        del grace_s
        self.is_stopped = True
        for script in self.scripts:
            script.fail(BackendError("the backend was stopped"))

    async def probe(self) -> None:
        if self._runtimes.probe_failure is not None:
            raise self._runtimes.probe_failure

    def last_words(self) -> str:
        return "out of luck"

    def memory_bytes(self) -> int | None:
        return 4096

    async def chat(self, body: bytes) -> EventStream:
        self._runtimes.bodies.append(body)
        script = Script()
        self.scripts.append(script)
        self._runtimes.opened.put_nowait(script)
        return script

    async def complete(self, body: bytes) -> EventStream:
        return await self.chat(body)

    def continued_chat(self, fields: Fields, text: str) -> Fields:
        return after_assistant_message(fields, text)

    async def embed(self, body: bytes) -> bytes:
        self._runtimes.bodies.append(body)
        return self._runtimes.embedding

    def die(self) -> None:
        self.died.set()
        for script in self.scripts:
            script.fail(BackendError("the backend closed without its end mark"))


class Runtimes:
    """Makes the backends of a test, and steers them."""

    def __init__(self) -> None:
        self.made: list[ScriptedBackend] = []
        self.opened: asyncio.Queue[Script] = asyncio.Queue()
        self.bodies: list[bytes] = []
        self.may_start = asyncio.Event()
        self.may_start.set()
        self.start_failures: list[BackendError] = []
        self.probe_failure: BackendError | None = None
        self.embedding = b'{"object":"list","model":"theirs","data":[],"usage":{"prompt_tokens":3}}'

    def make(self, config: ModelConfig, files: ModelFiles) -> Backend:
        del files
        self.made.append(ScriptedBackend(config, self))
        return self.made[-1]

    async def script(self) -> Script:
        """Return the next stream that the neuron opens."""
        return await asyncio.wait_for(self.opened.get(), PATIENCE_S)


class Gateway:
    """The other side of one site: orders, requests, frames and reports."""

    def __init__(self, bus: Bus, neuron_id: str, orders: Bus | None = None) -> None:
        self.bus = bus
        self.orders = orders or bus
        self.neuron_id = neuron_id
        self.token = encode_token(neuron_id)
        self.name = f"gw-{random_id(40)}"
        self.patience_s = PATIENCE_S
        self.raw: defaultdict[str, list[bytes]] = defaultdict(list)
        self.statuses: list[NeuronStatus] = []
        self._arrived: asyncio.Event = asyncio.Event()

    async def listen(self) -> None:
        pattern = subjects.pattern_of(subjects.TOKENS, home=self.name, author=self.token)
        await self.bus.subscribe_raw(pattern, self._on_frame)
        await self.bus.subscribe(subjects.NEURON_STATUS, self._on_status, neuron=self.token)
        await self.bus.client.flush()

    def request(self, **changes: object) -> ExecuteRequest:
        fields: dict[str, object] = {
            "request_id": request_id(self.name),
            "home": self.name,
            "owner": self.name,
            "model": MODEL,
            "operation": Operation.CHAT,
            "public_id": "chatcmpl-public",
            "body": b"{}",
            "portal": f"portal-{self.name}",
        }
        return ExecuteRequest(**(fields | changes))  # type: ignore[arg-type]

    async def execute(self, request: ExecuteRequest) -> ExecuteReply:
        return await self.bus.request(
            subjects.EXECUTE, request, deadline_s=PATIENCE_S, neuron=self.token
        )

    async def order(
        self, command: ProvisioningCommand, fence: int = 0
    ) -> ProvisioningOk | ProvisioningError:
        request = ProvisionRequest(command=command, fence=fence)
        reply = await self.orders.request(
            subjects.PROVISION, request, deadline_s=self.patience_s, neuron=self.token
        )
        return reply.outcome

    async def load(self, config: ModelConfig) -> None:
        for command in (UpsertModelConfig(config=config), LoadModel(model=config.model)):
            outcome = await self.order(command)
            assert outcome.kind == "ok", outcome

    def frames(self, request: ExecuteRequest) -> list[Frame]:
        return [unpack_frame(data) for data in self.raw[request.request_id.partition(".")[2]]]

    async def until(self, is_true: Callable[[], bool]) -> None:
        """Return when a frame or a report has made it true."""
        async with asyncio.timeout(self.patience_s):
            while not is_true():
                self._arrived.clear()
                await self._arrived.wait()

    async def reported(self, is_right: Callable[[NeuronStatus], bool] = lambda _: True) -> None:
        """Return when the neuron's last report is right."""
        await self.until(lambda: bool(self.statuses) and is_right(self.statuses[-1]))

    async def ended(self, request: ExecuteRequest) -> list[Frame]:
        """Return all frames of an answer, once it has ended."""
        await self.until(lambda: any(frame.is_terminal for frame in self.frames(request)))
        return self.frames(request)

    def _on_frame(self, subject: str, data: bytes) -> None:
        self.raw[subject.rpartition(".")[2]].append(data)
        self._arrived.set()

    def _on_status(self, status: NeuronStatus) -> None:
        self.statuses.append(status)
        self._arrived.set()


class Rig:
    """A neuron and the gateways of its sites."""

    def __init__(self, node: Node, runtimes: Runtimes, gateways: dict[str, Gateway]) -> None:
        self.node = node
        self.runtimes = runtimes
        self.gateways = gateways

    @property
    def gateway(self) -> Gateway:
        return next(iter(self.gateways.values()))

    @property
    def link(self) -> SiteLink:
        return next(iter(self.node.links.values()))


def scripted(model: str = MODEL, **changes: object) -> ModelConfig:
    """Return a configuration of a scripted model."""
    workloads = (Workload.CHAT, Workload.COMPLETION, Workload.EMBEDDING)
    fields: dict[str, object] = {
        "model": ModelId(model),
        "backend_kind": "scripted",
        "slots": 2,
        "capability": ModelCapability(workloads=workloads, max_context_tokens=4096),
    }
    return ModelConfig.model_validate(fields | changes)


RigMaker = Callable[..., AbstractAsyncContextManager[Rig]]


@pytest.fixture
def new_rig(tmp_path: Path) -> RigMaker:
    """Start a neuron that joins the given sites, where told so by another way than the gateways."""

    @contextlib.asynccontextmanager
    async def make(
        sites: dict[str, str],
        *,
        pace: Pace | None = None,
        restarts: RestartPolicy | None = None,
        slots: int = 0,
        bulk_slots: int | None = None,
        ways: Mapping[str, str] | None = None,
        make: MakeBackend | None = None,
    ) -> AsyncIterator[Rig]:
        neuron_id = f"n {random_id(40)}"
        runtimes = Runtimes()
        life = Life(Stop())
        settings = NeuronSettings(slots=slots, bulk_slots=bulk_slots, data_dir=tmp_path)
        data = DataDir(tmp_path)
        node = Node(
            settings,
            Applicant(neuron_id, Identity.generate(), JoinToken(settings, data)),
            data,
            Metrics(Role.NEURON, "test"),
            kinds=("scripted",),
            tuning=Tuning(make or runtimes.make, pace or Pace(), restarts or RestartPolicy()),
        )
        gateways: dict[str, Gateway] = {}
        try:
            for name, url in sites.items():
                bus = Bus(Connection((url,), "test-gateway"))
                gateways[name] = Gateway(await life.resources.enter_async_context(bus), neuron_id)
                for role in (Role.GATEWAY, Role.PROVISIONER, Role.PORTAL):
                    await ensure_resources(bus, role, Durability())
                await gateways[name].listen()
                way = (ways or {}).get(name, url)
                await life.resources.enter_async_context(node.bus_of(Site(name, (way,))))
            life.resources.push_async_callback(node.end, 0.2)
            node.begin(life.run)
            for gateway in gateways.values():
                await gateway.reported()
            yield Rig(node, runtimes, gateways)
        finally:
            await life.end()
        assert not life.stop.is_asked, life.stop.reason

    return make


@pytest.fixture
async def rig(new_rig: RigMaker, nats_url: str) -> AsyncIterator[Rig]:
    """A neuron at one site, with a scripted model loaded."""
    async with new_rig({"home": nats_url}) as made:
        await made.gateway.load(scripted())
        yield made
