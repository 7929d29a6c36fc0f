# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Asking a process of ours over HTTP whether it is ready."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

READY, ALIVE = "/readyz", "/livez"
FIRST_WAIT_S = 0.02
LONGEST_WAIT_S = 0.25
ANSWER_WITHIN_S = 2.0


def until_ready(url: str, path: str = READY) -> Callable[[], Awaitable[None]]:
    """Return what waits until `path` below `url` says yes."""

    async def wait() -> None:
        wait_s = FIRST_WAIT_S
        while not await is_ready(url, path):
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 1.5, LONGEST_WAIT_S)

    return wait


async def is_ready(url: str, path: str = READY) -> bool:
    """Whether the process at `url` says so at `path`."""
    parts = urlsplit(url)
    asked = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                writer.write(asked.encode())
                status = await reader.readline()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
    return status.split()[1:2] == [b"200"]
