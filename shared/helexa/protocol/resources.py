# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Every stream, bucket and object store: what it holds, how long, and who may touch it.

Owners create it at start (all of them try; it is idempotent). Writers of a stream are those whose
subjects it captures; writers of buckets and stores are named here.
"""

from dataclasses import dataclass
from typing import Literal

from helexa.protocol import subjects
from helexa.protocol.subjects import Role

Storage = Literal["file", "memory"]
MIB = 1024 * 1024
UNBOUNDED = -1
DEFAULT_PORTAL = "default"
"""The first portal of a site."""
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Stream:
    """A JetStream stream."""

    name: str
    subjects: tuple[str, ...]
    storage: Storage
    max_bytes: int
    max_age_s: float
    owners: frozenset[Role]
    readers: frozenset[Role]
    takers: frozenset[Role] = frozenset()
    """Who pulls from consumers that others made, and acknowledges."""
    erasers: frozenset[Role] = frozenset()
    """Who takes single messages out again."""
    work_queue: bool = False
    discard_new: bool = False
    """Refuse what does not fit instead of dropping the oldest."""
    no_ack: bool = False
    append_only: bool = False
    """Nothing can be taken out of it again, by nobody."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A key-value bucket."""

    name: str
    owners: frozenset[Role]
    readers: frozenset[Role]
    writers: frozenset[Role]
    ttl_s: float | None = None
    history: int = 1
    max_bytes: int = 64 * MIB


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """An object store."""

    name: str
    storage: Storage
    max_bytes: int
    owners: frozenset[Role]
    readers: frozenset[Role]
    writers: frozenset[Role]
    ttl_s: float | None = None


def _roles(*roles: Role) -> frozenset[Role]:
    return frozenset(roles)


TOKEN_WINDOW_S = 120.0
"""How long frames are kept."""

TOKENS = Stream(
    name="TOKENS",
    subjects=(subjects.ALL_TOKENS,),
    storage="memory",
    max_bytes=256 * MIB,
    max_age_s=TOKEN_WINDOW_S,
    owners=_roles(Role.GATEWAY, Role.PROVISIONER),
    readers=_roles(Role.GATEWAY, Role.PORTAL),
)
USAGE = Stream(
    name="USAGE",
    subjects=(subjects.ALL_USAGE,),
    storage="file",
    max_bytes=256 * MIB,
    max_age_s=30 * DAY_S,
    owners=_roles(Role.GATEWAY, Role.PORTAL, Role.PROVISIONER),
    readers=_roles(Role.PORTAL),
    work_queue=True,
    discard_new=True,
)
BULK = Stream(
    name="BULK",
    subjects=(subjects.ALL_BULK,),
    storage="file",
    max_bytes=64 * MIB,
    max_age_s=DAY_S,
    owners=_roles(Role.GATEWAY, Role.PROVISIONER),
    readers=_roles(Role.GATEWAY),
    takers=_roles(Role.NEURON),
    erasers=_roles(Role.GATEWAY),
    work_queue=True,
    discard_new=True,
)
EVENTS = Stream(
    name="EVENTS",
    subjects=(subjects.ALL_EVENTS,),
    storage="file",
    max_bytes=64 * MIB,
    max_age_s=7 * DAY_S,
    owners=_roles(Role.PROVISIONER),
    readers=_roles(Role.PROVISIONER, Role.ADMIN),
)


def ledger_of(portal: str) -> Stream:
    """Return the journal of a portal's ledger: one block of entries a message."""
    return Stream(
        name=subjects.ledger_stream(portal),
        subjects=(subjects.subject_of(subjects.LEDGER, portal=portal),),
        storage="file",
        max_bytes=UNBOUNDED,
        max_age_s=0.0,
        owners=_roles(Role.PORTAL),
        readers=_roles(Role.PORTAL),
        discard_new=True,
        append_only=True,
    )


LEDGER = ledger_of(DEFAULT_PORTAL)
STREAMS = (TOKENS, USAGE, BULK, EVENTS, LEDGER)

_ORCHESTRATOR = _roles(Role.PROVISIONER)
_READERS = _roles(Role.GATEWAY, Role.SCHEDULER, Role.PROVISIONER, Role.PORTAL, Role.ADMIN)

MODELS = Bucket("models", _ORCHESTRATOR, _READERS, _ORCHESTRATOR)
"""The catalogue: a `ModelConfig` a model."""
NEURONS = Bucket("neurons", _ORCHESTRATOR, _READERS, _ORCHESTRATOR, ttl_s=90.0)
"""Registrations: a `NeuronDescriptor` a neuron, renewed while it reports."""
PLACEMENTS = Bucket("placements", _ORCHESTRATOR, _READERS, _ORCHESTRATOR, history=8)
"""Desired state: a `Placement` a model."""
LEASES = Bucket("leases", _ORCHESTRATOR, _ORCHESTRATOR, _ORCHESTRATOR, ttl_s=10.0)
"""Leadership."""
IDENTITIES = Bucket("identities", _ORCHESTRATOR, _ORCHESTRATOR, _ORCHESTRATOR)
"""The public key that each enrolled neuron's id is bound to."""

_PORTAL = _roles(Role.PORTAL)
SESSION_S = 14 * DAY_S
"""How long somebody stays logged in."""
CHALLENGE_S = DAY_S
"""The longest that a secret sent to an address can be shown."""

KEYS = Bucket("keys", _PORTAL | _ORCHESTRATOR, _PORTAL | _roles(Role.GATEWAY), _PORTAL)
"""API keys: a `KeyGrant` a digest. It exists on sites without a portal too, where it stays empty:
a gateway must be able to tell a key that is not known from keys that cannot be read."""
ACCOUNTS = Bucket("accounts", _PORTAL, _PORTAL, _PORTAL)
"""A `User` an id."""
ADDRESSES = Bucket("addresses", _PORTAL, _PORTAL, _PORTAL)
"""An `AddressClaim` an address, under a digest: of two sign-ups of one address, one wins."""
SESSIONS = Bucket("sessions", _PORTAL, _PORTAL, _PORTAL, ttl_s=SESSION_S)
"""A `Session` a digest."""
CHALLENGES = Bucket("challenges", _PORTAL, _PORTAL, _PORTAL, ttl_s=CHALLENGE_S)
"""A `Challenge` a digest."""
PORTAL_LEASES = Bucket("portal_leases", _PORTAL, _PORTAL, _PORTAL, ttl_s=5.0)
"""Which portal writes a ledger."""
BUCKETS = (
    MODELS,
    NEURONS,
    PLACEMENTS,
    LEASES,
    IDENTITIES,
    KEYS,
    ACCOUNTS,
    ADDRESSES,
    SESSIONS,
    CHALLENGES,
    PORTAL_LEASES,
)

BODIES = ObjectStore(
    name="bodies",
    storage="memory",
    max_bytes=256 * MIB,
    owners=_roles(Role.GATEWAY, Role.PROVISIONER),
    readers=_roles(Role.GATEWAY, Role.NEURON),
    writers=_roles(Role.GATEWAY),
    ttl_s=600.0,
)
"""Request bodies that are too large for one message."""
OBJECT_STORES = (BODIES,)
