# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Other people's tools read a site's numbers."""

import asyncio
import json

import httpx
import nats
import pytest
from nats.aio.msg import Msg
from tests.site_up.site import RunningSite

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.accepts("UTL-2")
async def test_the_metrics_key_reads_every_service_and_publishes_nothing(
    site: RunningSite,
) -> None:
    seed = (site.data / "keys" / "metrics.nk").read_text().strip()
    refused: asyncio.Queue[Exception] = asyncio.Queue()
    reports: dict[str, dict[str, object]] = {}
    everybody = asyncio.Event()

    async def on_error(error: Exception) -> None:
        refused.put_nowait(error)

    async def on_report(message: Msg) -> None:
        reports[message.subject.rpartition(".")[2]] = json.loads(message.data)
        if len(reports) == 5:
            everybody.set()

    reader = await nats.connect(
        site.file["nats_urls"],
        nkeys_seed_str=seed,
        inbox_prefix=b"_INBOX_metrics",
        error_cb=on_error,
    )
    try:
        await reader.subscribe("helexa.metrics.*", cb=on_report)
        await asyncio.wait_for(everybody.wait(), 20)
        assert set(reports) == {"gateway", "scheduler", "provisioner", "portal", "neuron"}
        assert all(report["instance"] for report in reports.values())
        await reader.publish("helexa.metrics.gateway", b"{}")
        assert "permissions violation" in str(await asyncio.wait_for(refused.get(), 5)).lower()
    finally:
        await reader.close()


@pytest.mark.accepts("UTL-2")
async def test_the_gateway_shows_the_same_numbers_to_prometheus(site: RunningSite) -> None:
    async with httpx.AsyncClient() as http:
        scraped = (await http.get(f"{site.gateways[0]}/metrics")).text
    assert "helexa_inflight_requests" in scraped
    assert "# TYPE helexa_time_to_first_token_seconds histogram" in scraped
