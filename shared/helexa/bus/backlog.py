# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a callback leaves to be done: one thing after the other, as each may have to wait."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

_log = logging.getLogger(__name__)


class Backlog:
    """Acts in the order in which they were put here."""

    def __init__(self) -> None:
        """Begin with nothing to do."""
        self._acts: deque[tuple[Callable[..., Awaitable[None]], tuple[object, ...]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    def put(self, act: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Call `act` after what was put here before."""
        self._acts.append((act, arguments))
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work_off())

    def clear(self) -> None:
        """Forget what has not begun."""
        self._acts.clear()

    async def _work_off(self) -> None:
        try:
            while self._acts:
                act, arguments = self._acts.popleft()
                try:
                    await act(*arguments)
                except Exception:  # noqa: BLE001 - one bad message must not end the connection
                    _log.exception("operation_failed")
        finally:
            self._worker = None
