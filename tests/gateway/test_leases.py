# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Requests that are served by a decision that a scheduler took for another one."""

import asyncio
import json

from tests.gateway.conftest import MODEL, Site
from tests.gateway.roles import PATIENCE_S, Neuron

from helexa.gateway.authority import Caller
from helexa.gateway.dialect import read_order
from helexa.gateway.leases import Leases
from helexa.gateway.order import Customs
from helexa.gateway.work import Work
from helexa.protocol import subjects
from helexa.protocol.errors import BusyError
from helexa.protocol.messages.execution import Operation
from helexa.protocol.messages.models import ModelId
from helexa.protocol.messages.routing import Feedback, Lease, RoutingDecision, Target

CHAT = "/v1/chat/completions"
ALWAYS = Lease(for_s=60, uses=100, any_prompt=True)
Ask = dict[str, object]


def ask(text: str = "hi", **more: object) -> Ask:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}


async def test_under_a_lease_the_scheduler_is_asked_once(site: Site, neuron: Neuron) -> None:
    site.scheduler.lease = ALWAYS
    http = site.http(await site.gateway())
    for _ in range(5):
        assert (await http.post(CHAT, json=ask())).status_code == 200
    assert len(site.scheduler.asked) == 1
    assert {run.request.decision_id for run in neuron.runs} == {"decision-1"}


async def test_a_lease_serves_as_many_requests_as_it_says(site: Site, neuron: Neuron) -> None:
    site.scheduler.lease = Lease(for_s=60, uses=2, any_prompt=True)
    http = site.http(await site.gateway())
    for _ in range(6):
        await http.post(CHAT, json=ask())
    assert len(site.scheduler.asked) == 2
    assert len(neuron.runs) == 6


async def test_a_lease_that_is_over_is_not_used(site: Site, neuron: Neuron) -> None:
    assert neuron.name
    site.scheduler.lease = Lease(for_s=0.001, uses=100, any_prompt=True)
    http = site.http(await site.gateway())
    for _ in range(3):
        await http.post(CHAT, json=ask())
    assert len(site.scheduler.asked) == 3


def test_leases_that_are_over_are_not_kept() -> None:
    leases = Leases()
    for number in range(20):
        leases.keep(work(f"You are number {number}."), decision(number), now=number)
    assert leases.held == 2
    assert leases.use(work("You are number 19."), now=19.5) is not None
    assert leases.use(work("You are number 17."), now=19.5) is None


def work(system: str) -> Work:
    body = {"model": MODEL, "messages": [{"role": "system", "content": system}]}
    order = read_order(Operation.CHAT, json.dumps(body).encode(), Customs())
    return Work(request_id="g.r", order=order, caller=Caller(), model=MODEL)


def decision(number: int) -> RoutingDecision:
    return RoutingDecision(
        decision_id=f"d{number}",
        model=ModelId(MODEL),
        targets=(Target(neuron_id="n", score=0),),
        lease=Lease(for_s=1.5, uses=9),
    )


async def test_a_request_that_is_not_alike_gets_a_decision_of_its_own(
    site: Site, neuron: Neuron
) -> None:
    assert neuron.name
    site.scheduler.lease = ALWAYS
    http = site.http(await site.gateway())
    system = {"role": "system", "content": "Answer in verse."}
    others = [
        ask(max_tokens=2),
        ask(max_tokens=9),
        ask("a prompt that is a good deal longer than the one before it was", max_tokens=1),
        ask(max_tokens=2, helexa={"prefer_neurons": ["n.1"]}),
    ]
    for number, body in enumerate(others, 1):
        assert (await http.post(CHAT, json=body)).status_code == 200
        assert len(site.scheduler.asked) == number
    site.scheduler.lease = Lease(for_s=60, uses=100)
    await http.post(CHAT, json=ask(n=1, messages=[system]))
    before = len(site.scheduler.asked)
    await http.post(CHAT, json={"model": MODEL, "messages": [system], "user": "x"})
    assert len(site.scheduler.asked) == before


async def test_targets_that_are_alike_take_turns(site: Site) -> None:
    neurons = [await site.neuron(f"n.{number}") for number in range(3)]
    site.scheduler.lease = Lease(for_s=60, uses=100, alike=2, any_prompt=True)
    http = site.http(await site.gateway())
    for _ in range(8):
        await http.post(CHAT, json=ask())
    assert [len(each.runs) for each in neurons] == [4, 4, 0]


async def test_a_lease_whose_neurons_refuse_is_given_up_for_a_decision(site: Site) -> None:
    first = await site.neuron("n.1")
    site.scheduler.lease = ALWAYS
    http = site.http(await site.gateway())
    await http.post(CHAT, json=ask())
    first.refusal = BusyError()
    second = await site.neuron("n.2")
    assert (await http.post(CHAT, json=ask())).status_code == 200
    assert len(second.runs) == 1
    assert len(site.scheduler.asked) == 2


async def test_schedulers_are_told_what_was_served_by_a_lease(site: Site, neuron: Neuron) -> None:
    assert neuron.name
    told: asyncio.Queue[Feedback] = asyncio.Queue()
    await site.bus.subscribe(subjects.FEEDBACK, told.put_nowait)
    site.scheduler.lease = ALWAYS
    http = site.http(await site.gateway())
    served = [(await http.post(CHAT, json=ask())).headers["x-request-id"] for _ in range(3)]
    leased: list[str] = []
    while len(leased) < 2:
        async with asyncio.timeout(PATIENCE_S):
            leased += (await told.get()).leased.get("decision-1", ())
    assert leased == served[1:]
