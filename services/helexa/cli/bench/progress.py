# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What is said on stderr while a run goes on."""

from collections.abc import Callable

from helexa.cli.bench.level import Level

_CLEAR_LINE = "\r\x1b[K"


class Progress:
    """On a terminal one line that changes, elsewhere one line a step.

    Args:
        write: Takes text for stderr.
        is_terminal: Whether a line can be written over.
    """

    def __init__(self, write: Callable[[str], object], *, is_terminal: bool) -> None:
        self._write = write
        self._is_terminal = is_terminal

    def say(self, text: str) -> None:
        """Say what happens now."""
        self._write(f"{_CLEAR_LINE}{text}" if self._is_terminal else f"{text}\n")

    def tick(self, level: Level, seconds: float) -> None:
        """Say how far a step is."""
        if self._is_terminal:
            self.say(counted(level, seconds))

    def clear(self) -> None:
        """Leave no line behind."""
        if self._is_terminal:
            self._write(_CLEAR_LINE)


def counted(level: Level, seconds: float) -> str:
    """Return how far a step is."""
    return (
        f"{level.step.name}: {seconds:.0f} s, {level.answered} answered, {level.refused} refused, "
        f"{level.failed} failed, {level.started - level.ended} under way"
    )
