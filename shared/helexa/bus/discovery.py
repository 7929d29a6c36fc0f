# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a service answers to NATS's own tools, such as `nats micro ls`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass(slots=True)
class Tally:
    """One served call and what it has done."""

    name: str
    subject: str
    queue: str
    requests: int = 0
    errors: int = 0
    seconds: float = 0.0
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """A service, as the tools name it."""

    name: str
    instance: str
    version: str
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    def answer(self, kind: str, tallies: Sequence[Tally]) -> bytes:
        """Return what is to be said to `PING`, `INFO` or `STATS`."""
        told: dict[str, object] = {
            "type": f"io.nats.micro.v1.{kind.lower()}_response",
            "name": self.name,
            "id": self.instance,
            "version": self.version,
            "metadata": {},
        }
        if kind == "INFO":
            told["description"] = f"Helexa {self.name.removeprefix('helexa-')}"
            told["endpoints"] = [_described(each) | {"metadata": {}} for each in tallies]
        elif kind == "STATS":
            told["started"] = self.started.isoformat().replace("+00:00", "Z")
            told["endpoints"] = [_described(each) | _counted(each) for each in tallies]
        return json.dumps(told).encode()


def _described(tally: Tally) -> dict[str, object]:
    return {"name": tally.name, "subject": tally.subject, "queue_group": tally.queue}


def _counted(tally: Tally) -> dict[str, object]:
    return {
        "num_requests": tally.requests,
        "num_errors": tally.errors,
        "last_error": tally.last_error,
        "processing_time": int(tally.seconds * 1e9),
        "average_processing_time": int(tally.seconds * 1e9 / max(1, tally.requests)),
    }
