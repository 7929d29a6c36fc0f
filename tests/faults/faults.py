# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What can befall a process of a site, and what may not be left of it afterwards."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from tests.faults.link import Link
from tests.faults.site import Process, Site

DEAD_S = 1.5
"""How long a process that died stays away, as under a supervisor with a back-off."""
FROZEN_S = 8.0
CUT_S = 3.0
SLOW_S = 4.0
SLOW_DELAY_S = 0.3
SLOW_BYTES_PER_S = 64 * 1024
LEAKS_WITHIN_S = 15.0
LOOK_S = 0.1

KILL, TERM, FREEZE, CUT, SILENCE, SLOW = "kill", "SIGTERM", "freeze", "cut", "silence", "slow"
FAULTS = (KILL, TERM, FREEZE, CUT, SILENCE, SLOW)
TARGETS = ("gateway", "scheduler", "provisioner", "neuron", "backend", "nats")


@dataclass(frozen=True)
class Target:
    """What a fault strikes."""

    process: Process
    links: list[Link]


async def target_of(site: Site, kind: str) -> Target:
    """Return the process of that kind that has the most to lose, and its links."""
    if kind == "nats":
        return Target(site.processes["nats"], site.links)
    if kind == "backend":
        return Target(site.processes["backend"], [site.engine_link])
    name = {"neuron": "n1", "provisioner": await leader(site)}.get(kind, f"{kind}-1")
    process = site.processes[name]
    assert process.link is not None
    return Target(process, [process.link])


async def leader(site: Site) -> str:
    """Return the provisioner that leads."""
    async with asyncio.timeout(LEAKS_WITHIN_S):
        while True:
            for number, url in enumerate(site.orchestrators, start=1):
                if (await site.orchestrate("GET", "/api/site", at=url))["leads"]:
                    return f"provisioner-{number}"
            await asyncio.sleep(LOOK_S)


async def strike(fault: str, target: Target) -> None:
    """Do the harm, and return when it is over but not yet healed."""
    process, links = target.process, target.links
    if fault in (KILL, TERM):
        process.signal(signal.SIGKILL if fault == KILL else signal.SIGTERM)
        await process.ended()
        await asyncio.sleep(DEAD_S)
    elif fault == FREEZE:
        process.signal(signal.SIGSTOP)
        await asyncio.sleep(FROZEN_S)
    else:
        for link in links:
            HARM[fault](link)
        await asyncio.sleep({CUT: CUT_S, SILENCE: FROZEN_S, SLOW: SLOW_S}[fault])


def heal(target: Target) -> None:
    """End whatever was struck, as a supervisor and a network do."""
    target.process.start()
    target.process.signal(signal.SIGCONT)
    for link in target.links:
        link.heal()


HARM: dict[str, Callable[[Link], None]] = {
    CUT: Link.cut,
    SILENCE: Link.silence,
    SLOW: lambda link: link.slow(SLOW_DELAY_S, SLOW_BYTES_PER_S),
}

Check = Callable[[Site], Awaitable[list[str]]]


async def leaks(site: Site) -> list[str]:
    """Return what is left of work that has ended, once it had time to go."""
    found: list[str] = []
    try:
        async with asyncio.timeout(LEAKS_WITHIN_S):
            while True:
                found = [leak for check in CHECKS for leak in await check(site)]
                if not found:
                    return []
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        return found


async def _backend_work(site: Site) -> list[str]:
    now = await site.counters()
    return [f"backend {name} {now[name]}" for name in ("prefilling", "decoding") if now[name]]


async def _slots(site: Site) -> list[str]:
    found = []
    for url in site.neurons:
        status = await site.neuron_status(url)
        if status["slots_busy"]:
            found.append(f"{status['neuron_id']} has {status['slots_busy']} slots busy")
    return found


async def _requests(site: Site) -> list[str]:
    found: list[str] = []
    for url in site.gateways:
        numbers = await site.metrics(url)
        names = ("helexa_inflight_requests", "helexa_queue_depth")
        found += [f"{url} {name} {numbers[name]}" for name in names if numbers.get(name)]
    return found


async def _leases(site: Site) -> list[str]:
    leading = [
        url
        for url in site.orchestrators
        if (await site.orchestrate("GET", "/api/site", at=url))["leads"]
    ]
    return [] if len(leading) == 1 else [f"{len(leading)} provisioners lead"]


async def _bulk(site: Site) -> list[str]:
    answer = await site.http.get(f"{site.monitor_url}/jsz?streams=1&accounts=1")
    streams = [
        each for account in answer.json()["account_details"] for each in account["stream_detail"]
    ]
    held = {each["name"]: each["state"]["messages"] for each in streams}
    return [f"BULK holds {held['BULK']}"] if held.get("BULK") else []


async def _connections(site: Site) -> list[str]:
    """One connection for each process with a link, and the leader-to-be's to the system account."""
    answer = await site.http.get(f"{site.monitor_url}/connz")
    names = [str(each["name"]) for each in answer.json()["connections"]]
    expected = len(site.links) + len(site.orchestrators)
    if len(names) == expected:
        return []
    return [f"{len(names)} connections to the server, {expected} expected: {sorted(names)}"]


CHECKS: tuple[Check, ...] = (_backend_work, _slots, _requests, _leases, _bulk, _connections)


def defects(process: Process) -> list[str]:
    """Return the lines that a process has logged as errors, and everything that is no log line."""
    with process.log.open(encoding="utf-8", errors="replace") as log:
        log.seek(process.read_to)
        lines = log.readlines()
        process.read_to = log.tell()
    return [f"{process.name}: {line.strip()}" for line in lines if _is_defect(line)]


def _is_defect(line: str) -> bool:
    if not line.startswith("{"):
        return True
    try:
        return cast("dict[str, object]", json.loads(line)).get("level") == "error"
    except ValueError:
        return True
