# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import asyncio
from pathlib import Path

import pytest

from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.bus.service import Service
from helexa.protocol import subjects
from helexa.protocol.errors import UnavailableError
from helexa.protocol.messages.neurons import Enrolled, EnrolRequest
from helexa.protocol.subjects import Role, inbox_prefix
from helexa.site.enrolment import EnrolledUsers, make_join_token, parse_join_token
from helexa.site.errors import ReloadError
from helexa.site.keys import Identity, verify
from helexa.site.reload import reload_servers

from .conftest import OWN, NewSite, Site


def enrol(site: Site, neuron: str, public: str) -> None:
    path = site.data.neurons_conf
    EnrolledUsers.load(path).add_neuron(neuron, public).save(path)


async def test_a_new_neuron_is_let_in_and_nobody_is_dropped(
    new_site: NewSite, tmp_path: Path
) -> None:
    async with (
        new_site(tmp_path) as site,
        site.system() as system,
        site.user(Role.GATEWAY) as gateway,
        site.user(Role.NEURON, OWN) as neuron,
    ):
        inbox = await gateway.client.subscribe(f"{inbox_prefix(Role.GATEWAY)}.>")
        assert await gateway.refused() == []
        newcomer = Identity.load_or_create(site.data.neuron_key("new"))
        enrol(site, "new", newcomer.public)

        await reload_servers(system)

        async with site.user(Role.NEURON, "new") as joined:
            await joined.client.publish("helexa.neuron.new.status", b"")
            assert await joined.refused() == []
        await gateway.client.publish("helexa.scheduler.schedule", b"", reply="_INBOX_gateway.x")
        assert "503" in ((await inbox.next_msg(5)).headers or {}).values()
        assert await neuron.refused() == []
        assert gateway.client.is_connected
        assert neuron.client.stats["reconnects"] == gateway.client.stats["reconnects"] == 0


async def test_a_request_in_work_is_answered_after_a_reload(site: Site) -> None:
    async with (
        site.system() as system,
        site.user(Role.GATEWAY) as gateway,
        site.user(Role.SCHEDULER) as scheduler,
    ):
        served = await scheduler.client.subscribe(subjects.SCHEDULE.subject)
        assert await scheduler.refused() == []
        asked = asyncio.create_task(gateway.client.request(subjects.SCHEDULE.subject, timeout=10))
        request = await served.next_msg(5)

        await reload_servers(system)
        await request.respond(b"late")

        assert (await asked).data == b"late"


async def test_a_thousand_neurons_are_read_again_in_time(new_site: NewSite, tmp_path: Path) -> None:
    async with (
        new_site(tmp_path) as site,
        site.system() as system,
        site.user(Role.NEURON, OWN) as neuron,
    ):
        users = EnrolledUsers.load(site.data.neurons_conf)
        for number in range(1000):
            users = users.add_neuron(f"host-{number}", Identity.generate().public)
        users.save(site.data.neurons_conf)

        await reload_servers(system, deadline_s=5)

        assert await neuron.refused() == []
        assert neuron.client.is_connected


async def test_a_removed_neuron_is_put_out(new_site: NewSite, tmp_path: Path) -> None:
    async with (
        new_site(tmp_path) as site,
        site.system() as system,
        site.user(Role.NEURON, OWN) as neuron,
    ):
        path = site.data.neurons_conf
        EnrolledUsers.load(path).remove_neuron(OWN).save(path)
        await reload_servers(system)

        await asyncio.wait_for(neuron.closed.wait(), 5)


async def test_a_broken_file_is_reported_and_changes_nothing(
    new_site: NewSite, tmp_path: Path
) -> None:
    async with (
        new_site(tmp_path) as site,
        site.system() as system,
        site.user(Role.NEURON, OWN) as neuron,
    ):
        site.data.neurons_conf.write_text("users: [")

        with pytest.raises(ReloadError, match="test: error parsing include file"):
            await reload_servers(system)

        assert await neuron.refused() == []
        async with site.user(Role.GATEWAY) as gateway:
            assert await gateway.refused() == []


async def test_a_server_that_is_missing_is_reported(site: Site) -> None:
    async with site.system() as system:
        with pytest.raises(UnavailableError, match="1 of the site's 2 servers"):
            await reload_servers(system, expected=2, deadline_s=0.2)


async def test_an_ordinary_user_cannot_reload(site: Site) -> None:
    async with site.bus(Role.PROVISIONER) as bus:
        with pytest.raises(UnavailableError, match="0 of the site's 1 servers"):
            await reload_servers(bus, deadline_s=0.2)


@pytest.mark.parametrize(
    "subject", ["$SYS.REQ.SERVER.PING.CONNZ", "$SYS.REQ.SERVER.X.KICK", "helexa.provisioner.ensure"]
)
async def test_the_system_user_can_do_nothing_else(
    site: Site, subject: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with site.system() as system:
        with pytest.raises(TimeoutError):
            await system.client.request(subject, b"", timeout=0.2)

    assert f'permissions violation for publish to "{subject.lower()}"' in str(
        [vars(record) for record in caplog.records]
    )


async def test_a_join_token_lets_a_host_ask_and_nothing_else(site: Site) -> None:
    path = site.data.role_key(Role.ENROLMENT)
    token = make_join_token(Identity.load(path).seed, [site.url])
    newcomer = Identity.generate()

    async def accept(request: EnrolRequest) -> Enrolled:
        assert verify(request.public_key, request.nonce, request.signature)
        return Enrolled(neuron_id=request.neuron_id)

    async with site.bus(Role.PROVISIONER) as provisioner:
        service = Service(provisioner, "provisioner", instance="i1", version="1")
        await service.serve(subjects.ENROL, accept)
        identity, urls = parse_join_token(token)
        connection = Connection(urls, "join", identity.seed, inbox_prefix(Role.ENROLMENT))
        async with Bus(connection) as joining:
            await joining.wait_connected()
            request = EnrolRequest(
                neuron_id="new",
                public_key=newcomer.public,
                nonce=b"n",
                signature=newcomer.sign(b"n"),
            )
            assert await joining.request(subjects.ENROL, request, deadline_s=5) == Enrolled(
                neuron_id="new"
            )
        await service.drain(1)
