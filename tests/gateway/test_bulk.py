# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Bulk work at the gateway: queued, claimed by neurons that pull, answered as any other."""

import asyncio
import hashlib
import shutil
import time
from collections.abc import Awaitable, Callable

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.gateway.conftest import MODEL, Site
from tests.gateway.roles import PATIENCE_S, Neuron, Provisioner, Run, hello, soon
from typing_extensions import override

from helexa.gateway.authority import Caller, Claim, SettingsAuthority
from helexa.protocol import resources, subjects
from helexa.protocol.codec import unpack
from helexa.protocol.errors import (
    BackendError,
    BusyError,
    ForbiddenError,
    HelexaError,
    ModelLoadingError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from helexa.protocol.messages.bulk import BulkJob, ClaimRequest
from helexa.protocol.messages.execution import ExecuteRequest, TokenUsage
from helexa.protocol.messages.provisioning import Ensured
from helexa.protocol.naming import encode_token

CHAT = "/v1/chat/completions"
BULK = {"x-helexa-priority": "bulk"}
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
STREAM = ASK | {"stream": True}


def text_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["choices"][0]["message"]["content"]
    return found


async def ask(http: httpx.AsyncClient, **more: object) -> httpx.Response:
    return await http.post(CHAT, json=ASK | more, headers=BULK)


async def queued(site: Site) -> int:
    """Return how many jobs the queue holds."""
    info = await site.bus.jetstream.stream_info(resources.BULK.name)
    return int(info.state.messages)


async def number(http: httpx.AsyncClient, name: str) -> float:
    for family in text_string_to_metric_families((await http.get("/metrics")).text):
        if family.name == name:
            totals = [each for each in family.samples if not each.name.endswith("_created")]
            return sum(sample.value for sample in totals)
    return 0


async def until(is_true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await is_true():
            await asyncio.sleep(0.02)


async def until_queued(site: Site, jobs: int) -> None:
    async def are_there() -> bool:
        return await queued(site) == jobs

    await until(are_there)


async def claim(neuron: Neuron, gateway: str, ticket: str, *, by: str = "") -> ExecuteRequest:
    asked = ClaimRequest(ticket=ticket, neuron_id=by or neuron.name)
    return await neuron.bus.request(
        subjects.CLAIM,
        asked,
        deadline_s=PATIENCE_S,
        gateway=gateway,
        neuron=encode_token(neuron.name),
    )


async def hang(run: Run) -> None:
    await run.beat()
    await run.cancelled.wait()
    await run.fail(BackendError("cancelled"))


async def test_a_bulk_request_is_pulled_and_answered(
    http: httpx.AsyncClient, site: Site, neuron: Neuron
) -> None:
    assert text_of(await ask(http)) == "Hello, world"
    assert len(neuron.pulled) == 1
    streamed = await ask(http, stream=True)
    assert streamed.text.endswith("data: [DONE]\n\n")
    assert streamed.headers["x-helexa-workload"] == "ChatBulk"
    await until_queued(site, 0)
    assert await number(http, "helexa_bulk_claims") == 2
    assert await number(http, "helexa_bulk_redelivered") == 0


async def test_interactive_requests_do_not_wait_behind_bulk(
    http: httpx.AsyncClient, site: Site, neuron: Neuron
) -> None:
    neuron.has_room.clear()
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(ask(http)) for _ in range(20)]
    await until_queued(site, 20)
    assert text_of(await http.post(CHAT, json=ASK)) == "Hello, world"
    assert await number(http, "helexa_bulk_waiting") == 20
    assert len(neuron.runs) == 1
    neuron.has_room.set()
    for answer in await asyncio.gather(*waiting):
        assert text_of(answer) == "Hello, world"
    await until_queued(site, 0)
    assert await number(http, "helexa_bulk_waiting") == 0


async def test_a_job_is_given_to_one_neuron_and_to_it_again_if_it_did_not_hear(
    http: httpx.AsyncClient, site: Site, neuron: Neuron
) -> None:
    may_speak = asyncio.Event()

    async def script(run: Run) -> None:
        await may_speak.wait()
        await hello(run)

    neuron.script = script
    other = await site.neuron("n.2")
    other.has_room.clear()
    asking = asyncio.create_task(ask(http))
    await soon(neuron.began.wait())
    order, ticket = neuron.runs[0].request, unpack(BulkJob, neuron.pulled[0].data).ticket
    assert await claim(neuron, order.owner, ticket) == order
    with pytest.raises(BusyError):
        await claim(other, order.owner, ticket)
    with pytest.raises(NotFoundError):
        await claim(other, order.owner, f"{ticket}x")
    with pytest.raises(ForbiddenError):
        await claim(other, order.owner, ticket, by=neuron.name)
    may_speak.set()
    assert text_of(await asking) == "Hello, world"
    with pytest.raises(NotFoundError):
        await claim(other, order.owner, ticket)


async def test_a_client_that_leaves_the_queue_takes_its_job_along(
    http: httpx.AsyncClient, site: Site, neuron: Neuron
) -> None:
    neuron.has_room.clear()
    waiting = [asyncio.create_task(ask(http, stream=True)) for _ in range(5)]
    await until_queued(site, 5)
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await until_queued(site, 0)
    assert await number(http, "helexa_bulk_waiting") == 0
    assert neuron.runs == []


async def test_a_client_that_leaves_stops_the_neuron_that_pulled_its_job(
    http: httpx.AsyncClient, site: Site, neuron: Neuron
) -> None:
    neuron.script = hang
    asking = asyncio.create_task(ask(http))
    await soon(neuron.began.wait())
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await soon(neuron.cancels.get())
    await until_queued(site, 0)
    assert len(neuron.runs) == 1


async def test_a_client_that_waits_hears_something(site: Site, neuron: Neuron) -> None:
    neuron.has_room.clear()
    http = site.http(await site.gateway(heartbeat_s=0.3))
    async with http.stream("POST", CHAT, json=STREAM, headers=BULK) as answer:
        pieces = answer.aiter_bytes()
        for _ in range(3):
            before = time.monotonic()
            assert await anext(pieces) == b": keep-alive\n\n"
            assert time.monotonic() - before < 0.9
        neuron.has_room.set()
        rest = b"".join([piece async for piece in pieces])
    assert rest.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("bound", "status", "code"),
    [("bulk_limit", 503, "queue_full"), ("bulk_limit_per_key", 429, "rate_limit_exceeded")],
)
async def test_too_much_is_refused_at_once(
    site: Site, neuron: Neuron, bound: str, status: int, code: str
) -> None:
    neuron.has_room.clear()
    http = site.http(await site.gateway(**{bound: 2}))
    waiting = [asyncio.create_task(ask(http)) for _ in range(2)]
    await until_queued(site, 2)
    refused = await ask(http)
    assert refused.status_code == status
    assert refused.json()["error"]["code"] == code
    assert 1 <= int(refused.headers["retry-after"]) <= 120
    neuron.has_room.set()
    for answer in await asyncio.gather(*waiting):
        assert answer.status_code == 200


async def test_a_request_without_room_for_too_long_ends_in_one_error(
    site: Site, neuron: Neuron
) -> None:
    neuron.has_room.clear()
    http = site.http(await site.gateway(bulk_timeout_s=0.5))
    answer = await ask(http)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "no_capacity"
    assert 1 <= int(answer.headers["retry-after"]) <= 120
    await until_queued(site, 0)


async def test_a_failed_job_goes_to_another_neuron(
    http: httpx.AsyncClient, site: Site, neuron: Neuron
) -> None:
    async def broken(run: Run) -> None:
        await run.fail(BackendError("out of luck"))

    neuron.script = broken
    other = await site.neuron("n.2")
    other.has_room.clear()
    asking = asyncio.create_task(ask(http))
    await soon(neuron.began.wait())
    other.has_room.set()
    assert text_of(await asking) == "Hello, world"
    assert [run.request.attempt for run in other.runs] == [2]
    assert len(neuron.runs) == 1
    await until_queued(site, 0)


async def test_a_job_fails_after_so_many_neurons(site: Site, neuron: Neuron) -> None:
    async def broken(run: Run) -> None:
        await run.fail(BackendError("out of luck"))

    neuron.script = broken
    http = site.http(await site.gateway(max_attempts=2))
    answer = await ask(http)
    assert answer.json()["error"]["code"] == "backend_failed"
    assert [run.request.attempt for run in neuron.runs] == [1, 2]
    await until_queued(site, 0)


async def test_the_job_of_a_dead_neuron_is_handed_out_again(
    http: httpx.AsyncClient, site: Site, neuron: Neuron
) -> None:
    neuron.script = hang
    asking = asyncio.create_task(ask(http))
    await soon(neuron.began.wait())
    await neuron.die()
    other = await site.neuron("n.2")
    answer = await asking
    assert text_of(answer) == "Hello, world"
    assert answer.headers["x-helexa-attempts"] == "2"
    assert other.pulled[-1].deliveries >= 2
    await until_queued(site, 0)


async def test_a_stream_that_has_begun_waits_for_no_room(
    http: httpx.AsyncClient, site: Site, neuron: Neuron
) -> None:
    async def half(run: Run) -> None:
        await run.say("half")
        await run.fail(BackendError("out of luck"))

    async def rest(run: Run) -> None:
        assert run.request.continues == "half"
        await run.say(" and half")
        await run.done()

    neuron.script = half
    neuron.can_go_on = True
    await neuron.report()
    other = await site.neuron("n.2", rest)
    other.can_go_on = True
    other.has_room.clear()
    await other.report()
    answer = await ask(http, stream=True)
    assert '"half"' in answer.text
    assert '" and half"' in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")
    await until_queued(site, 0)


async def test_a_cold_model_is_ordered_once_and_waited_for(site: Site, neuron: Neuron) -> None:
    provisioner = Provisioner(site.bus, Ensured(state="loading"))
    await provisioner.serve()
    site.scheduler.error = ModelLoadingError()
    neuron.has_room.clear()
    http = site.http(await site.gateway())
    waiting = [asyncio.create_task(ask(http)) for _ in range(5)]
    await until_queued(site, 5)
    assert len(provisioner.asked) == 1
    site.scheduler.error = None
    neuron.has_room.set()
    for answer in await asyncio.gather(*waiting):
        assert text_of(answer) == "Hello, world"


async def test_a_model_that_cannot_be_loaded_fails_all_who_wait(site: Site, neuron: Neuron) -> None:
    provisioner = Provisioner(site.bus, Ensured(state="loading"))
    await provisioner.serve()
    site.scheduler.error = ModelLoadingError()
    neuron.has_room.clear()
    http = site.http(await site.gateway())
    waiting = [asyncio.create_task(ask(http)) for _ in range(5)]
    await until_queued(site, 5)
    provisioner.answer = Ensured(state="impossible", reason="too large")
    await neuron.die()
    await neuron.report(state="failed", error="out of memory")
    answers = await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE_S)
    assert {each.json()["error"]["code"] for each in answers} == {"model_failed"}
    await until_queued(site, 0)


async def test_what_nobody_could_do_is_refused_at_once(site: Site, neuron: Neuron) -> None:
    neuron.has_room.clear()
    site.scheduler.error = UnsupportedError("no replica can do that", param="model")
    http = site.http(await site.gateway())
    answer = await ask(http)
    assert answer.status_code == 400
    assert await queued(site) == 0


async def test_a_neuron_that_cannot_do_it_does_not_get_it(
    http: httpx.AsyncClient, neuron: Neuron
) -> None:
    answer = asyncio.create_task(ask(http, helexa={"avoid_neurons": [neuron.name]}))
    declined = await asyncio.wait_for(neuron.declined.get(), PATIENCE_S)
    assert isinstance(declined, BusyError)
    assert neuron.runs == []
    answer.cancel()
    await asyncio.gather(answer, return_exceptions=True)


async def test_who_cannot_have_one_job_gets_the_next(
    http: httpx.AsyncClient, site: Site, neuron: Neuron
) -> None:
    neuron.has_room.clear()
    unwanted = asyncio.create_task(ask(http, helexa={"avoid_neurons": [neuron.name]}))
    await until_queued(site, 1)
    wanted = asyncio.create_task(ask(http))
    await until_queued(site, 2)
    neuron.has_room.set()
    assert text_of(await wanted) == "Hello, world"
    other = await site.neuron("n.2")
    assert text_of(await unwanted) == "Hello, world"
    assert len(other.runs) == 1
    await until_queued(site, 0)


async def test_keys_take_turns_however_much_one_of_them_has_queued(
    site: Site, neuron: Neuron
) -> None:
    served: list[str] = []
    one_at_a_time = asyncio.Lock()

    async def script(run: Run) -> None:
        async with one_at_a_time:
            served.append(run.request.account)
            await hello(run)

    neuron.script = script
    neuron.has_room.clear()
    keys = [hashlib.sha256(key.encode()).hexdigest() for key in ("many", "few")]
    running = await site.gateway(api_keys=keys)
    many, few = site.http(running, "many"), site.http(running, "few")
    waiting = [asyncio.create_task(ask(many)) for _ in range(20)]
    await until_queued(site, 20)
    waiting += [asyncio.create_task(ask(few)) for _ in range(3)]
    await until_queued(site, 23)
    neuron.has_room.set()
    for answer in await asyncio.gather(*waiting):
        assert text_of(answer) == "Hello, world"
    assert served.count(keys[1]) == 3
    assert [key for key in served[:8] if key == keys[1]] == [keys[1]] * 3


async def test_a_gateway_that_stops_sends_away_who_waits(site: Site, neuron: Neuron) -> None:
    neuron.has_room.clear()
    running = await site.gateway()
    http = site.http(running)
    waiting = asyncio.create_task(ask(http))
    await until_queued(site, 1)
    running.life.stop.ask("test")
    ending = asyncio.create_task(running.life.end())
    answer = await asyncio.wait_for(waiting, PATIENCE_S)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "shutting_down"
    assert answer.headers["retry-after"]
    await soon(ending)
    await until_queued(site, 0)


async def test_jobs_outlive_a_restart_of_the_server(site: Site, neuron: Neuron) -> None:
    neuron.has_room.clear()
    http = site.http(await site.gateway())
    waiting = [asyncio.create_task(ask(http)) for _ in range(5)]
    await until_queued(site, 5)
    site.broker.stop(kill=True)
    site.broker.start()
    neuron.has_room.set()
    for answer in await asyncio.gather(*waiting):
        assert text_of(answer) == "Hello, world"
    await until_queued(site, 0)


async def test_jobs_that_the_server_has_lost_are_queued_again(site: Site, neuron: Neuron) -> None:
    neuron.has_room.clear()
    http = site.http(await site.gateway())
    waiting = [asyncio.create_task(ask(http)) for _ in range(5)]
    await until_queued(site, 5)
    site.broker.stop(kill=True)
    shutil.rmtree(site.broker.directory / "store")
    site.broker.start()
    neuron.has_room.set()
    for answer in await asyncio.gather(*waiting):
        assert text_of(answer) == "Hello, world"


class Books(SettingsAuthority):
    """Notes what is set aside, or says that it cannot be."""

    def __init__(self) -> None:
        super().__init__((), is_open=True)
        self.held: list[str] = []
        self.settled: list[str] = []
        self.errors: list[HelexaError] = []

    @override
    async def hold(self, caller: Caller, claim: Claim) -> None:
        assert caller.portal
        if self.errors:
            raise self.errors.pop(0)
        self.held.append(claim.request_id)

    @override
    async def settle(self, caller: Caller, claim: Claim, usage: TokenUsage | None) -> None:
        assert caller.portal
        assert usage is not None
        self.settled.append(claim.request_id)


@pytest.fixture
def books(monkeypatch: pytest.MonkeyPatch) -> Books:
    made = Books()
    monkeypatch.setattr("helexa.gateway.__main__.settings_authority", lambda _: made)
    return made


async def test_the_cost_is_set_aside_when_a_neuron_pulls(
    site: Site, neuron: Neuron, books: Books
) -> None:
    neuron.has_room.clear()
    http = site.http(await site.gateway())
    asking = asyncio.create_task(ask(http))
    await until_queued(site, 1)
    assert books.held == []
    books.errors = [UnavailableError("the books are away")]
    neuron.has_room.set()
    assert isinstance(await asyncio.wait_for(neuron.declined.get(), PATIENCE_S), BusyError)
    answer = await asking
    assert text_of(answer) == "Hello, world"
    assert books.held == books.settled == [answer.headers["x-request-id"]]


async def test_a_request_that_cannot_be_paid_for_ends_when_it_is_pulled(
    site: Site, neuron: Neuron, books: Books
) -> None:
    books.errors = [ForbiddenError("no money")]
    http = site.http(await site.gateway())
    answer = await ask(http)
    assert answer.status_code == 403
    assert neuron.runs == []
    assert books.settled == []
    await until_queued(site, 0)
