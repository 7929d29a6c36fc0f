# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What travels beside a message: which request it belongs to, and how long there is."""

import time
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point of this process's monotonic clock."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """Return the deadline that many seconds from now."""
        return cls(time.monotonic() + seconds)

    @property
    def remaining_s(self) -> float:
        """Seconds left; zero or less when it has passed."""
        return self.at - time.monotonic()


REQUEST_ID: ContextVar[str] = ContextVar("helexa_request_id", default="")
"""The id of the request being worked on; empty outside of one."""

TRACEPARENT: ContextVar[str] = ContextVar("helexa_traceparent", default="")
"""The W3C trace context of the request being worked on."""

DEADLINE: ContextVar[Deadline | None] = ContextVar("helexa_deadline", default=None)
"""When the caller stops waiting; `None`: it did not say."""

SUBJECT: ContextVar[str] = ContextVar("helexa_subject", default="")
"""The subject that a request came on. The server has checked that its sender may publish there."""
