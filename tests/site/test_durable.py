# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Streams, buckets and stores as the roles use them, under the roles' permissions."""

import asyncio

import pytest

from helexa.bus.bodies import get_body, put_body
from helexa.bus.buckets import Bucket, Mirror
from helexa.bus.client import Bus
from helexa.bus.journal import Journal
from helexa.bus.lease import Holder
from helexa.bus.resources import Durability, ensure_resources
from helexa.bus.tokenlog import append, last_sequence, read_log
from helexa.gateway.keyring import Keyring
from helexa.portal.accounts.audit import Audit
from helexa.portal.accounts.keys import ApiKeys
from helexa.portal.accounts.sessions import Sessions
from helexa.portal.accounts.terms import KeyTerms
from helexa.protocol import resources
from helexa.protocol.errors import ConflictError
from helexa.protocol.messages.accounts import User
from helexa.protocol.naming import digest_of, encode_token, random_id
from helexa.protocol.subjects import Role

from .conftest import OTHER, OWN, Site

PLACEMENTS = resources.PLACEMENTS


async def create_all(site: Site) -> None:
    for role in (Role.PROVISIONER, Role.GATEWAY, Role.PORTAL):
        async with site.bus(role) as bus:
            await ensure_resources(bus, role, Durability())


async def acknowledged(bus: Bus, subject: str, data: bytes) -> int:
    return (await bus.jetstream.publish(subject, data)).seq


async def test_a_bucket_is_written_by_its_writer_and_followed_by_its_readers(site: Site) -> None:
    await create_all(site)
    key = f"model {random_id()}"
    async with site.bus(Role.PROVISIONER) as provisioner, site.bus(Role.SCHEDULER) as scheduler:
        written = Bucket(provisioner, PLACEMENTS, Holder)
        mirror = Mirror(Bucket(scheduler, PLACEMENTS, Holder))
        changes: asyncio.Queue[tuple[str, Holder | None]] = asyncio.Queue()
        mirror.on_change(lambda name, value: changes.put_nowait((name, value)))
        running = asyncio.create_task(mirror.run())
        await mirror.wait_fresh()

        first = await written.replace(key, Holder(instance="a"), None)
        await written.replace(key, Holder(instance="b"), first)
        seen = [await changes.get(), await changes.get()]
        found = await mirror.bucket.get(key)
        await written.delete(key)
        seen.append(await changes.get())
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    assert seen == [(key, Holder(instance="a")), (key, Holder(instance="b")), (key, None)]
    assert found is not None
    assert found.value == Holder(instance="b")


async def test_a_reader_cannot_write_a_bucket(site: Site) -> None:
    await create_all(site)
    async with site.user(Role.SCHEDULER) as user:
        await user.client.publish("$KV.placements.m1", b"forged")
        assert len(await user.refused()) == 1
    async with site.bus(Role.PROVISIONER) as bus:
        assert await Bucket(bus, PLACEMENTS, Holder).get("m1") is None


async def test_a_role_cannot_open_a_bucket_that_is_not_its_own(site: Site) -> None:
    await create_all(site)
    async with site.user(Role.NEURON, OWN) as user:
        await user.client.publish("$JS.API.STREAM.INFO.KV_identities", b"")
        await user.client.publish("$JS.API.DIRECT.GET.KV_identities.$KV.identities.x", b"")
        assert len(await user.refused()) == 2


async def test_a_large_body_goes_from_gateway_to_neuron(site: Site) -> None:
    await create_all(site)
    body = bytes(range(256)) * 4096
    async with site.bus(Role.GATEWAY) as gateway, site.bus(Role.NEURON, OWN) as neuron:
        assert await get_body(neuron.jetstream, await put_body(gateway.jetstream, body)) == body


async def test_frames_are_kept_and_read_back_by_gateways(site: Site) -> None:
    await create_all(site)
    request = random_id()
    mine = f"helexa.tokens.g1.{OWN}.{request}"
    control = f"helexa.tokens.g1.ctl.{request}"
    async with site.bus(Role.GATEWAY) as gateway, site.bus(Role.NEURON, OWN) as neuron:
        first = await append(gateway, control, b"assign", after=0)
        await acknowledged(neuron, mine, b"frame")

        assert [kept.data for kept in await read_log(gateway, mine)] == [b"frame"]
        assert await last_sequence(gateway, control) == first


async def test_usage_is_sent_by_neurons_and_drained_by_the_portal(site: Site) -> None:
    await create_all(site)
    portal_id = random_id()
    async with site.bus(Role.PORTAL) as portal:
        for neuron in (OWN, OTHER):
            async with site.bus(Role.NEURON, neuron) as bus:
                subject = f"helexa.usage.{portal_id}.{encode_token(neuron)}"
                await acknowledged(bus, subject, neuron.encode())
        drain = await portal.jetstream.pull_subscribe(
            f"helexa.usage.{portal_id}.*", durable=f"drain-{portal_id}", stream="USAGE"
        )
        batch = await drain.fetch(2, timeout=5)
        for message in batch:
            await message.ack_sync(timeout=5)
        left = await portal.jetstream.stream_info("USAGE")

    assert sorted(message.data.decode() for message in batch) == sorted([OWN, OTHER])
    assert left.state.messages == 0


async def test_a_journal_is_extended_and_read_by_portals_alone(site: Site) -> None:
    await create_all(site)
    subject = resources.LEDGER.subjects[0]
    async with site.bus(Role.PORTAL) as writer, site.bus(Role.PORTAL) as reader:
        journal, copy = Journal(writer, resources.LEDGER), Journal(reader, resources.LEDGER)
        last = await journal.last()
        async with copy.heard():
            await journal.append(b"block", after=last)
            await copy.wait_news()
        with pytest.raises(ConflictError):
            await journal.append(b"another", after=last)
        assert [kept.data async for kept in copy.read(last + 1)] == [b"block"]
        lease = Bucket(writer, resources.PORTAL_LEASES, Holder)
        await lease.put("ledger", Holder(instance="a"))
    for role in (Role.GATEWAY, Role.PROVISIONER):
        async with site.user(role) as user:
            await user.client.publish(subject, b"forged")
            await user.client.publish("$KV.portal_leases.ledger", b"forged")
            assert len(await user.refused()) == 2


async def test_events_are_kept_and_read_by_the_admin(site: Site) -> None:
    await create_all(site)
    past = f"seen-{random_id()}"
    async with site.bus(Role.GATEWAY) as gateway, site.bus(Role.ADMIN) as admin:
        await acknowledged(gateway, f"helexa.event.gateway.{past}", b"{}")
        events = await admin.jetstream.subscribe(
            f"helexa.event.*.{past}", ordered_consumer=True, stream="EVENTS"
        )

        assert (await events.next_msg(5)).data == b"{}"


async def test_keys_are_made_by_the_portal_and_read_by_gateways(site: Site) -> None:
    await create_all(site)
    user = User(user_id=random_id(), portal="p", address="a@b.org", password_hash="x")
    async with site.bus(Role.PORTAL) as portal, site.bus(Role.GATEWAY) as gateway:
        keys, keyring = ApiKeys(portal, Audit(portal)), Keyring(gateway, wait_s=5)
        following = [asyncio.create_task(each.run()) for each in (keys, keyring)]
        async with asyncio.timeout(20):
            while not keys.is_fresh:
                await asyncio.sleep(0.01)
            made = await keys.create(user, KeyTerms())
            while not (caller := await keyring.find(digest_of(made.secret))):
                await asyncio.sleep(0.01)
        session = await Sessions(portal).open(user, 0)
        assert await Sessions(portal).find(session.secret) == session.session
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        kept = await portal.jetstream.stream_info("KV_sessions")

    assert (caller.account, caller.portal) == (user.user_id, "p")
    assert kept.config.max_age == resources.SESSION_S


async def test_a_gateway_neither_makes_keys_nor_reads_accounts(site: Site) -> None:
    await create_all(site)
    async with site.user(Role.GATEWAY) as user:
        await user.client.publish("$KV.keys.abc", b"forged")
        await user.client.publish("$JS.API.DIRECT.GET.KV_accounts.$KV.accounts.x", b"")
        await user.client.publish("$JS.API.STREAM.UPDATE.KV_keys", b"{}")
        assert len(await user.refused()) == 3
