# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Bulk work: all of it is answered, whatever dies, and interactive requests do not notice."""

import asyncio
import contextlib
import itertools
import signal
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx
import pytest
import pytest_asyncio
from tests.faults.conftest import Record
from tests.faults.engine import MODEL
from tests.faults.faults import defects, leaks
from tests.faults.load import Client, clients
from tests.faults.order import Order
from tests.faults.site import SLOTS, Site, running_site

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
BULK = {"x-helexa-priority": "bulk"}
JOBS = 200
WITHIN_S = 120.0
ORPHANS_WITHIN_S = 60.0
"""An owner counts as gone after 30 s; what it left is looked at every five."""
QUEUED_AT_MOST_MS = 250
"""A scheduler may take a seat for taken until the next report."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    directory: Path = tmp_path_factory.mktemp("site")
    async with running_site(directory) as running:
        yield running


def order_of(number: int) -> Order:
    return Order(tokens=20 + number % 9, pace=16, delay=0.1, seed=f"b{number}")


async def bulk(client: Client, number: int) -> int:
    """Ask for one piece of bulk work, check the answer, and return its attempts."""
    order = order_of(number)
    gateway = client.gateways[number % len(client.gateways)]
    answer = await client.http.post(
        gateway + CHAT,
        json={"model": MODEL, "messages": [{"role": "user", "content": order.prompt()}]},
        headers=BULK,
        timeout=WITHIN_S,
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-helexa-workload"] == "ChatBulk"
    assert answer.json()["choices"][0]["message"]["content"] == order.text()
    return int(answer.headers["x-helexa-attempts"])


@dataclass
class Interactive:
    """One person who asks again and again inside the block."""

    client: Client
    first_event_s: list[float] = field(default_factory=list)
    queue_ms: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._ask())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    @property
    def median_s(self) -> float:
        return statistics.median(self.first_event_s)

    async def more(self, answers: int) -> None:
        goal = len(self.first_event_s) + answers
        async with asyncio.timeout(WITHIN_S):
            while len(self.first_event_s) < goal and not (self._task and self._task.done()):
                await asyncio.sleep(0.05)

    async def _ask(self) -> None:
        for number in itertools.count():
            order = Order(tokens=4, pace=50, delay=0.05, seed=f"i{number}")
            body = {"model": MODEL, "messages": [{"role": "user", "content": order.prompt()}]}
            gateway = self.client.gateways[number % len(self.client.gateways)]
            began = time.monotonic()
            async with self.client.http.stream(
                "POST", gateway + CHAT, json=body | {"stream": True}
            ) as answer:
                text = ""
                async for line in answer.aiter_lines():
                    if line.startswith("data: {") and "data: " not in text:
                        self.first_event_s.append(time.monotonic() - began)
                    text += line
            self.queue_ms.append(int(answer.headers["x-helexa-queue-ms"]))
            if not text.endswith("[DONE]"):
                self.failures.append(text[-200:])


async def held(site: Site) -> int:
    """Return how many jobs the queue holds."""
    answer = await site.http.get(f"{site.monitor_url}/jsz?streams=1&accounts=1")
    accounts = answer.json()["account_details"]
    streams = [each for account in accounts for each in account["stream_detail"]]
    return next(int(each["state"]["messages"]) for each in streams if each["name"] == "BULK")


async def until_running(site: Site, jobs: int) -> None:
    """Return when the backend works on so many requests."""
    async with asyncio.timeout(WITHIN_S):
        while (await site.counters())["in_flight"] < jobs:
            await asyncio.sleep(0.05)


async def until_none_held(site: Site, within_s: float) -> float:
    began = time.monotonic()
    async with asyncio.timeout(within_s):
        while await held(site):
            await asyncio.sleep(0.1)
    return time.monotonic() - began


def all_defects(site: Site) -> list[str]:
    return [line for each in site.processes.values() for line in defects(each)]


async def test_interactive_requests_do_not_notice_bulk_work(site: Site, record: Record) -> None:
    async with clients(site.gateways, MODEL) as client:
        async with Interactive(client) as alone:
            await alone.more(20)
        began = time.monotonic()
        async with Interactive(client) as beside:
            jobs = [asyncio.create_task(bulk(client, number)) for number in range(JOBS)]
            await until_running(site, SLOTS)
            most = (await site.counters())["in_flight"]
            attempts = await asyncio.gather(*jobs)
        took_s = time.monotonic() - began
    record(
        case="bulk beside interactive",
        requests=JOBS,
        answers=len(attempts),
        took_s=f"{took_s:.1f}",
        first_event_alone_ms=round(alone.median_s * 1000),
        first_event_beside_ms=round(beside.median_s * 1000),
        interactive=len(beside.first_event_s),
        queue_ms_at_most=max(beside.queue_ms),
    )
    assert set(attempts) == {1}
    assert most <= 2 * (SLOTS - 1) + 1
    assert beside.failures == []
    assert len(beside.queue_ms) >= 20
    assert statistics.median(beside.queue_ms) == 0
    assert max(beside.queue_ms) <= QUEUED_AT_MOST_MS
    assert await leaks(site) == []
    assert all_defects(site) == []


async def test_the_jobs_of_a_killed_neuron_are_done_by_another(site: Site, record: Record) -> None:
    before = await site.counters()
    neuron = site.processes["n1"]
    async with clients(site.gateways, MODEL) as client, Interactive(client) as beside:
        jobs = [asyncio.create_task(bulk(client, number)) for number in range(JOBS // 2)]
        await until_running(site, SLOTS + 8)
        killed_at = time.monotonic()
        neuron.signal(signal.SIGKILL)
        await neuron.ended()
        attempts = await asyncio.gather(*jobs)
        took_s = time.monotonic() - killed_at
    neuron.start()
    await neuron.until_ready()
    await site.until_serving()
    repeated = sum(each > 1 for each in attempts)
    finished = (await site.counters())["finished"] - before["finished"]
    record(
        case="bulk, neuron killed",
        requests=JOBS // 2,
        answers=len(attempts),
        repeated=repeated,
        took_s=f"{took_s:.1f}",
        queue_ms_at_most=max(beside.queue_ms),
    )
    assert repeated >= 4
    assert max(attempts) <= 3
    assert finished >= JOBS // 2
    assert beside.failures == []
    assert await leaks(site) == []
    assert all_defects(site) == []


async def test_jobs_outlive_the_server(site: Site, record: Record) -> None:
    nats = site.processes["nats"]
    async with clients(site.gateways, MODEL) as client:
        jobs = [asyncio.create_task(bulk(client, number)) for number in range(JOBS)]
        await until_running(site, SLOTS + 8)
        waiting = await held(site)
        nats.signal(signal.SIGKILL)
        await nats.ended()
        nats.start()
        await nats.until_ready()
        back_at = time.monotonic()
        attempts = await asyncio.gather(*jobs)
        took_s = time.monotonic() - back_at
    record(
        case="bulk, nats killed",
        requests=JOBS,
        answers=len(attempts),
        repeated=sum(each > 1 for each in attempts),
        queued=waiting,
        took_s=f"{took_s:.1f}",
    )
    assert waiting > SLOTS
    assert await leaks(site) == []
    assert all_defects(site) == []


async def test_the_jobs_of_a_killed_gateway_are_dropped_and_others_go_on(
    site: Site, record: Record
) -> None:
    gateway = site.processes["gateway-1"]
    async with clients(site.gateways, MODEL) as client:
        jobs = [asyncio.create_task(bulk(client, number)) for number in range(JOBS)]
        await until_running(site, SLOTS + 8)
        gateway.signal(signal.SIGKILL)
        await gateway.ended()
        ends = await asyncio.gather(*jobs, return_exceptions=True)
    answered = sum(isinstance(each, int) for each in ends[1::2])
    broken = sum(isinstance(each, httpx.TransportError) for each in ends[0::2])
    orphans = await held(site)
    gone_s = await until_none_held(site, ORPHANS_WITHIN_S)
    record(
        case="bulk, gateway killed",
        requests=JOBS,
        answers=sum(isinstance(each, int) for each in ends),
        errors=broken,
        queued=orphans,
        took_s=f"{gone_s:.1f}",
    )
    gateway.start()
    await gateway.until_ready()
    await site.until_serving()
    assert answered == JOBS // 2
    with contextlib.suppress(StopIteration):
        raise next(e for e in ends if isinstance(e, AssertionError))
    assert await leaks(site) == []
    assert all_defects(site) == []
