# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The operations behind the wire, as interfaces: in-process and over the bus they are the same."""

from typing import Protocol

from helexa.protocol.messages.execution import ExecuteReply, ExecuteRequest
from helexa.protocol.messages.models import ModelId
from helexa.protocol.messages.neurons import Capabilities, Health
from helexa.protocol.messages.provisioning import (
    Ensured,
    EnsureRequest,
    ProvisioningResponse,
    ProvisionRequest,
)
from helexa.protocol.messages.routing import RoutingDecision, ScheduleRequest


class NeuronControl(Protocol):
    """What one neuron can be asked."""

    async def announce_capabilities(self) -> Capabilities:
        """Return what the neuron can do now."""

    async def load_model(self, model: ModelId, *, fence: int = 0) -> ProvisioningResponse:
        """Load a configured model and return when it is loaded or has failed."""

    async def unload_model(
        self, model: ModelId, *, forget: bool = False, fence: int = 0
    ) -> ProvisioningResponse:
        """Unload a model once it has finished what it serves."""

    async def execute_request(self, request: ExecuteRequest) -> ExecuteReply:
        """Start a request, whose answer is published as frames.

        Raises:
            RefusedError: another neuron may take it.
        """

    async def report_health(self) -> Health:
        """Return the neuron's own view of its health."""


class Provisioning(Protocol):
    """A neuron's side of provisioning."""

    async def provision(self, request: ProvisionRequest) -> ProvisioningResponse:
        """Carry out one command."""


class Scheduler(Protocol):
    """Who serves a request."""

    async def schedule(self, request: ScheduleRequest) -> RoutingDecision:
        """Return the targets, best first.

        Raises:
            UnknownModelError: no such model in the catalogue.
            ModelLoadingError: known, but not loaded anywhere.
            NoCapacityError: every neuron that could is full.
        """


class Provisioner(Protocol):
    """What is loaded where."""

    async def ensure(self, request: EnsureRequest) -> Ensured:
        """Make sure that a model gets loaded; many callers cause one load."""
