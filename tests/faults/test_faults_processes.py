# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Whatever befalls one process, every request ends, and nothing of it is left."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.faults.conftest import Record
from tests.faults.engine import MODEL
from tests.faults.faults import FAULTS, TARGETS, defects, heal, leaks, strike, target_of
from tests.faults.load import Load, clients
from tests.faults.report import row
from tests.faults.site import Site, running_site

pytestmark = pytest.mark.asyncio(loop_scope="module")

MOST_ERRORS = {"gateway": 0, "scheduler": 0, "provisioner": 0}
"""There is another one. Where not, every client may meet one clear error."""
AGAIN_WITHIN_S = {"nats": 5.0}
"""From the return of what was struck until every gateway answers again; 15 s if not said."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    directory: Path = tmp_path_factory.mktemp("site")
    async with running_site(directory) as running:
        yield running


@pytest.mark.accepts("NET-3", "PORT-7")
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_every_request_ends_and_nothing_leaks(
    site: Site, record: Record, kind: str, fault: str
) -> None:
    target = await target_of(site, kind)
    async with clients(site.gateways, MODEL) as client, Load(client) as load:
        await load.answered(12)
        await strike(fault, target)
        heal(target)
        if kind == "nats":
            await target.process.until_ready()
        back_s = await site.until_serving()
        await site.until_ready()
        await load.answered(12)
    leaked = await leaks(site)
    logged = [line for each in site.processes.values() for line in defects(each)]
    record(**row(f"{kind} {fault}", load, leaked, back_s))
    assert leaked == []
    assert logged == []
    assert load.details("hung") == {}
    assert load.details("wrong") == {}
    assert load.count("error") <= MOST_ERRORS.get(kind, load.clients)
    assert back_s <= AGAIN_WITHIN_S.get(kind, 15.0)
