# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Work that waits in a queue until a neuron with room pulls it, and the claim to do it."""

from pydantic import Field

from helexa.protocol.messages.base import Message
from helexa.protocol.messages.models import ModelId


class BulkJob(Message):
    """A place in the queue. What is to be done stays at the gateway."""

    ticket: str
    """Names this place; the gateway knows which request it stands for."""
    gateway: str
    """Where to claim it."""
    model: ModelId


class ClaimRequest(Message):
    """A neuron has pulled a job and holds a slot for it.

    The reply is the work to do. `NotFoundError`: there is nothing to do any more, the job can be
    forgotten. A `RefusedError`: not this neuron, or not now; the job goes back into the queue.
    """

    ticket: str
    neuron_id: str
    deliveries: int = Field(default=1, ge=1)
    """How often the queue has handed the job out, this time included."""
