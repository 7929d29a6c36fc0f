# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa drain` takes a neuron out of a busy site, and back, without a failed request."""

import asyncio
import sys
from collections import Counter
from pathlib import Path
from typing import cast

import pytest
from tests.faults.conftest import Record
from tests.faults.sdk import SdkLoad
from tests.faults.site import Json, Site, running_site

ONE_AT_A_TIME = "single"
"""A model that one neuron has at a time; the site's other one is on every neuron."""
IDLE_WITHIN_S = 30


async def helexa(site: Site, *words: str) -> str:
    """Return what a command of the operator's says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "helexa.cli", *words),
        *("--data-dir", str(site.data.path), "--orchestrator-url", site.orchestrators[0]),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 2 * IDLE_WITHIN_S)
    assert process.returncode == 0, said.decode()
    return said.decode()


async def requests_done(site: Site) -> Counter[str]:
    """Return how many requests each neuron has finished."""
    found: Counter[str] = Counter()
    for url in site.neurons:
        status = await site.neuron_status(url)
        models = cast("list[dict[str, int]]", status["models"])
        found[str(status["neuron_id"])] = sum(each["requests_done"] for each in models)
    return found


async def loaded_on(site: Site, model: str) -> list[str]:
    found = cast("list[Json]", (await site.orchestrate("GET", f"/api/models/{model}"))["replicas"])
    return [str(each["neuron"]) for each in found if each["state"] == "loaded"]


@pytest.mark.accepts("CX-27")
async def test_a_drained_neuron_ends_idle_and_no_request_fails(
    tmp_path: Path, record: Record
) -> None:
    async with running_site(tmp_path) as site:
        await site.add_model(ONE_AT_A_TIME, on_every_neuron=False)
        async with asyncio.timeout(IDLE_WITHIN_S):
            while not (holders := await loaded_on(site, ONE_AT_A_TIME)):
                await asyncio.sleep(0.1)
        (holder,) = holders
        (other,) = {"n1", "n2"} - {holder}
        async with SdkLoad(site.gateways[0], ONE_AT_A_TIME) as load:
            await load.more(20)
            said = await helexa(site, "drain", holder, "--wait", str(IDLE_WITHIN_S))
            before = await requests_done(site)
            await load.more(40)
            after = await requests_done(site)
            await helexa(site, "drain", holder, "--undo")
            await helexa(site, "drain", other, "--wait", str(IDLE_WITHIN_S))
            await load.more(40)
            back = await requests_done(site)
        record(drained=f"{holder}, {other}", answers=load.answers, failed=len(load.failures))
        assert load.failures == [], load.summary
        assert said.endswith(f"{holder}: is idle\n")
        assert after[holder] == before[holder]
        assert after[other] >= before[other] + 20
        assert back[holder] > after[holder]
        assert (await site.counters())["in_flight"] == 0
