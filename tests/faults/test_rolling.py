# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Every service is restarted under load, one replica after the other, and nobody notices."""

import asyncio
import signal
from pathlib import Path

import pytest
from tests.faults.balancer import Balancer
from tests.faults.conftest import Record
from tests.faults.engine import MODEL
from tests.faults.sdk import SdkLoad
from tests.faults.site import Site, running_site

ROLLED = {
    "gateway": ("gateway-1", "gateway-2"),
    "scheduler": ("scheduler-1", "scheduler-2"),
    "provisioner": ("provisioner-1", "provisioner-2"),
    "neuron": ("n1", "n2"),
    "portal": ("portal",),
}
DELAY_S = 1.5
BETWEEN = 15
"""Answers between two restarts."""


async def restart(site: Site, name: str) -> float:
    """Restart a process as a service manager does, and return how long it took to end."""
    process = site.processes[name]
    loop = asyncio.get_running_loop()
    began = loop.time()
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0, process.last_words()
    took_s = loop.time() - began
    process.start()
    await process.until_ready()
    await site.until_serving()
    return took_s


@pytest.mark.accepts("CX-27", "CX-28")
async def test_no_request_fails_while_each_service_is_restarted(
    tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELEXA_DRAIN_DELAY_S", str(DELAY_S))
    async with (
        running_site(tmp_path) as site,
        Balancer(site.gateways).balancing() as balancer,
    ):
        for service, names in ROLLED.items():
            ends: list[float] = []
            async with SdkLoad(balancer.url, MODEL) as load:
                for name in names:
                    await load.more(BETWEEN)
                    ends.append(await restart(site, name))
                await load.more(BETWEEN)
            record(
                rolled=service,
                answers=load.answers,
                failed=len(load.failures),
                ended_s=" ".join(f"{each:.1f}" for each in ends),
            )
            assert load.failures == [], load.summary
        assert (await site.counters())["in_flight"] == 0
