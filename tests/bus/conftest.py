# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What reads and writes sockets is tested on both event loops: uvloop is what services run on."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

ON_BOTH = ("test_direct", "test_requests")


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    both = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return both if item.path.stem in ON_BOTH else {"asyncio": asyncio.new_event_loop}
