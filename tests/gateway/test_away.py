# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Somebody is away for a moment: clients wait instead of failing."""

import asyncio

import httpx
from nats.aio.msg import Msg
from tests.gateway.conftest import MODEL, Site
from tests.gateway.roles import PATIENCE_S, Neuron, Provisioner, Scheduler, soon

from helexa.gateway.fleet import SILENT_S, Fleet
from helexa.gateway.peers import Peers
from helexa.protocol import subjects
from helexa.protocol.errors import ModelLoadingError, UnavailableError
from helexa.protocol.messages.provisioning import Ensured
from helexa.protocol.messages.routing import GatewayBeat
from helexa.protocol.reports import NeuronReport

CHAT = "/v1/chat/completions"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


async def test_a_request_waits_for_a_scheduler_that_starts_again(
    site: Site, neuron: Neuron
) -> None:
    http = site.http(await site.gateway())
    await site.scheduler.service.drain(0)
    asking = asyncio.create_task(http.post(CHAT, json=ASK))
    await soon(until_served(http))
    again = Scheduler(site.bus)
    again.targets.append(neuron.name)
    await again.serve()
    assert (await asyncio.wait_for(asking, PATIENCE_S)).status_code == 200


async def test_a_cold_model_waits_for_a_provisioner_that_is_not_ready(
    site: Site, neuron: Neuron
) -> None:
    http = site.http(await site.gateway())
    site.scheduler.error = ModelLoadingError()
    provisioner = Provisioner(site.bus, Ensured(state="loading"))
    provisioner.error = UnavailableError("the site's state is being read")
    await provisioner.serve()
    asking = asyncio.create_task(http.post(CHAT, json=ASK))
    await soon(provisioner.was_asked.wait())
    provisioner.error = site.scheduler.error = None
    while not asking.done():
        await neuron.report()
        await asyncio.sleep(0.05)
    assert asking.result().status_code == 200


async def test_a_scheduler_that_hangs_costs_a_moment_only(site: Site, neuron: Neuron) -> None:
    assert neuron.name
    http = site.http(await site.gateway(away_timeout_s=0))
    hanging = 0

    async def hang(_: Msg) -> None:
        nonlocal hanging
        hanging += 1

    await site.bus.client.subscribe(subjects.SCHEDULE.subject, queue="scheduler", cb=hang)
    answers = await asyncio.gather(*(http.post(CHAT, json=ASK) for _ in range(20)))
    assert hanging > 0
    assert {answer.status_code for answer in answers} == {200}


async def test_requests_wait_for_the_server_to_come_back(site: Site, neuron: Neuron) -> None:
    assert neuron.name
    http = site.http(await site.gateway())
    site.broker.stop(kill=True)
    asking = asyncio.create_task(http.post(CHAT, json=ASK))
    await soon(until_served(http))
    site.broker.start()
    assert (await asyncio.wait_for(asking, PATIENCE_S)).status_code == 200


async def until_served(http: httpx.AsyncClient) -> None:
    while "helexa_inflight_requests 1.0" not in (await http.get("/metrics")).text:
        pass


def status(name: str) -> NeuronReport:
    return NeuronReport(neuron_id=name, instance="i", sequence=1)


def test_who_hears_nothing_calls_nobody_silent() -> None:
    fleet = Fleet()
    for name, at in (("n1", 0.0), ("n2", 0.5)):
        fleet.hear(at)
        fleet.take(status(name), at)
    assert fleet.silence_s("n1", 100.0) < SILENT_S
    assert fleet.neurons(100.0) == 2
    assert fleet.hear(100.0)
    fleet.take(status("n2"), 100.0)
    assert fleet.silence_s("n1", 100.0) < SILENT_S


def test_who_hears_others_notices_who_is_silent() -> None:
    fleet = Fleet()
    fleet.hear(0.0)
    fleet.take(status("n1"), 0.0)
    assert not any(fleet.hear(float(at)) for at in range(1, 5))
    assert fleet.silence_s("n1", 4.0) > SILENT_S
    assert fleet.neurons(4.0) == 0


def test_a_gateway_that_does_not_hear_itself_calls_no_other_one_gone() -> None:
    peers = Peers("me", 0.0)
    peers.take(GatewayBeat(gateway="other", requests=0), 1.0)
    assert not peers.is_gone("other", 100.0)
    peers.take(GatewayBeat(gateway="me", requests=0), 5.0)
    assert peers.is_gone("other", 100.0)
