# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a runtime may use of its host, in time and in processors."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a backend may be silent."""

    connect_s: float = 10.0
    first_byte_s: float = 600.0
    """From the request to the end of the response's headers; a long prompt takes long to read."""
    idle_s: float = 120.0
    """Between two reads of the body."""


@dataclass(frozen=True, slots=True)
class RuntimeLimits:
    """What a runtime may use of this host."""

    load_timeout_s: float = 600.0
    threads: int | None = None
    """Processor threads of one runtime; `None`: the host's whole cores."""
    timeouts: Timeouts = field(default_factory=Timeouts)
