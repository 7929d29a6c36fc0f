# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What is being served, and the news that something has ended."""

import asyncio


class Running(set[object]):
    """The requests being served; `changed` is set whenever one ends."""

    def __init__(self) -> None:
        """Begin without any."""
        super().__init__()
        self.changed = asyncio.Event()

    def end(self, request: object) -> None:
        """Note that `request` has ended."""
        self.discard(request)
        self.changed.set()
