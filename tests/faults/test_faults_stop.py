# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A site whose server is gone stops all the same."""

import asyncio
import signal
from pathlib import Path

from tests.faults.site import running_site

STOP_WITHIN_S = 10.0
"""The grace is five seconds, and none of it should be needed."""


async def test_everything_stops_in_order_without_its_server(tmp_path: Path) -> None:
    async with running_site(tmp_path / "site") as site:
        server = site.processes.pop("nats")
        server.signal(signal.SIGTERM)
        await server.ended()
        services = [each for each in site.processes.values() if each.link is not None]
        for each in services:
            each.signal(signal.SIGTERM)
        codes = await asyncio.gather(*(each.ended(STOP_WITHIN_S) for each in services))
        assert dict(zip((each.name for each in services), codes, strict=True)) == dict.fromkeys(
            (each.name for each in services), 0
        )
