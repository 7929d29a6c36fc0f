# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What a scheduler can be told."""

from typing import ClassVar

from pydantic import Field

from helexa.process.settings import ServiceSettings


class SchedulerSettings(ServiceSettings):
    """Settings of one scheduler."""

    section: ClassVar[str] = "scheduler"

    stale_after_s: float = Field(default=3.0, gt=0)
    """A neuron that has been silent for longer gets no work; it should report each second."""
    forget_after_s: float = Field(default=60.0, gt=0)
    """A neuron that has been silent for longer is not even named as rejected."""
    half_life_s: float = Field(default=15.0, gt=0)
    """After this time an observed latency or error counts half."""
    decisions_kept: int = Field(default=1000, ge=1)
    """Decisions that can still be explained."""
    lease_s: float = Field(default=0.2, ge=0, le=2)
    """A gateway may use a decision again for so long, for requests like the first; 0: never."""
    prefix_affinity: bool = True
    """Send a prompt to the neuron that has read its beginning before, unless that one is busy."""
