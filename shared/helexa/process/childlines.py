# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a child process writes, passed on in blocks of whole lines as they come."""

import asyncio
from collections.abc import Callable

from typing_extensions import override

LONGEST_LINE_BYTES = 1024 * 1024
TAIL_LINES = 12
_TAIL_BYTES = 16 * 1024

OnLines = Callable[[str, bytes], None]
"""Gets a child's name and one or more whole lines that it wrote."""


class ChildLines(asyncio.Protocol):
    """Reads the pipe of one child. No line is looked at: a busy child writes thousands a second."""

    def __init__(self, name: str, on_lines: OnLines) -> None:
        """Give what `name` writes to `on_lines`."""
        self.ended = asyncio.get_running_loop().create_future()
        """Done when nobody has the other end of the pipe any more."""
        self._name = name
        self._on_lines = on_lines
        self._begun = b""
        self._is_dropped = False
        """Whether the line that has begun is too long."""
        self._said = b""

    @property
    def tail(self) -> list[str]:
        """The last lines, for a person."""
        return self._said.decode(errors="replace").splitlines()[-TAIL_LINES:]

    @override
    def data_received(self, data: bytes) -> None:
        end = data.rfind(b"\n") + 1
        if end:
            whole = data[:end] if not self._begun else self._begun + data[:end]
            if self._is_dropped:
                whole = data[data.index(b"\n") + 1 : end]
            self._begun, self._is_dropped = data[end:], False
            self._take(whole)
        else:
            self._begun += data
        if len(self._begun) > LONGEST_LINE_BYTES:
            self._begun, self._is_dropped = b"", True

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._begun:
            self._take(self._begun)
        if not self.ended.done():
            self.ended.set_result(None)

    def _take(self, lines: bytes) -> None:
        if lines:
            self._said = (self._said + lines[-_TAIL_BYTES:])[-_TAIL_BYTES:]
            self._on_lines(self._name, lines)
