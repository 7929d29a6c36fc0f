# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Who waits, and for how long: shares, priorities, callers without a key, bounds."""

import asyncio
import signal
from collections import Counter

import httpx
import pytest
from tests.gateway.conftest import MODEL, Site
from tests.gateway.roles import PATIENCE_S, Run
from tests.gateway.slotted import COMPLETIONS, Crowd, SlottedNeuron, crowd, digest_of, said, slotted

from helexa.protocol import subjects
from helexa.protocol.messages.events import MetricsReport
from helexa.protocol.messages.routing import GatewayBeat


async def gather_runs(neuron: SlottedNeuron, count: int) -> list[Run]:
    return [await neuron.next() for _ in range(count)]


def holders(runs: list[Run], *names: str) -> Counter[str]:
    """Return how many of `runs` each of `names` has."""
    known = {digest_of(name): name for name in names} | {"": ""}
    return Counter(known[run.request.account] for run in runs)


def refused(answer: httpx.Response, status: int, code: str) -> None:
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert error["type"] == ("rate_limit_error" if status == 429 else "server_error")
    assert 1 <= int(answer.headers["retry-after"]) <= 120
    assert answer.headers["x-should-retry"] == "true"


async def test_a_key_with_a_long_line_delays_another_key_by_one_answer_at_most(
    site: Site,
) -> None:
    many = await crowd(site, 1, "ada", "bea")
    for _ in range(40):
        many.ask("ada")
    running = await many.neuron.next()
    await many.until_waiting(39)
    await many.queue("bea")
    many.neuron.end(running)
    assert (await many.neuron.next()).request.account == digest_of("bea")


async def test_a_key_keeps_no_more_than_its_share_while_others_wait(site: Site) -> None:
    many = await crowd(site, 4, "ada", "bea")
    for _ in range(12):
        many.ask("ada")
    running = await gather_runs(many.neuron, 4)
    for _ in range(12):
        many.ask("bea")
    await many.until_waiting(20)
    for turn in range(10):
        first = running.pop(0)
        many.neuron.end(first)
        running.append(await many.neuron.next())
        if turn:
            assert holders(running, "ada", "bea") == {"ada": 2, "bea": 2}, turn
    for run in running:
        many.neuron.end(run)
    assert {answer.status_code for answer in await many.end_all()} == {200}


async def test_the_urgent_go_first_and_requests_of_a_class_in_their_order(site: Site) -> None:
    many = await crowd(site, 1, "ada")
    many.ask("ada")
    running = await many.neuron.next()
    await many.queue("ada", "bulk 1", priority="bulk")
    await many.queue("ada", "bulk 2", tier="flex")
    await many.queue("ada", "default 1")
    await many.queue("ada", "default 2", tier="auto")
    await many.queue("ada", "urgent 1", tier="priority")
    await many.queue("ada", "urgent 2", priority="interactive", tier="flex")
    order = []
    for _ in range(6):
        many.neuron.end(running)
        running = await many.neuron.next()
        order.append(said(running))
    many.neuron.end(running)
    assert order == ["urgent 1", "urgent 2", "default 1", "default 2", "bulk 1", "bulk 2"]
    answers = await many.end_all()
    classes = [answer.headers["x-helexa-priority"] for answer in answers]
    assert classes == ["default", "bulk", "bulk", "default", "default"] + ["interactive"] * 2
    tiers = [answer.json().get("service_tier") for answer in answers]
    assert tiers == [None, None, "flex", None, "default", "priority", "priority"]


async def test_a_class_that_does_not_exist_is_400(site: Site) -> None:
    many = await crowd(site, 1, "ada")
    header = await many.ask("ada", priority="urgent")
    field = await many.ask("ada", tier="gold")
    number = await many.http("ada").post(COMPLETIONS, json={"model": MODEL, "service_tier": 1})
    for answer, name in (
        (header, "x-helexa-priority"),
        (field, "service_tier"),
        (number, "service_tier"),
    ):
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
    taken = many.ask("ada", priority="Interactive", tier="scale")
    many.neuron.end(run := await many.neuron.next())
    assert (await taken).status_code == 200
    assert b"service_tier" not in run.request.body


@pytest.mark.parametrize("claimed", ["", "interactive"])
async def test_who_has_no_key_leaves_the_last_seat_and_goes_after_all_others(
    site: Site, claimed: str
) -> None:
    many = await crowd(site, 3, "ada", open=True)
    for _ in range(5):
        many.ask("", priority=claimed)
    running = await gather_runs(many.neuron, 2)
    await many.until_waiting(3)
    many.ask("ada")
    running.append(await many.neuron.next())
    assert holders(running, "ada") == {"": 2, "ada": 1}
    await many.until_waiting(3)
    await many.queue("ada", priority="bulk")
    many.neuron.end(running[0])
    running.append(await many.neuron.next())
    assert running[-1].request.account == digest_of("ada")
    await many.until_waiting(3)
    for run in running[1:]:
        many.neuron.end(run)
    assert {answer.status_code for answer in await many.end_all()} == {200}


async def test_where_nobody_has_a_key_everybody_may_use_everything(site: Site) -> None:
    many = await crowd(site, 2, queue_limit=3, queue_limit_per_key=1)
    for _ in range(5):
        many.ask("")
    await gather_runs(many.neuron, 2)
    await many.until_waiting(3)
    refused(await many.ask(""), 503, "queue_full")
    many.tasks.pop()
    many.neuron.started.put_nowait(many.neuron.runs[0])
    many.neuron.started.put_nowait(many.neuron.runs[1])
    assert {answer.status_code for answer in await many.end_all()} == {200}


async def test_the_only_seat_is_for_everybody(site: Site) -> None:
    many = await crowd(site, 1, "ada", open=True)
    answer = many.ask("")
    many.neuron.end(await many.neuron.next())
    assert (await answer).status_code == 200


async def test_who_has_no_key_leaves_the_last_place_in_the_line_and_gives_up_its_own(
    site: Site,
) -> None:
    many = await crowd(site, 1, "ada", open=True, queue_limit=3)
    many.ask("ada")
    running = await many.neuron.next()
    first = await many.queue("")
    second = await many.queue("")
    refused(await many.ask(""), 503, "queue_full")
    kept = [await many.queue("ada")]
    for given_up in (second, first):
        kept.append(many.ask("ada"))
        refused(await given_up, 503, "queue_full")
    refused(await many.ask("ada"), 503, "queue_full")
    many.tasks = kept
    many.neuron.end(running)
    assert {answer.status_code for answer in await many.end_all()} == {200}


async def test_a_key_has_a_bound_of_its_own(site: Site) -> None:
    many = await crowd(site, 1, "ada", "bea", queue_limit=3, queue_limit_per_key=2)
    kept = [many.ask("ada")]
    running = await many.neuron.next()
    kept += [await many.queue("ada") for _ in range(2)]
    refused(await many.ask("ada"), 429, "rate_limit_exceeded")
    kept.append(await many.queue("bea"))
    refused(await many.ask("bea"), 503, "queue_full")
    many.tasks = kept
    many.neuron.end(running)
    assert {answer.status_code for answer in await many.end_all()} == {200}


async def test_each_of_two_gateways_takes_half_of_the_bounds(site: Site) -> None:
    heard: asyncio.Queue[GatewayBeat] = asyncio.Queue()
    many = await crowd(site, 1, "ada", queue_limit=4)
    other = await site.gateway(api_keys=(digest_of("ada"),), queue_limit=4)
    await site.bus.subscribe(subjects.GATEWAY_BEAT, heard.put_nowait)
    beaten: Counter[str] = Counter()
    while len(beaten) < 2 or min(beaten.values()) < 2:
        beaten[(await asyncio.wait_for(heard.get(), PATIENCE_S)).gateway] += 1
    many.ask("ada")
    await many.neuron.next()
    for gateway in (many.at, other):
        here = Crowd(site, gateway, many.neuron)
        for _ in range(2):
            await here.queue("ada")
        refused(await here.ask("ada"), 503, "queue_full")


async def test_requests_that_are_cancelled_while_they_wait_leave_nothing_behind(
    site: Site,
) -> None:
    many = await crowd(site, 1, "ada", "bea", queue_limit=30, queue_limit_per_key=20)
    many.ask("ada")
    running = await many.neuron.next()
    for _ in range(3):
        waiting = [many.ask("ada") for _ in range(20)] + [many.ask("bea") for _ in range(10)]
        await many.until_waiting(30)
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await many.until_waiting(0)
    many.tasks = many.tasks[:1] + [many.ask("ada") for _ in range(20)]
    await many.until_waiting(20)
    many.neuron.end(running)
    assert {answer.status_code for answer in await many.end_all()} == {200}
    assert many.neuron.cancels.empty()


@pytest.mark.accepts("CX-27")
async def test_on_sigterm_whoever_waits_is_sent_away_and_the_process_ends(
    site: Site,
) -> None:
    neuron = await slotted(site, 1)
    process = await site.process(HELEXA_GATEWAY_GRACE_S="6")
    many = Crowd(site, process, neuron)
    many.ask("")
    await neuron.next()
    waiting = [await many.queue("") for _ in range(5)]
    process.process.send_signal(signal.SIGTERM)
    for each in waiting:
        refused(await asyncio.wait_for(each, PATIENCE_S), 503, "shutting_down")
    neuron.end(neuron.runs[0])
    assert (await many.tasks[0]).status_code == 200
    assert await asyncio.wait_for(process.process.wait(), PATIENCE_S) == 0


async def test_the_metrics_show_the_lines_and_no_keys(site: Site) -> None:
    many = await crowd(site, 1, "ada", metrics_interval_s=0.2)
    reports: asyncio.Queue[MetricsReport] = asyncio.Queue()
    await site.bus.subscribe(subjects.METRICS, reports.put_nowait)
    many.ask("ada")
    running = await many.neuron.next()
    await many.queue("ada", priority="bulk")
    name = f'helexa_queue_depth{{model="{MODEL}"}}'
    while (await asyncio.wait_for(reports.get(), PATIENCE_S)).gauges.get(name) != 1:
        pass
    many.neuron.end(running)
    await many.end_all()
    shown = (await many.http().get("/metrics")).text
    for label in ("bulk", "default"):
        line = f'helexa_queue_wait_seconds_count{{model="{MODEL}",priority="{label}"}} 1.0'
        assert line in shown
    assert digest_of("ada") not in shown
    await many.until_waiting(0)


async def test_a_request_that_loses_its_neuron_goes_before_others_of_its_key(
    site: Site,
) -> None:
    many = await crowd(site, 1, "ada", queue_limit=2)
    broken = many.ask("ada", "broken")
    running = await many.neuron.next()
    for number in range(2):
        await many.queue("ada", f"later {number}")
    many.neuron.fail(running)
    order = []
    for _ in range(3):
        running = await many.neuron.next()
        order.append(said(running))
        many.neuron.end(running)
    assert order == ["broken", "later 0", "later 1"]
    assert (await broken).status_code == 200
