# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The other processes of a site, scripted: they speak the real protocol over the real bus."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.bus.service import Service
from helexa.bus.workqueue import Delivery, Puller
from helexa.gateway.__main__ import start
from helexa.gateway.settings import GatewaySettings
from helexa.process.lifecycle import Life
from helexa.process.settings import current_environment
from helexa.process.signals import Stop
from helexa.protocol import resources, subjects
from helexa.protocol.codec import unpack
from helexa.protocol.errors import (
    HelexaError,
    NoCapacityError,
    NotFoundError,
    UnavailableError,
)
from helexa.protocol.frames import FrameKind, pack_frame
from helexa.protocol.messages.bulk import BulkJob, ClaimRequest
from helexa.protocol.messages.execution import (
    Attached,
    AttachRequest,
    Cancelled,
    CancelRequest,
    ExecuteReply,
    ExecuteRequest,
    ResendRequest,
    Resent,
    Timings,
    TokenUsage,
)
from helexa.protocol.messages.models import ModelCapability, ModelId, ModelStatus
from helexa.protocol.messages.neurons import NeuronStatus
from helexa.protocol.messages.provisioning import Ensured, EnsureRequest
from helexa.protocol.messages.routing import Lease, RoutingDecision, ScheduleRequest, Target
from helexa.protocol.naming import encode_token, home_of, instance_id, request_token
from helexa.protocol.subjects import subject_of

PATIENCE_S = 10.0
USAGE = TokenUsage(prompt_tokens=7, completion_tokens=3, cached_tokens=2)
Json = dict[str, object]


async def soon(awaitable: Awaitable[object]) -> None:
    """Wait for something that is expected to happen."""
    await asyncio.wait_for(awaitable, PATIENCE_S)


@dataclass
class Run:
    """One attempt at a scripted neuron."""

    neuron: "Neuron"
    request: ExecuteRequest
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    kept: list[bytes] = field(default_factory=list)
    error: HelexaError | None = None
    seq: int = 0
    event: int = 0

    def __post_init__(self) -> None:
        self.seq, self.event = self.request.first_seq, self.request.first_event

    async def events(self, *events: Json, lost: bool = False) -> None:
        """Publish events in one frame; a lost one is kept, and the log and gateways miss it."""
        text = b"".join(
            f"id: {self.event + n}\ndata: {json.dumps(event)}\n\n".encode()
            for n, event in enumerate(events)
        )
        first, self.event = self.event, self.event + len(events)
        await self._publish(first, FrameKind.DATA, len(events), text, lost=lost)

    async def say(self, *texts: str, lost: bool = False) -> None:
        await self.events(*(chat_chunk({"content": text}) for text in texts), lost=lost)

    async def body(self, part: bytes) -> None:
        await self._publish(self.event, FrameKind.BODY, part)

    async def beat(self) -> None:
        await self._publish(self.event, FrameKind.BEAT, None)

    async def done(self, usage: TokenUsage = USAGE, *, lost: bool = False) -> None:
        parts = (usage.model_dump(), None, Timings(total_s=0.1).model_dump())
        await self._publish(self.event, FrameKind.DONE, *parts, lost=lost)

    async def fail(self, error: HelexaError) -> None:
        self.error = error
        await self._publish(
            self.event, FrameKind.ERROR, error.to_reply().model_dump(), None, Timings().model_dump()
        )

    async def _publish(
        self, first: int, kind: FrameKind, *payload: object, lost: bool = False
    ) -> None:
        data = pack_frame(self.request.attempt, self.seq, first, kind, *payload)
        self.kept.append(data)
        self.seq += 1
        if not lost:
            subject = subject_of(
                subjects.TOKENS,
                home=self.request.home,
                author=encode_token(self.neuron.name),
                request=request_token(self.request.request_id),
            )
            await self.neuron.bus.publish_raw(subject, data)


Script = Callable[[Run], Awaitable[None]]


def chat_chunk(delta: Json, *, finish: str | None = None, index: int = 0) -> Json:
    return {
        "id": "chatcmpl-x",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}],
    }


async def hello(run: Run) -> None:
    """Answer a chat."""
    await run.events(chat_chunk({"role": "assistant", "content": None}))
    await run.say("Hello", ",", " world")
    await run.events(chat_chunk({}, finish="stop"))
    if run.request.show_usage:
        await run.events(
            {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
            | {
                "choices": [],
                "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
            }
        )
    await run.done()


class Neuron:
    """A neuron with one model."""

    def __init__(self, bus: Bus, name: str, model: str, script: Script = hello) -> None:
        self.bus = bus
        self.name = name
        self.model = model
        self.script = script
        self.slots = 4
        self.context_tokens = 2048
        self.workloads: tuple[str, ...] = ("chat", "completion", "embedding")
        self.refusal: HelexaError | None = None
        self.forgets = False
        self.can_go_on = False
        self.replies = asyncio.Event()
        self.replies.set()
        self.runs: list[Run] = []
        self.began = asyncio.Event()
        self.cancels: asyncio.Queue[CancelRequest] = asyncio.Queue()
        self.attached: asyncio.Queue[AttachRequest] = asyncio.Queue()
        self.resent = asyncio.Event()
        self.has_room = asyncio.Event()
        self.has_room.set()
        self.pulled: list[Delivery] = []
        self.declined: asyncio.Queue[HelexaError] = asyncio.Queue()
        self.sequence = 0
        self._instance = instance_id()
        self._service = Service(bus, "neuron", instance=self._instance, version="0")
        self._tasks: set[asyncio.Future[None]] = set()
        self._reporting: asyncio.Future[None] | None = None

    async def serve(self) -> None:
        author = encode_token(self.name)
        await self._service.serve(subjects.EXECUTE, self._execute, neuron=author)
        await self._service.serve(subjects.CANCEL, self._cancel, neuron=author)
        await self._service.serve(subjects.RESEND, self._resend, neuron=author)
        await self._service.serve(subjects.ATTACH, self._attach, neuron=author)
        self._reporting = self._spawn(self._report())
        self._spawn(self._pull())

    async def fall_silent(self) -> None:
        """Report no more; what it says of requests goes on."""
        assert self._reporting is not None
        self._reporting.cancel()

    async def die(self) -> None:
        """Fall silent in every respect."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._service.drain(0)

    async def report(self, *, busy: int = 0, state: str = "loaded", error: str = "") -> None:
        self.sequence += 1
        status = ModelStatus(
            model=ModelId(self.model),
            state=state,
            slots_total=self.slots,
            slots_busy=busy,
            capability=ModelCapability(
                workloads=self.workloads,
                max_context_tokens=self.context_tokens,
                continues_partial=self.can_go_on,
            ),
            error=error or None,
        )
        await self.bus.publish(
            subjects.NEURON_STATUS,
            NeuronStatus(
                neuron_id=self.name,
                instance=self._instance,
                sequence=self.sequence,
                slots_total=self.slots,
                slots_busy=busy,
                models=(status,),
            ),
            neuron=encode_token(self.name),
        )

    async def _report(self) -> None:
        while True:
            await self.report(busy=self.slots if self.refusal else 0)
            await asyncio.sleep(0.5)

    async def _execute(self, request: ExecuteRequest) -> ExecuteReply:
        if self.refusal is not None:
            raise self.refusal
        run = Run(self, request)
        self.runs.append(run)
        self.began.set()
        self._spawn(self.script(run))
        await self.replies.wait()
        return ExecuteReply(neuron_id=self.name)

    async def _pull(self) -> None:
        """Take bulk work while there is room, as a neuron does."""
        subject = subject_of(subjects.BULK, model=encode_token(self.model))
        async with Puller(self.bus, resources.BULK, subject) as puller:
            while True:
                await self.has_room.wait()
                try:
                    pulled = await puller.next(5.0)
                except UnavailableError:
                    await asyncio.sleep(0.05)
                    continue
                if pulled is not None:
                    self.pulled.append(pulled)
                    self._spawn(self._carry(pulled))

    async def _carry(self, pulled: Delivery) -> None:
        try:
            order = await self.claim(pulled)
        except NotFoundError as error:
            self.declined.put_nowait(error)
            await pulled.done()
        except HelexaError as error:
            self.declined.put_nowait(error)
            await pulled.put_back(error.retry_after_s or 0.1)
        else:
            run = Run(self, order)
            self.runs.append(run)
            self.began.set()
            await self.script(run)
            if run.error is None:
                await pulled.done()
            else:
                await pulled.put_back(0.5)

    async def claim(self, pulled: Delivery) -> ExecuteRequest:
        job = unpack(BulkJob, pulled.data)
        asked = ClaimRequest(
            ticket=job.ticket,
            neuron_id=self.name,
            deliveries=pulled.deliveries,
        )
        return await self.bus.request(
            subjects.CLAIM,
            asked,
            deadline_s=PATIENCE_S,
            gateway=job.gateway,
            neuron=encode_token(self.name),
        )

    async def _cancel(self, request: CancelRequest) -> Cancelled:
        self.cancels.put_nowait(request)
        for run in self.runs:
            if run.request.request_id == request.request_id:
                run.cancelled.set()
        return Cancelled(state="cancelled")

    async def _resend(self, request: ResendRequest) -> Resent:
        self.resent.set()
        for run in self.runs:
            same = run.request.request_id == request.request_id
            if same and run.request.attempt == request.attempt and not self.forgets:
                start = request.from_seq - run.request.first_seq
                return Resent(frames=tuple(run.kept[max(0, start) :]))
        return Resent(complete=False)

    async def _attach(self, request: AttachRequest) -> Attached:
        self.attached.put_nowait(request)
        return Attached(state="running")

    def _spawn(self, work: Awaitable[None]) -> "asyncio.Future[None]":
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        return task


class Scheduler:
    """Names the neurons that it was told, in that order."""

    def __init__(self, bus: Bus) -> None:
        self.targets: list[str] = []
        self.error: HelexaError | None = None
        self.asked: list[ScheduleRequest] = []
        self.lease: Lease | None = None
        self.was_asked = asyncio.Event()
        self.service = Service(bus, "scheduler", instance=instance_id(), version="0")

    async def serve(self) -> None:
        await self.service.serve(subjects.SCHEDULE, self._schedule, queue="scheduler")
        await self.service.serve(subjects.SCHEDULE_ANY, self._schedule)

    async def _schedule(self, request: ScheduleRequest) -> RoutingDecision:
        self.asked.append(request)
        self.was_asked.set()
        if self.error is not None:
            raise self.error
        targets = [name for name in self.targets if name not in request.exclude_neurons]
        if not targets:
            raise NoCapacityError
        return RoutingDecision(
            decision_id=f"decision-{len(self.asked)}",
            model=request.model,
            targets=tuple(Target(neuron_id=name, score=n) for n, name in enumerate(targets)),
            lease=self.lease,
        )


class Provisioner:
    """Says what it was told about every model."""

    def __init__(self, bus: Bus, answer: Ensured) -> None:
        self.answer = answer
        self.error: HelexaError | None = None
        self.asked: list[EnsureRequest] = []
        self.was_asked = asyncio.Event()
        self.service = Service(bus, "provisioner", instance=instance_id(), version="0")

    async def serve(self) -> None:
        await self.service.serve(subjects.ENSURE, self._ensure, queue="provisioner")

    async def _ensure(self, request: EnsureRequest) -> Ensured:
        self.asked.append(request)
        self.was_asked.set()
        if self.error is not None:
            raise self.error
        return self.answer


@dataclass
class RunningGateway:
    """A gateway of the tests."""

    url: str
    life: Life

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"


@asynccontextmanager
async def gateway(
    nats_url: str, data_dir: Path, **settings: object
) -> AsyncIterator[RunningGateway]:
    """Run a gateway inside the block."""
    given = {
        "nats_url": (nats_url,),
        "data_dir": data_dir,
        "socket": "127.0.0.1:0",
        "grace_s": 0.04,
        "heartbeat_s": 0.4,
        "show_route": True,
    }
    life = Life(Stop())
    listening = await start(life, GatewaySettings.model_validate(given | settings))
    try:
        yield RunningGateway(listening.url, life)
    finally:
        life.stop.ask("test over")
        await life.end()


@dataclass
class GatewayProcess:
    """A gateway in a process of its own."""

    process: asyncio.subprocess.Process
    url: str = ""

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def kill(self) -> None:
        """End it as a power cut does: nothing is finished, nobody is told."""
        self.process.kill()


@asynccontextmanager
async def gateway_process(
    nats_url: str, data_dir: Path, **variables: str
) -> AsyncIterator[GatewayProcess]:
    """Run a gateway as a process inside the block, with these variables besides."""
    environment = {
        **current_environment(),
        "HELEXA_NATS_URL": nats_url,
        "HELEXA_DATA_DIR": str(data_dir),
        "HELEXA_GATEWAY_SOCKET": "127.0.0.1:0",
        **variables,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "helexa.gateway", env=environment, stderr=asyncio.subprocess.PIPE
    )
    made = GatewayProcess(process)
    assert process.stderr is not None
    try:
        while not made.url:
            line = await asyncio.wait_for(process.stderr.readline(), PATIENCE_S)
            assert line, "the gateway ended"
            if b'"serving"' in line:
                made.url = f"http://{json.loads(line)['address']}"
        yield made
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def connected(nats_url: str, name: str) -> AsyncIterator[Bus]:
    """Connect inside the block."""
    async with Bus(Connection(servers=(nats_url,), name=name)) as bus:
        await bus.wait_connected()
        yield bus


def home(request_id: str) -> str:
    return home_of(request_id) or ""
