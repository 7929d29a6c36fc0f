# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One neuron, asked over the bus."""

from helexa.bus.client import Bus
from helexa.protocol import subjects
from helexa.protocol.messages.execution import ExecuteReply, ExecuteRequest
from helexa.protocol.messages.models import ModelConfig, ModelId
from helexa.protocol.messages.neurons import (
    Acknowledged,
    Capabilities,
    CapabilitiesRequest,
    DrainRequest,
    Health,
    HealthRequest,
)
from helexa.protocol.messages.provisioning import (
    LoadModel,
    ProvisioningCommand,
    ProvisioningResponse,
    ProvisionRequest,
    UnloadModel,
    UpsertModelConfig,
)
from helexa.protocol.naming import encode_token

ANSWER_S = 5.0
"""For what a neuron answers at once."""
UNLOAD_S = 120.0
"""An unload waits for what the model is serving."""
LOAD_S = 900.0
"""A load may download the model first."""


class RemoteNeuron:
    """A `NeuronControl` whose neuron is another process.

    Each method raises `NoRespondersError` when the neuron is not there, and `DeadlineExceededError`
    when it does not answer in time.
    """

    def __init__(self, bus: Bus, neuron_id: str, *, load_s: float = LOAD_S) -> None:
        """Ask the neuron called `neuron_id`; give a load `load_s` seconds."""
        self._bus = bus
        self._token = encode_token(neuron_id)
        self._load_s = load_s

    async def announce_capabilities(self) -> Capabilities:
        """Return what the neuron can do now."""
        return await self._bus.request(
            subjects.CAPABILITIES, CapabilitiesRequest(), deadline_s=ANSWER_S, neuron=self._token
        )

    async def configure_model(self, config: ModelConfig, *, fence: int = 0) -> ProvisioningResponse:
        """Make the neuron know a model, or know it anew."""
        return await self._provision(UpsertModelConfig(config=config), fence, ANSWER_S)

    async def load_model(self, model: ModelId, *, fence: int = 0) -> ProvisioningResponse:
        """Load a configured model and return when it is loaded or has failed."""
        return await self._provision(LoadModel(model=model), fence, self._load_s)

    async def unload_model(
        self, model: ModelId, *, forget: bool = False, fence: int = 0
    ) -> ProvisioningResponse:
        """Unload a model once it has finished what it serves."""
        return await self._provision(UnloadModel(model=model, forget=forget), fence, UNLOAD_S)

    async def execute_request(self, request: ExecuteRequest) -> ExecuteReply:
        """Start a request, whose answer is published as frames.

        Raises:
            RefusedError: another neuron may take it.
        """
        return await self._bus.request(
            subjects.EXECUTE, request, deadline_s=ANSWER_S, neuron=self._token
        )

    async def report_health(self) -> Health:
        """Return the neuron's own view of its health."""
        return await self._bus.request(
            subjects.HEALTH, HealthRequest(), deadline_s=ANSWER_S, neuron=self._token
        )

    async def drain(self, *, draining: bool = True) -> Acknowledged:
        """Have the neuron take no new work, or take work again."""
        return await self._bus.request(
            subjects.DRAIN,
            DrainRequest(draining=draining),
            deadline_s=ANSWER_S,
            neuron=self._token,
        )

    async def _provision(
        self, command: ProvisioningCommand, fence: int, deadline_s: float
    ) -> ProvisioningResponse:
        return await self._bus.request(
            subjects.PROVISION,
            ProvisionRequest(command=command, fence=fence),
            deadline_s=deadline_s,
            neuron=self._token,
        )
