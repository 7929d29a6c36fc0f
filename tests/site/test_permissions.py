# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What the server lets each role do, against what the declarations say: both ways."""

import asyncio
import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from helexa.protocol import resources, subjects
from helexa.protocol.errors import BadRequestError
from helexa.protocol.frames import CONTROL_AUTHOR
from helexa.protocol.naming import encode_token
from helexa.protocol.subjects import SERVICES, Role, inbox_prefix, subject_of
from helexa.site.keys import Identity
from helexa.site.permissions import matrix, permissions_for

from .conftest import OTHER, OWN, Site

NOBODY: frozenset[Role] = frozenset()
EVERYBODY = frozenset(Role)
SERVING = frozenset(SERVICES)


@dataclass(frozen=True)
class Rule:
    """A literal subject, who may publish and who may subscribe it."""

    subject: str
    publishers: frozenset[Role]
    subscribers: frozenset[Role]
    neuron: str | None = None
    """The only neuron meant, where the subject names one."""

    def allows(self, role: Role, roles: frozenset[Role]) -> bool:
        return role in roles and (role is not Role.NEURON or self.neuron in (None, OWN))


def messages() -> Iterator[Rule]:
    for neuron in (OWN, OTHER):
        tokens = {"neuron": encode_token(neuron), "gateway": "g1", "portal": "p1", "past": "seen"}
        for call in subjects.CALLS:
            bound = neuron if "{neuron}" in call.subject else None
            subject = subject_of(call.subject, **tokens)
            yield Rule(subject, call.callers, frozenset({call.server}), bound)
        for event in subjects.EVENTS:
            bound = neuron if "{neuron}" in event.subject else None
            for role in Role if "{service}" in event.subject else [None]:
                subject = subject_of(event.subject, **tokens, service=str(role))
                publishers = event.publishers if role is None else event.publishers & {role}
                yield Rule(subject, publishers, event.subscribers, bound)
        author = subject_of(subjects.TOKENS, home="g1", author=encode_token(neuron), request="abc")
        yield Rule(author, frozenset({Role.NEURON}), frozenset({Role.GATEWAY}), neuron)
    control = subject_of(subjects.TOKENS, home="g1", author=CONTROL_AUTHOR, request="abc")
    yield Rule(control, frozenset({Role.GATEWAY}), frozenset({Role.GATEWAY}))
    portal = frozenset({Role.PORTAL})
    yield Rule(subject_of(subjects.LEDGER, portal="p1"), portal, portal)
    yield Rule(subject_of(subjects.BULK, model="m1"), frozenset({Role.GATEWAY}), NOBODY)


def stream_rules(
    name: str,
    owners: frozenset[Role],
    readers: frozenset[Role],
    takers: frozenset[Role] = NOBODY,
    erasers: frozenset[Role] = NOBODY,
) -> Iterator[Rule]:
    api = "$JS.API"
    both = owners | readers
    yield Rule(f"{api}.STREAM.CREATE.{name}", owners, NOBODY)
    yield Rule(f"{api}.STREAM.UPDATE.{name}", owners, NOBODY)
    yield Rule(f"{api}.STREAM.INFO.{name}", both, NOBODY)
    yield Rule(f"{api}.STREAM.MSG.GET.{name}", readers, NOBODY)
    yield Rule(f"{api}.DIRECT.GET.{name}", readers, NOBODY)
    yield Rule(f"{api}.CONSUMER.CREATE.{name}.c1.key", readers, NOBODY)
    yield Rule(f"{api}.CONSUMER.MSG.NEXT.{name}.c1", readers | takers, NOBODY)
    yield Rule(f"$JS.ACK.{name}.c1.1.1.1.1.1", readers | takers, NOBODY)
    yield Rule(f"{api}.STREAM.DELETE.{name}", NOBODY, NOBODY)
    yield Rule(f"{api}.STREAM.MSG.DELETE.{name}", erasers, NOBODY)
    yield Rule(f"{api}.STREAM.SNAPSHOT.{name}", NOBODY, NOBODY)


def durable() -> Iterator[Rule]:
    for stream in resources.STREAMS:
        yield from stream_rules(
            stream.name, stream.owners, stream.readers, stream.takers, stream.erasers
        )
        yield Rule(f"$JS.API.STREAM.PURGE.{stream.name}", NOBODY, NOBODY)
    for bucket in resources.BUCKETS:
        yield from stream_rules(f"KV_{bucket.name}", bucket.owners, bucket.readers)
        yield Rule(f"$JS.API.STREAM.PURGE.KV_{bucket.name}", NOBODY, NOBODY)
        yield Rule(f"$KV.{bucket.name}.some=20key", bucket.writers, NOBODY)
    for store in resources.OBJECT_STORES:
        yield from stream_rules(f"OBJ_{store.name}", store.owners, store.readers)
        yield Rule(f"$JS.API.STREAM.PURGE.OBJ_{store.name}", store.writers, NOBODY)
        yield Rule(f"$O.{store.name}.C.abc", store.writers, NOBODY)


def answering(asker: Role) -> frozenset[Role]:
    asked = frozenset(call.server for call in subjects.CALLS if asker in call.callers)
    return asked | SERVING if asker is Role.ADMIN else asked


def surroundings() -> Iterator[Rule]:
    for role in Role:
        if role is not Role.NEURON:
            yield Rule(f"{inbox_prefix(role)}.x.y", answering(role), frozenset({role}))
        yield Rule(f"$SRV.INFO.helexa-{role}", frozenset({Role.ADMIN}), SERVING & frozenset({role}))
    for neuron in (OWN, OTHER):
        inbox = inbox_prefix(Role.NEURON, encode_token(neuron))
        yield Rule(f"{inbox}.x", answering(Role.NEURON), frozenset({Role.NEURON}), neuron)
    yield Rule("$SRV.PING", frozenset({Role.ADMIN}), SERVING)
    for subject in (
        "_INBOX.x",
        "$SYS.REQ.SERVER.PING",
        "$SYS.REQ.ACCOUNT.PING.CONNZ",
        "$JS.API.STREAM.LIST",
        "$JS.API.STREAM.CREATE.MINE",
        "$JS.EVENT.ADVISORY.API",
        "helexa.elsewhere",
        "elsewhere",
    ):
        yield Rule(subject, NOBODY, NOBODY)


RULES = tuple({rule.subject: rule for rule in (*messages(), *durable(), *surroundings())}.values())
WILDCARDS = (
    ">",
    "*",
    "helexa.>",
    "helexa.*.*.*",
    "_INBOX_gateway.>",
    "$KV.>",
    "$JS.>",
    "helexa.tokens.>",
)


def refused_subjects(refusals: list[str]) -> set[str]:
    found = [re.search(r'to "([^"]+)"', text) for text in refusals]
    return {match[1] for match in found if match}


@pytest.mark.accepts("PORT-8")
@pytest.mark.parametrize("role", Role)
async def test_a_role_publishes_what_is_declared_and_nothing_else(site: Site, role: Role) -> None:
    async with site.user(role, OWN if role is Role.NEURON else None) as user:
        for rule in RULES:
            await user.client.publish(rule.subject, b"")
        refused = refused_subjects(await user.refused())

    # nats-py lowers the server's errors.
    expected = {r.subject.lower() for r in RULES if not r.allows(role, r.publishers)}
    assert refused == expected


@pytest.mark.parametrize("role", Role)
async def test_a_role_subscribes_what_is_declared_and_nothing_else(site: Site, role: Role) -> None:
    own_inbox = f"{inbox_prefix(role)}.>"
    async with site.user(role, OWN if role is Role.NEURON else None) as user:
        for subject in (*(rule.subject for rule in RULES), *WILDCARDS):
            await user.client.subscribe(subject)
        refused = refused_subjects(await user.refused())

    expected = {r.subject.lower() for r in RULES if not r.allows(role, r.subscribers)}
    assert refused == expected | {w.lower() for w in WILDCARDS if w != own_inbox}


@pytest.mark.accepts("CX-7")
async def test_a_neuron_reaches_nothing_of_another_one(site: Site) -> None:
    theirs = encode_token(OTHER)
    async with site.user(Role.NEURON, OWN) as user:
        for subject in (
            f"helexa.tokens.g1.{theirs}.r1",
            f"helexa.neuron.{theirs}.status",
            f"helexa.provisioner.register.{theirs}",
            f"helexa.provisioner.depart.{theirs}",
            f"helexa.usage.p1.{theirs}",
            f"helexa.gateway.g1.claim.{theirs}",
        ):
            await user.client.publish(subject, b"forged")
            assert refused_subjects(await user.refused()) == {subject.lower()}
        for subject in (f"helexa.neuron.{theirs}.execute", "helexa.neuron.*.execute"):
            await user.client.subscribe(subject)
            assert refused_subjects(await user.refused()) == {subject.lower()}


@pytest.mark.parametrize("role", [Role.METRICS, Role.ADMIN])
async def test_tools_read_metrics_and_events_by_wildcard(site: Site, role: Role) -> None:
    async with site.user(role) as user, site.user(Role.GATEWAY) as gateway:
        metrics = await user.client.subscribe(subjects.ALL_METRICS)
        events = await user.client.subscribe(subjects.ALL_EVENTS)
        assert await user.refused() == []
        await gateway.client.publish("helexa.metrics.gateway", b"{}")
        await gateway.client.publish("helexa.event.gateway.seen", b"{}")

        assert (await metrics.next_msg(5)).subject == "helexa.metrics.gateway"
        assert (await events.next_msg(5)).subject == "helexa.event.gateway.seen"


async def test_a_neuron_is_answered_in_its_inbox_and_cannot_turn_an_answer_against_another_one(
    site: Site,
) -> None:
    theirs = f"helexa.neuron.{encode_token(OTHER)}.drain"
    async with site.user(Role.NEURON, OWN) as neuron, site.user(Role.PROVISIONER) as provisioner:
        served = await provisioner.client.subscribe("helexa.provisioner.depart.*")
        assert await provisioner.refused() == []
        inbox = neuron.client.new_inbox()
        answers = await neuron.client.subscribe(inbox)
        await neuron.client.publish(f"helexa.provisioner.depart.{OWN}", b"", reply=inbox)
        await (await served.next_msg(5)).respond(b"goodbye")
        assert (await answers.next_msg(5)).data == b"goodbye"

        await neuron.client.publish(f"helexa.provisioner.depart.{OWN}", b"", reply=theirs)
        request = await served.next_msg(5)

        assert request.reply == theirs
        assert not request.reply.startswith(subjects.INBOX)


async def test_an_answer_goes_to_its_asker_and_nowhere_else(site: Site) -> None:
    theirs = f"helexa.neuron.{encode_token(OTHER)}.drain"
    async with site.user(Role.GATEWAY) as gateway, site.user(Role.NEURON, OWN) as neuron:
        served = await neuron.client.subscribe(f"helexa.neuron.{OWN}.execute")
        assert await neuron.refused() == []
        await gateway.client.publish(f"helexa.neuron.{OWN}.execute", b"", reply=theirs)

        await (await served.next_msg(5)).respond(b"")

        assert refused_subjects(await neuron.refused()) == {theirs.lower()}


@pytest.mark.parametrize("seed", [None, Identity.generate().seed])
async def test_a_stranger_is_not_let_in(site: Site, seed: str | None) -> None:
    server = urlsplit(site.url)
    reader, writer = await asyncio.open_connection(server.hostname, server.port)
    hello = json.loads((await reader.readline()).removeprefix(b"INFO "))
    fields: dict[str, object] = {"verbose": False, "protocol": 1}
    if seed is not None:
        stranger = Identity.from_seed(seed)
        signature = base64.urlsafe_b64encode(stranger.sign(hello["nonce"].encode())).decode()
        fields |= {"nkey": stranger.public, "sig": signature.rstrip("=")}

    writer.write(f"CONNECT {json.dumps(fields)}\r\nPING\r\n".encode())

    assert await reader.readline() == b"-ERR 'Authorization Violation'\r\n"
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("neuron_id", [None, "", "ctl", "x" * 200])
def test_a_neuron_needs_an_id_that_may_be_one(neuron_id: str | None) -> None:
    with pytest.raises(BadRequestError):
        permissions_for(Role.NEURON, neuron_id)


def test_the_table_shows_every_role() -> None:
    table = {row.role: row.permissions for row in matrix()}

    assert set(table) == set(Role)
    assert table[Role.METRICS].publish == ()
    assert table[Role.ENROLMENT].publish == (subjects.ENROL.subject,)
    assert "helexa.tokens.*.{neuron}.*" in table[Role.NEURON].publish
