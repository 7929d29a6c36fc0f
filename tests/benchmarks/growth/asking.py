# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The ways in which a site is kept busy, and what one unit of each costs."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from tests.benchmarks.growth.ground import MIB, Ground, Usage
from tests.benchmarks.phases import Phase
from tests.benchmarks.programs import CHAT_PATH, Timing, generate
from typing_extensions import override

IDLE_S = 5.0
CHATS_AT_ONCE = 8
"""For each gateway, or for each neuron that serves where these are more."""
CHATS_TIMING = Timing(warm_up_s=1.0, duration_s=4.0)
STREAMS_TIMING = Timing(warm_up_s=2.0, duration_s=10.0)
BEGIN_A_SECOND = 250
PACE_MS = 1000
LARGE_BYTES = 48 * MIB
"""Large requests are asked until so many bytes have gone."""
MOST_LARGE = 200


@dataclass(frozen=True, slots=True)
class Cost:
    """What one unit of work costs, and what the processes are like meanwhile."""

    unit: str
    units: float
    us: dict[str, float]
    """Of processor time, by kind of process, beyond what that kind uses at rest."""
    rest: dict[str, float]
    """The part of a core that each kind uses while nothing is asked."""
    rss_mib: dict[str, float]
    note: str = ""


Asking = Callable[[Ground, Path], Awaitable[Cost]]
"""Asks something of a site, with the load generator that is given."""


@dataclass(frozen=True)
class SlowStreams(Phase):
    """Streams of a token a second, which begin one after the other."""

    @property
    @override
    def ramp_s(self) -> float:
        return self.concurrency / BEGIN_A_SECOND


async def _rest(ground: Ground) -> dict[str, float]:
    """Return the part of a core that each kind of process uses while nothing is asked."""
    before = ground.usage()
    await asyncio.sleep(IDLE_S)
    return {kind: used / IDLE_S for kind, used in ground.usage().since(before).items()}


async def chats(ground: Ground, generator: Path) -> Cost:
    """Ask short whole chats."""
    phase = Phase("chats", CHATS_AT_ONCE * max(ground.size.gateways, ground.size.hosts))
    return await _generated(ground, generator, phase, CHATS_TIMING, "answers")


def streams(count: int) -> Asking:
    """Keep so many streams open, each of a token a second."""
    phase = SlowStreams("streams", count, is_streamed=True, pace_ms=PACE_MS)

    async def ask(ground: Ground, generator: Path) -> Cost:
        return await _generated(ground, generator, phase, STREAMS_TIMING, "tokens")

    return ask


def prompts(size: int) -> Asking:
    """Ask chats with a prompt of so many bytes, one after the other."""

    async def ask(ground: Ground, _: Path) -> Cost:
        messages = [{"role": "user", "content": "word " * (size // 5)}]
        body = json.dumps({"model": ground.address.model, "messages": messages}).encode()
        count = max(4, min(MOST_LARGE, LARGE_BYTES // size))
        return await _repeated(ground, "POST", CHAT_PATH, body, count)

    return ask


async def lists(ground: Ground, _: Path) -> Cost:
    """Ask for the list of models."""
    return await _repeated(ground, "GET", "/v1/models", b"", 100)


async def _generated(
    ground: Ground, generator: Path, phase: Phase, timing: Timing, unit: str
) -> Cost:
    rest = await _rest(ground)
    seen: list[Usage] = []
    told = await generate(
        generator, ground.address, phase, timing, lambda: seen.append(ground.usage())
    )
    await ground.backend.until_idle()
    note = f"{told['failed']:.0f} failed, {told['wrong']:.0f} wrong" if told["failed"] else ""
    seen_s = timing.duration_s
    return cost(unit.rstrip("s"), told[unit], (seen[0], seen[1]), seen_s, rest, note)


async def _repeated(ground: Ground, method: str, path: str, body: bytes, count: int) -> Cost:
    rest = await _rest(ground)
    url = f"http://127.0.0.1:{ground.address.ports[0]}"
    headers = {"Authorization": f"Bearer {ground.address.key}", "Content-Type": "application/json"}
    loop = asyncio.get_running_loop()
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as http:
        answer = (await http.request(method, path, content=body)).raise_for_status()
        before, began = ground.usage(), loop.time()
        for _ in range(count):
            (await http.request(method, path, content=body)).raise_for_status()
        after, took_s = ground.usage(), loop.time() - began
    note = f"{len(answer.content) / 1024:.0f} KB each" if method == "GET" else ""
    return cost("request", count, (before, after), took_s, rest, note)


def cost(
    unit: str,
    units: float,
    seen: tuple[Usage, Usage],
    took_s: float,
    rest: dict[str, float],
    note: str = "",
) -> Cost:
    """Return what each of `units` costs that were done between two looks."""
    before, after = seen
    us = {
        kind: max(0.0, used - rest[kind] * took_s) * 1e6 / max(1.0, units)
        for kind, used in after.since(before).items()
    }
    return Cost(unit, units, us, rest, after.rss_mib, note)
