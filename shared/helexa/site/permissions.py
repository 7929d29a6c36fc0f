# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Who may publish and subscribe what, computed from the declared calls, events and resources.

Nothing here is decided anew: a role may publish the calls it is named as a caller of, subscribe the
calls it serves, and reach JetStream for what it owns, reads or writes. A neuron may do that for its
own id alone.

Whoever serves a call may publish to the inboxes of those who call it. NATS's `allow_responses` is
not used: a server forgets at each reload which requests a connection has received (measured), so
that a request in work during a reload could never be answered; and it permits an answer to any
reply subject that the asker names, such as another neuron's commands.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from helexa.protocol import resources, subjects
from helexa.protocol.errors import BadRequestError
from helexa.protocol.frames import CONTROL_AUTHOR
from helexa.protocol.naming import encode_token
from helexa.protocol.subjects import SERVICES, Role, pattern_of

MAX_NEURON_TOKEN = 128
"""Characters of an encoded neuron id."""

_WIDER = {
    subjects.STATE_EVENT.subject: subjects.ALL_EVENTS,
    subjects.USAGE.subject: subjects.ALL_USAGE,
}
"""What other tools subscribe to, in place of one `*` a token."""

_APPENDED = {
    Role.GATEWAY: (pattern_of(subjects.TOKENS, author=CONTROL_AUTHOR), subjects.ALL_BULK),
    Role.PORTAL: (pattern_of(subjects.LEDGER),),
}
"""Streams that a role extends, without any message of its own on their subjects."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """What one user may do. An empty tuple means nothing at all."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One role in the table of permissions; a neuron's id stands as a placeholder."""

    role: Role
    permissions: Permissions


def permissions_for(role: Role, neuron_id: str | None = None) -> Permissions:
    """Return the permissions of a role's user; a neuron's are those of `neuron_id`.

    Raises:
        BadRequestError: the role is that of a neuron and the id cannot be one.
    """
    if role is not Role.NEURON:
        return _permissions(role, None)
    return _permissions(role, neuron_token(neuron_id or ""))


def neuron_token(neuron_id: str) -> str:
    """Return `neuron_id` as the subject token that its permissions name.

    Raises:
        BadRequestError: no neuron may have this id.
    """
    token = encode_token(neuron_id)
    if not 0 < len(token) <= MAX_NEURON_TOKEN:
        raise BadRequestError(f"A neuron's id has 1 to {MAX_NEURON_TOKEN} characters.", param="id")
    if token == CONTROL_AUTHOR:
        raise BadRequestError(f"{neuron_id!r} is reserved; choose another id.", param="id")
    return token


def system_permissions() -> Permissions:
    """Return what the provisioner may do in the system account: reload its servers and look."""
    return Permissions(
        publish=(
            pattern_of(subjects.SERVER_RELOAD),
            subjects.SERVER_PING,
            subjects.SERVER_PING_JETSTREAM,
        ),
        subscribe=(f"{subjects.SYSTEM_INBOX}.>",),
    )


def matrix() -> tuple[Row, ...]:
    """Return every role with its permissions, for the reference page."""
    return tuple(
        Row(role, _permissions(role, "{neuron}" if role is Role.NEURON else None)) for role in Role
    )


def _permissions(role: Role, neuron: str | None) -> Permissions:
    askers = _askers(role)
    return Permissions(
        publish=_ordered(
            [
                *_messages_out(role, neuron),
                *(f"{_inbox_of_any(asker)}.>" for asker in askers),
                *_resources_of(role),
            ]
        ),
        subscribe=_ordered(
            [f"{subjects.inbox_prefix(role, neuron)}.>", *_messages_in(role, neuron)]
        ),
    )


def _inbox_of_any(asker: Role) -> str:
    return subjects.inbox_prefix(asker, "*" if asker is Role.NEURON else None)


def _askers(role: Role) -> frozenset[Role]:
    served = (call.callers for call in subjects.CALLS if call.server is role)
    discovery = frozenset({Role.ADMIN} if role in SERVICES else ())
    return discovery.union(*served)


def _messages_out(role: Role, neuron: str | None) -> Iterator[str]:
    own = {"service": str(role)} | ({"neuron": neuron} if neuron else {})
    for call in subjects.CALLS:
        if role in call.callers:
            yield pattern_of(call.subject, **own)
    for event in subjects.EVENTS:
        if role in event.publishers:
            yield pattern_of(event.subject, **own)
    yield from _APPENDED.get(role, ())
    if neuron:
        yield pattern_of(subjects.TOKENS, author=neuron)
    if role is Role.ADMIN:
        yield subjects.DISCOVERY_ALL


def _messages_in(role: Role, neuron: str | None) -> Iterator[str]:
    own = {"neuron": neuron} if neuron else {}
    for call in subjects.CALLS:
        if role is call.server:
            yield pattern_of(call.subject, **own)
    for event in subjects.EVENTS:
        if role in event.subscribers:
            yield _WIDER.get(event.subject) or pattern_of(event.subject, **own)
    if role is Role.GATEWAY:
        yield pattern_of(subjects.TOKENS)
        yield subjects.TOKENS_LEADER
    if role is Role.PORTAL:
        yield pattern_of(subjects.LEDGER)
    if role in SERVICES:
        yield from subjects.discovery_patterns(f"helexa-{role}")


def _resources_of(role: Role) -> Iterator[str]:
    for stream in resources.STREAMS:
        yield from _stream(role, stream.name, stream.owners, stream.readers)
        yield from _queue(role, stream)
    for bucket in resources.BUCKETS:
        name = subjects.bucket_stream(bucket.name)
        yield from _stream(role, name, bucket.owners, bucket.readers)
        if role in bucket.writers:
            yield subjects.bucket_key(bucket.name)
    for store in resources.OBJECT_STORES:
        name = subjects.object_stream(store.name)
        yield from _stream(role, name, store.owners, store.readers)
        if role in store.writers:
            yield from subjects.object_writer_api(store.name)
    read = (kept.readers for kept in (*resources.STREAMS, *resources.OBJECT_STORES))
    if any(role in readers for readers in read):
        yield subjects.JETSTREAM_STREAM_NAMES


def _stream(
    role: Role, name: str, owners: frozenset[Role], readers: frozenset[Role]
) -> Iterator[str]:
    if role in owners:
        yield from subjects.stream_owner_api(name)
    if role in readers:
        yield from subjects.stream_reader_api(name)


def _queue(role: Role, stream: resources.Stream) -> Iterator[str]:
    if role in stream.takers:
        yield from subjects.stream_taker_api(stream.name)
    if role in stream.erasers:
        yield subjects.erase(stream.name)


def _ordered(found: list[str]) -> tuple[str, ...]:
    return tuple(sorted(set(found)))
