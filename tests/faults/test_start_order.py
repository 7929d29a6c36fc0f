# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The processes of a site may be started in any order; it serves once the last one is there."""

import asyncio
import random
import signal
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.faults.conftest import Record
from tests.faults.site import Site

SEEDS = (1, 2, 3)
SERVES_WITHIN_S = 45.0
"""On a busy machine with two cores, of which a dozen interpreters that start take their part."""
BETWEEN_S = 0.5


async def start(site: Site, names: Sequence[str]) -> float:
    """Start in that order, and return how long after the last one the site serves.

    Nothing may have ended meanwhile.
    """
    for name in names:
        site.processes[name].start()
        await asyncio.sleep(BETWEEN_S)
    began = time.monotonic()
    await site.until_ready(SERVES_WITHIN_S)
    if not (await site.orchestrate("GET", "/api/models"))["models"]:
        await site.add_model()
    await site.until_serving(SERVES_WITHIN_S)
    took_s = time.monotonic() - began
    ended = [each.name for each in site.processes.values() if not each.is_running]
    assert ended == []
    return took_s


async def stop(site: Site) -> None:
    for each in site.processes.values():
        each.signal(signal.SIGTERM)
    assert {each.name: await each.ended() for each in site.processes.values()} == dict.fromkeys(
        site.processes, 0
    )


def orders(names: Sequence[str]) -> dict[str, list[str]]:
    """Return in which orders the processes are started; after the first the site's data is old."""
    others = [name for name in names if name != "nats"]
    found = {"the server last": [*others, "nats"], "the server first": ["nats", *others]}
    for seed in SEEDS:
        found[f"shuffled by {seed}"] = random.Random(seed).sample(names, len(names))  # noqa: S311 - no secret
    return found


@pytest.mark.accepts("CX-27")
async def test_a_site_serves_in_whatever_order_it_is_started(
    tmp_path: Path, record: Record
) -> None:
    site = Site(tmp_path)
    async with AsyncExitStack() as stack:
        await site.prepare(stack)
        stack.push_async_callback(site.stop)
        for order, names in orders(list(site.processes)).items():
            took_s = await start(site, names)
            record(started=order, serves_after_s=round(took_s, 1))
            await stop(site)


async def test_a_site_serves_again_when_what_its_server_had_in_memory_is_gone(
    tmp_path: Path, record: Record
) -> None:
    site = Site(tmp_path)
    async with AsyncExitStack() as stack:
        await site.prepare(stack)
        stack.push_async_callback(site.stop)
        server = site.processes["nats"]
        await start(site, list(site.processes))
        server.signal(signal.SIGTERM)
        await server.ended()
        took_s = await start(site, ["nats"])
        record(started="the server again", serves_after_s=round(took_s, 1))
