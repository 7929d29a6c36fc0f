# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One filled-in example of every message; each release keeps their encodings as golden files."""

from typing import Any

from helexa.protocol.frames import FrameKind, Opening, pack_frame, pack_opening
from helexa.protocol.messages.accounts import (
    AddressClaim,
    Budget,
    Challenge,
    KeyGrant,
    KeyUse,
    KeyUses,
    Session,
    User,
)
from helexa.protocol.messages.base import AnyMessage
from helexa.protocol.messages.bulk import BulkJob, ClaimRequest
from helexa.protocol.messages.events import HistogramSample, MetricsReport, StateEvent
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
from helexa.protocol.messages.ledger import Posted, PostRequest
from helexa.protocol.messages.models import (
    ModelCapability,
    ModelConfig,
    ModelId,
    ModelPolicy,
    ModelStatus,
    Price,
)
from helexa.protocol.messages.neurons import (
    Acknowledged,
    Capabilities,
    CapabilitiesRequest,
    Departure,
    DrainRequest,
    Enrolled,
    EnrolRequest,
    GpuSummary,
    HardwareSummary,
    Health,
    HealthRequest,
    NeuronDescriptor,
    NeuronStatus,
    Registered,
    Registration,
    ShutdownNotice,
)
from helexa.protocol.messages.provisioning import (
    Ensured,
    EnsureRequest,
    LoadModel,
    Placement,
    ProvisioningError,
    ProvisioningOk,
    ProvisioningResponse,
    ProvisionRequest,
    UnloadModel,
    UpsertModelConfig,
)
from helexa.protocol.messages.routing import (
    ExplainRequest,
    Explanation,
    Feedback,
    GatewayBeat,
    Outcome,
    Rejected,
    RoutingDecision,
    ScheduleRequest,
    Target,
    UserHints,
)
from helexa.protocol.messages.usage import SignedUsage, UsageBatch, UsageRecord, usage_bytes

MODEL = ModelId("org/model-7b", {"quant": "q8_0"})
CAPABILITY = ModelCapability(
    workloads=("chat", "vision"),
    max_context_tokens=4096,
    throughput_tokens_per_s=120.5,
    vram_bytes=8 << 30,
    continues_partial=True,
)
PRICE = Price(input_per_million_tokens=150_000, output_per_million_tokens=600_000)
CONFIG = ModelConfig(
    model=MODEL,
    backend_kind="llama_cpp",
    source="hf:org/model/file.gguf",
    projector="hf:org/model/mmproj.gguf",
    args=("--flash-attn", "on"),
    env={"GGML_NO_BACKTRACE": "1"},
    context_tokens=4096,
    slots=4,
    aliases=("model",),
    capability=CAPABILITY,
    price=PRICE,
    policy=ModelPolicy(min_replicas=2, max_replicas=4, pinned_neurons=("a", "b"), priority=3),
    metadata={"owner": "ops"},
)
HARDWARE = HardwareSummary(
    cpu_model="Example 9000",
    cpu_cores=16,
    cpu_percent=12.5,
    memory_total_bytes=64 << 30,
    memory_free_bytes=32 << 30,
    gpus=(GpuSummary(index=0, uuid="GPU-0", name="Example", memory_total_bytes=80 << 30),),
)
STATUS = NeuronStatus(
    neuron_id="host-1",
    instance="abc",
    sequence=7,
    uptime_s=3.5,
    slots_total=8,
    slots_busy=2,
    models=(ModelStatus(model=MODEL, state="loaded", slots_total=4, slots_busy=2),),
    hardware=HARDWARE,
    price=PRICE,
)
DESCRIPTOR = NeuronDescriptor(
    neuron_id="host-1",
    public_key="UABC",
    instance="abc",
    software_version="0.1.0",
    host="rack-3",
    operator={"region": "eu"},
    price=PRICE,
    backend_kinds=("llama_cpp", "openai_proxy"),
    slots_total=8,
    hardware=HARDWARE,
)
USAGE = UsageRecord(
    request_id="gate.req",
    attempt=1,
    neuron_id="host-1",
    portal="default",
    account="0" * 64,
    model="org/model-7b",
    operation="chat",
    prompt_tokens=12,
    completion_tokens=40,
    cached_tokens=3,
    counted="backend",
    events=41,
    output_bytes=5000,
    output_sha256="1" * 64,
    outcome="done",
    first_token_ms=25,
    total_ms=310,
)
SIGNED = SignedUsage(
    record=usage_bytes(USAGE.model_dump(exclude={"prefix_tokens"})),
    key="UABC",
    signature=b"\x01" * 64,
)
DECISION = RoutingDecision(
    decision_id="d1",
    model=MODEL,
    targets=(Target(neuron_id="host-1", score=0.25, reasons={"load": 0.25}, price=PRICE),),
    rejected=(Rejected(neuron_id="host-2", reason="draining"),),
    scheduler="s1",
)

EXAMPLES: dict[str, AnyMessage] = {
    type(example).__name__: example
    for example in (
        CAPABILITY,
        CONFIG,
        DESCRIPTOR,
        STATUS,
        USAGE,
        SIGNED,
        DECISION,
        UsageBatch(records=(SIGNED,)),
        PostRequest(command=b"command"),
        Posted(
            entry=b"entry",
            is_new=True,
            block=7,
            block_hash=b"hash",
            time_ms=1_770_000_000_000,
            refusal="insufficient_funds",
            message="The balance is too low.",
            available=5,
        ),
        Registration(descriptor=DESCRIPTOR, status=STATUS),
        Registered(heartbeat_interval_s=1.0),
        Departure(neuron_id="host-1", instance="abc", reason="SIGTERM"),
        Acknowledged(),
        ShutdownNotice(reason="upgrade"),
        CapabilitiesRequest(),
        Capabilities(descriptor=DESCRIPTOR, models={"org/model-7b": CAPABILITY}),
        HealthRequest(),
        Health(healthy=False, status=STATUS, impaired_models=(MODEL,)),
        DrainRequest(draining=True),
        EnrolRequest(neuron_id="host-1", public_key="UABC", nonce=b"n", signature=b"s"),
        Enrolled(neuron_id="host-1"),
        ProvisionRequest(command=UpsertModelConfig(config=CONFIG), fence=9),
        ProvisioningResponse(outcome=ProvisioningOk(model_id=MODEL, message="loaded")),
        Placement(model=MODEL, neurons=("host-1",), reason="demand"),
        EnsureRequest(model=MODEL, request_id="gate.req", waiting=3),
        Ensured(state="loading", neurons=("host-1",), progress=0.5),
        ScheduleRequest(
            request_id="gate.req",
            model=MODEL,
            workload="ChatInteractive",
            needs=("vision",),
            prompt_tokens=120,
            max_tokens=64,
            hints=UserHints(prefer_neurons=("host-1",)),
        ),
        ExplainRequest(request_id="gate.req"),
        Explanation(request_id="gate.req", decision=DECISION),
        Feedback(
            gateway="gate",
            outcomes=(Outcome(neuron_id="host-1", model=MODEL, completed=3, first_token_s=(0.1,)),),
        ),
        GatewayBeat(gateway="gate", requests=4),
        ExecuteRequest(
            request_id="gate.req",
            home="gate",
            owner="gate",
            model=MODEL,
            operation="chat",
            public_id="chatcmpl-1",
            body=b"{}",
        ),
        ExecuteReply(neuron_id="host-1", slots_free=3),
        BulkJob(ticket="abc", gateway="gate", model=MODEL),
        ClaimRequest(ticket="abc", neuron_id="host-1", deliveries=2),
        CancelRequest(request_id="gate.req", owner="gate", attempt=1),
        Cancelled(state="cancelled"),
        AttachRequest(request_id="gate.req", owner="gate2"),
        Attached(state="running"),
        ResendRequest(request_id="gate.req", attempt=1, from_seq=3, to_seq=5),
        Resent(frames=(b"a", b"b")),
        TokenUsage(prompt_tokens=12, completion_tokens=40, cached_tokens=3),
        Timings(first_token_s=0.02, total_s=0.3),
        StateEvent(type="neuron_registered", at_ms=1, neuron_id="host-1"),
        MetricsReport(
            service="gateway",
            instance="abc",
            at_ms=1,
            uptime_s=2.0,
            interval_s=5.0,
            counters={"helexa_requests_total": 4.0},
            histograms={"helexa_x_seconds": HistogramSample(count=1, sum=0.5, buckets={"+Inf": 1})},
        ),
    )
}
EXAMPLES |= {
    type(example).__name__: example
    for example in (
        Budget(amount=25_000_000, currency="USD", period="month"),
        KeyGrant(
            key_id="key_1",
            account="user_1",
            portal="default",
            name="laptop",
            hint="wxyz",
            created_ms=1_700_000_000_000,
            expires_ms=1_800_000_000_000,
            scopes=("inference",),
            models=("org/model-7b",),
            requests_per_minute=60,
            tokens_per_minute=90_000,
            budget=Budget(amount=25_000_000, currency="USD", period="month"),
            may_claim_priority=False,
            yields=True,
            suspended=True,
            revoked_ms=1_750_000_000_000,
        ),
        User(
            user_id="user_1",
            portal="default",
            address="ada@example.org",
            name="Ada",
            password_hash="$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA",
            roles=("user", "admin"),
            status="active",
            created_ms=1_700_000_000_000,
            password_edition=2,
        ),
        KeyUses(
            gateway="gate",
            uses=(KeyUse(key="0" * 64, kind="tokens", limit=1000, amount=-12),),
        ),
        AddressClaim(user_id="user_1", claimed_ms=1_700_000_000_000),
        Session(
            user_id="user_1",
            portal="default",
            password_edition=2,
            created_ms=1_700_000_000_000,
            expires_ms=1_701_209_600_000,
        ),
        Challenge(
            user_id="user_1",
            purpose="reset",
            password_edition=2,
            expires_ms=1_700_003_600_000,
            used=True,
        ),
    )
}
EXAMPLES["StateEvent.key"] = StateEvent(
    type="key_revoked", at_ms=1, account="user_1", actor="user_2", key_id="key_1"
)
EXAMPLES["ProvisionRequest.load"] = ProvisionRequest(command=LoadModel(model=MODEL))
EXAMPLES["ProvisionRequest.unload"] = ProvisionRequest(
    command=UnloadModel(model=MODEL, forget=True)
)
EXAMPLES["ProvisioningResponse.error"] = ProvisioningResponse(
    outcome=ProvisioningError(model_id=MODEL, error="no space", code="model_failed")
)

FRAMES: dict[str, tuple[bytes, list[Any]]] = {
    "open": (
        pack_opening(Opening("acct", "m", "chat", "chatcmpl-1", "host-1", 1_700_000_000)),
        [1, 0, 0, 0, "acct", "m", "chat", "chatcmpl-1", "host-1", 1_700_000_000],
    ),
    "assign": (pack_frame(2, 0, 0, FrameKind.ASSIGN, "host-2", 41), [2, 0, 0, 1, "host-2", 41]),
    "attach": (pack_frame(1, 0, 0, FrameKind.ATTACH, "gate2"), [1, 0, 0, 2, "gate2"]),
    "data": (
        pack_frame(1, 3, 5, FrameKind.DATA, 1, b"id: 5\ndata: {}\n\n"),
        [1, 3, 5, 3, 1, b"id: 5\ndata: {}\n\n"],
    ),
    "body": (pack_frame(1, 0, 0, FrameKind.BODY, b"{}"), [1, 0, 0, 4, b"{}"]),
    "beat": (pack_frame(1, 0, 0, FrameKind.BEAT, None), [1, 0, 0, 5, None]),
    "done": (
        pack_frame(
            1,
            4,
            6,
            FrameKind.DONE,
            TokenUsage(prompt_tokens=1, completion_tokens=2).model_dump(),
            b"signed",
            Timings(total_s=0.5).model_dump(),
        ),
        [
            *(1, 4, 6, 6),
            {
                "prompt_tokens": 1,
                "completion_tokens": 2,
                "cached_tokens": None,
                "reasoning_tokens": None,
                "counted": "backend",
            },
            b"signed",
            {"queued_s": 0.0, "first_token_s": None, "total_s": 0.5},
        ],
    ),
    "error": (
        pack_frame(1, 4, 6, FrameKind.ERROR, {"code": "busy", "message": "full"}, None, {}),
        [1, 4, 6, 7, {"code": "busy", "message": "full"}, None, {}],
    ),
}
