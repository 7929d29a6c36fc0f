# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What measuring costs this process, so that nobody takes its limit for that of the endpoint."""

import time
from dataclasses import dataclass
from pathlib import Path

_SCHEDSTAT = Path("/proc/self/schedstat")
"""Of the main thread: nanoseconds on a core, nanoseconds waiting for one, turns."""


@dataclass(frozen=True, slots=True)
class Effort:
    """Time of this process, since its begin or between two moments."""

    cpu_s: float
    waited_s: float
    """In which its main thread could have run, but others had the cores; 0 where unknown."""

    @classmethod
    def now(cls) -> "Effort":
        """Return what it has been since the process began."""
        return cls(time.process_time(), _waited_s())

    def since(self, earlier: "Effort") -> "Effort":
        """Return what it has been since `earlier`."""
        return Effort(self.cpu_s - earlier.cpu_s, self.waited_s - earlier.waited_s)


def _waited_s() -> float:
    try:
        return int(_SCHEDSTAT.read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, LookupError, ValueError):
        # Not Linux, or a kernel that does not count it.
        return 0.0
