# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What is kept of an attempt that has ended: what came of it, and its frames."""

from dataclasses import dataclass

from helexa.neuron.outbox import Outbox


@dataclass(slots=True, eq=False)
class Past:
    """An attempt that has ended. Thousands of them are kept, so that each is small."""

    request_id: str
    attempt: int
    owner: str
    outbox: Outbox
    is_settled: bool
    """Whether nobody could do better."""
    ended_at_s: float
