# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Every subject of Helexa, bound to its types and to who may use it.

No other module spells a subject. The permissions that a site's servers enforce are generated from
the constants below. Placeholders in braces are subject tokens: ``{neuron}`` is a neuron's id,
encoded.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

from helexa.protocol.messages.accounts import KeyUses
from helexa.protocol.messages.base import AnyMessage, Message
from helexa.protocol.messages.bulk import ClaimRequest
from helexa.protocol.messages.events import MetricsReport, StateEvent
from helexa.protocol.messages.execution import (
    Attached,
    AttachRequest,
    Cancelled,
    CancelRequest,
    ExecuteReply,
    ExecuteRequest,
    ResendRequest,
    Resent,
)
from helexa.protocol.messages.ledger import Posted, PostRequest
from helexa.protocol.messages.neurons import (
    Acknowledged,
    Capabilities,
    CapabilitiesRequest,
    Departure,
    DrainRequest,
    Enrolled,
    EnrolRequest,
    Health,
    HealthRequest,
    NeuronStatus,
    Registered,
    Registration,
    ShutdownNotice,
)
from helexa.protocol.messages.provisioning import (
    Ensured,
    EnsureRequest,
    ProvisioningResponse,
    ProvisionRequest,
)
from helexa.protocol.messages.routing import (
    ExplainRequest,
    Explanation,
    Feedback,
    GatewayBeat,
    RoutingDecision,
    ScheduleRequest,
)
from helexa.protocol.messages.usage import UsageBatch

RequestT = TypeVar("RequestT", bound=AnyMessage)
ReplyT = TypeVar("ReplyT", bound=AnyMessage)
MessageT = TypeVar("MessageT", bound=Message)


class Role(StrEnum):
    """Who connects to a site's servers."""

    GATEWAY = "gateway"
    SCHEDULER = "scheduler"
    PROVISIONER = "provisioner"
    PORTAL = "portal"
    NEURON = "neuron"
    """One user a neuron, permitted for its own id alone."""
    METRICS = "metrics"
    """Reads metrics and events, publishes nothing."""
    ENROLMENT = "enrolment"
    """A join token: may ask to be enrolled, nothing else."""
    ADMIN = "admin"
    """An operator's own tools."""


SERVICES = (Role.GATEWAY, Role.SCHEDULER, Role.PROVISIONER, Role.PORTAL, Role.NEURON)


@dataclass(frozen=True, slots=True)
class Call(Generic[RequestT, ReplyT]):
    """A request and its reply."""

    subject: str
    request: type[RequestT]
    reply: type[ReplyT]
    server: Role
    callers: frozenset[Role]


@dataclass(frozen=True, slots=True)
class Event(Generic[MessageT]):
    """A message that nobody answers."""

    subject: str
    message: type[MessageT]
    publishers: frozenset[Role]
    subscribers: frozenset[Role]
    as_json: bool = False
    """Encoded as JSON, for people and other tools; everything else is msgpack."""


def subject_of(template: str, **tokens: str) -> str:
    """Return `template` with its placeholders filled in.

    Raises:
        KeyError: a placeholder has no value.
    """
    return template.format_map(tokens)


def pattern_of(template: str, **tokens: str) -> str:
    """Return `template` with the given placeholders filled in and a `*` for each other one."""
    return _PLACEHOLDER.sub(lambda match: tokens.get(match[1], "*"), template)


_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def _roles(*roles: Role) -> frozenset[Role]:
    return frozenset(roles)


SCHEDULE = Call(
    "helexa.scheduler.schedule",
    ScheduleRequest,
    RoutingDecision,
    Role.SCHEDULER,
    _roles(Role.GATEWAY),
)
SCHEDULE_ANY = Call(
    "helexa.scheduler.schedule_any",
    ScheduleRequest,
    RoutingDecision,
    Role.SCHEDULER,
    _roles(Role.GATEWAY),
)
"""The same, asked of every replica: the first answer counts."""
EXPLAIN = Call(
    "helexa.scheduler.explain",
    ExplainRequest,
    Explanation,
    Role.SCHEDULER,
    _roles(Role.PROVISIONER, Role.ADMIN),
)

REGISTER = Call(
    "helexa.provisioner.register.{neuron}",
    Registration,
    Registered,
    Role.PROVISIONER,
    _roles(Role.NEURON),
)
DEPART = Call(
    "helexa.provisioner.depart.{neuron}",
    Departure,
    Acknowledged,
    Role.PROVISIONER,
    _roles(Role.NEURON),
)
ENSURE = Call(
    "helexa.provisioner.ensure",
    EnsureRequest,
    Ensured,
    Role.PROVISIONER,
    _roles(Role.GATEWAY),
)
ENROL = Call(
    "helexa.provisioner.enrol",
    EnrolRequest,
    Enrolled,
    Role.PROVISIONER,
    _roles(Role.ENROLMENT),
)

EXECUTE = Call(
    "helexa.neuron.{neuron}.execute",
    ExecuteRequest,
    ExecuteReply,
    Role.NEURON,
    _roles(Role.GATEWAY),
)
CANCEL = Call(
    "helexa.neuron.{neuron}.cancel",
    CancelRequest,
    Cancelled,
    Role.NEURON,
    _roles(Role.GATEWAY),
)
ATTACH = Call(
    "helexa.neuron.{neuron}.attach",
    AttachRequest,
    Attached,
    Role.NEURON,
    _roles(Role.GATEWAY),
)
RESEND = Call(
    "helexa.neuron.{neuron}.resend",
    ResendRequest,
    Resent,
    Role.NEURON,
    _roles(Role.GATEWAY),
)
CLAIM = Call(
    "helexa.gateway.{gateway}.claim.{neuron}",
    ClaimRequest,
    ExecuteRequest,
    Role.GATEWAY,
    _roles(Role.NEURON),
)
PROVISION = Call(
    "helexa.neuron.{neuron}.provision",
    ProvisionRequest,
    ProvisioningResponse,
    Role.NEURON,
    _roles(Role.PROVISIONER),
)
CAPABILITIES = Call(
    "helexa.neuron.{neuron}.capabilities",
    CapabilitiesRequest,
    Capabilities,
    Role.NEURON,
    _roles(Role.PROVISIONER, Role.ADMIN),
)
HEALTH = Call(
    "helexa.neuron.{neuron}.health",
    HealthRequest,
    Health,
    Role.NEURON,
    _roles(Role.PROVISIONER, Role.ADMIN),
)
DRAIN = Call(
    "helexa.neuron.{neuron}.drain",
    DrainRequest,
    Acknowledged,
    Role.NEURON,
    _roles(Role.PROVISIONER),
)
POST = Call(
    "helexa.portal.{portal}.post",
    PostRequest,
    Posted,
    Role.PORTAL,
    _roles(Role.PORTAL),
)
"""A command for a portal's ledger; whichever replica writes it answers."""

CALLS: tuple[Call[Any, Any], ...] = (
    SCHEDULE,
    SCHEDULE_ANY,
    EXPLAIN,
    REGISTER,
    DEPART,
    ENSURE,
    ENROL,
    EXECUTE,
    CANCEL,
    ATTACH,
    RESEND,
    CLAIM,
    PROVISION,
    CAPABILITIES,
    HEALTH,
    DRAIN,
    POST,
)
"""Every call."""

NEURON_STATUS = Event(
    "helexa.neuron.{neuron}.status",
    NeuronStatus,
    _roles(Role.NEURON),
    _roles(Role.GATEWAY, Role.SCHEDULER, Role.PROVISIONER, Role.PORTAL, Role.ADMIN),
)
GATEWAY_BEAT = Event(
    "helexa.gateway.{gateway}.beat",
    GatewayBeat,
    _roles(Role.GATEWAY),
    _roles(Role.GATEWAY, Role.NEURON, Role.ADMIN),
)
FEEDBACK = Event(
    "helexa.gateway.{gateway}.feedback",
    Feedback,
    _roles(Role.GATEWAY),
    _roles(Role.SCHEDULER, Role.ADMIN),
)
KEY_USES = Event(
    "helexa.gateway.{gateway}.key_uses",
    KeyUses,
    _roles(Role.GATEWAY),
    _roles(Role.GATEWAY),
)
"""So that each gateway knows what is left of the limits of a key."""
NOTICE = Event(
    "helexa.provisioner.notice",
    ShutdownNotice,
    _roles(Role.PROVISIONER),
    _roles(Role.NEURON, Role.ADMIN),
)
USAGE = Event(
    "helexa.usage.{portal}.{neuron}",
    UsageBatch,
    _roles(Role.NEURON),
    _roles(Role.PORTAL),
)
METRICS = Event(
    "helexa.metrics.{service}",
    MetricsReport,
    _roles(*SERVICES),
    _roles(Role.METRICS, Role.ADMIN),
    as_json=True,
)
STATE_EVENT = Event(
    "helexa.event.{service}.{past}",
    StateEvent,
    _roles(Role.GATEWAY, Role.SCHEDULER, Role.PROVISIONER, Role.PORTAL),
    _roles(Role.METRICS, Role.PROVISIONER, Role.ADMIN),
    as_json=True,
)

EVENTS: tuple[Event[Any], ...] = (
    NEURON_STATUS,
    GATEWAY_BEAT,
    FEEDBACK,
    KEY_USES,
    NOTICE,
    USAGE,
    METRICS,
    STATE_EVENT,
)
"""Every event."""

TOKENS = "helexa.tokens.{home}.{author}.{request}"
"""Frames, read without pydantic: see `helexa.protocol.frames`."""
LEDGER = "helexa.ledger.{portal}"
RECEIPT = "helexa.receipt.{provider}.{portal}"
BULK = "helexa.bulk.{model}"
"""A `BulkJob` that waits for a neuron with room for the model."""
ALL_USAGE = "helexa.usage.>"
ALL_TOKENS = "helexa.tokens.>"
TOKENS_LEADER = "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.TOKENS"
"""Where a cluster tells that another server leads the token log now."""
ALL_EVENTS = "helexa.event.>"
ALL_METRICS = "helexa.metrics.*"
ALL_BULK = "helexa.bulk.*"
ALL_RECEIPTS = "helexa.receipt.>"


INBOX = "_INBOX"
"""How every inbox begins; nothing else is ever answered."""


def inbox_prefix(role: Role, neuron: str | None = None) -> str:
    """Return the private inbox prefix of a user; nobody else may subscribe below it."""
    return f"{INBOX}_{role}" if neuron is None else f"{INBOX}_{role}.{neuron}"


# NATS's own subjects.

SERVER_RELOAD = "$SYS.REQ.SERVER.{server}.RELOAD"
SERVER_PING = "$SYS.REQ.SERVER.PING"
SERVER_PING_JETSTREAM = "$SYS.REQ.SERVER.PING.JSZ"
JETSTREAM_STREAM_NAMES = "$JS.API.STREAM.NAMES"
JETSTREAM_ALL = "$JS.>"


def discovery_subjects(service: str, instance: str) -> list[str]:
    """Return what a service listens to so that `nats micro` finds it."""
    return [
        f"$SRV.{verb}{suffix}"
        for verb in ("PING", "INFO", "STATS")
        for suffix in ("", f".{service}", f".{service}.{instance}")
    ]


def discovery_patterns(service: str) -> list[str]:
    """Return the same as permissions, for any instance."""
    return ["$SRV.*", f"$SRV.*.{service}", f"$SRV.*.{service}.*"]


DISCOVERY_ALL = "$SRV.>"


def stream_owner_api(stream: str) -> list[str]:
    """Return the JetStream subjects of a role that creates `stream`."""
    return [f"$JS.API.STREAM.{verb}.{stream}" for verb in ("CREATE", "UPDATE", "INFO")]


def stream_reader_api(stream: str) -> list[str]:
    """Return the JetStream subjects of a role that reads `stream`."""
    return [
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.STREAM.MSG.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.>",
        f"$JS.API.CONSUMER.CREATE.{stream}",
        f"$JS.API.CONSUMER.CREATE.{stream}.>",
        f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.>",
        f"$JS.API.CONSUMER.INFO.{stream}.>",
        f"$JS.API.CONSUMER.DELETE.{stream}.>",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.>",
        f"$JS.ACK.{stream}.>",
        f"$JS.FC.{stream}.>",
    ]


def consumer_next(stream: str, consumer: str) -> str:
    """Return the subject that asks for the next messages of a pull consumer."""
    return f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"


def stream_taker_api(stream: str) -> list[str]:
    """Return the JetStream subjects of a role that pulls what the consumers of `stream` offer."""
    return [consumer_next(stream, "*"), f"$JS.ACK.{stream}.>"]


def ledger_stream(portal: str) -> str:
    """Return the stream that holds a portal's ledger."""
    return f"LEDGER_{portal}"


def erase(stream: str) -> str:
    """Return where single messages of `stream` are deleted."""
    return f"$JS.API.STREAM.MSG.DELETE.{stream}"


def direct_get(stream: str) -> str:
    """Return the subject that reads messages of `stream` by sequence or in batches."""
    return f"$JS.API.DIRECT.GET.{stream}"


def bucket_stream(bucket: str) -> str:
    """Return the stream behind a KV bucket."""
    return f"KV_{bucket}"


def bucket_key(bucket: str, key: str = ">") -> str:
    """Return the subject of a KV key."""
    return f"$KV.{bucket}.{key}"


def object_stream(store: str) -> str:
    """Return the stream behind an object store."""
    return f"OBJ_{store}"


def object_writer_api(store: str) -> list[str]:
    """Return the subjects of a role that puts objects into `store`."""
    return [f"$O.{store}.>", f"$JS.API.STREAM.PURGE.{object_stream(store)}"]


def object_subjects(store: str) -> list[str]:
    """Return the subjects behind an object store: chunks and descriptions."""
    return [f"$O.{store}.C.>", f"$O.{store}.M.>"]


SYSTEM_INBOX = "_INBOX_system"
"""The inbox prefix of the provisioner's user in the system account."""
