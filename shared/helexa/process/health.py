# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Whether a process lives, and whether it can serve."""

from collections.abc import Callable


class Readiness:
    """Named conditions that must all hold before work is sent here. Liveness needs none of them."""

    def __init__(self) -> None:
        """Begin without conditions."""
        self._checks: dict[str, Callable[[], bool]] = {}
        self._stopping = False

    def require(self, name: str, check: Callable[[], bool]) -> None:
        """Be ready only while `check` returns true. It must be instant."""
        self._checks[name] = check

    def stop(self) -> None:
        """Never be ready again: the process is ending."""
        self._stopping = True

    @property
    def missing(self) -> list[str]:
        """The names of the conditions that do not hold."""
        failed = [name for name, check in self._checks.items() if not check()]
        return ["shutting_down", *failed] if self._stopping else failed

    @property
    def is_ready(self) -> bool:
        """Whether work may be sent here."""
        return not self.missing
