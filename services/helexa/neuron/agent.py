# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What one site can ask of this neuron: `NeuronControl`, in this process."""

import logging

from helexa.neuron.executor import Executor
from helexa.neuron.presence import Presence
from helexa.protocol.errors import HelexaError, ShuttingDownError, StaleCommandError
from helexa.protocol.messages.execution import ExecuteReply, ExecuteRequest
from helexa.protocol.messages.models import ModelConfig, ModelId
from helexa.protocol.messages.neurons import Capabilities, Health, NeuronStatus
from helexa.protocol.messages.provisioning import (
    LoadModel,
    ProvisioningCommand,
    ProvisioningError,
    ProvisioningOk,
    ProvisioningResponse,
    ProvisionRequest,
    UnloadModel,
    UpsertModelConfig,
)

_log = logging.getLogger(__name__)


class NeuronAgent:
    """Carries out orders of one site.

    Each order names the lease under which it was decided: the highest one seen is the leader's, and
    a lower one comes from a leader that has been replaced.
    """

    def __init__(self, presence: Presence, executor: Executor) -> None:
        """Act on the models of `presence` and run requests by `executor`."""
        self.presence = presence
        self.executor = executor
        self._highest_fence = 0
        self._reports = 0

    def status(self) -> NeuronStatus:
        """Return the neuron's state under the number of the last report."""
        return self.presence.status(self._reports, is_draining=self.executor.is_draining)

    def next_report(self) -> NeuronStatus:
        """Return the neuron's state under a number of its own."""
        self._reports += 1
        return self.status()

    def forget_fence(self) -> None:
        """Obey any leader: the site has begun anew, and its leases with it."""
        self._highest_fence = 0

    async def announce_capabilities(self) -> Capabilities:
        """Return what the neuron can do now."""
        return Capabilities(
            descriptor=self.presence.descriptor(), models=self.presence.host.capabilities()
        )

    async def configure_model(self, config: ModelConfig, *, fence: int = 0) -> ProvisioningResponse:
        """Know a model, or know it anew."""
        return await self.provision(
            ProvisionRequest(command=UpsertModelConfig(config=config), fence=fence)
        )

    async def load_model(self, model: ModelId, *, fence: int = 0) -> ProvisioningResponse:
        """Load a configured model and return when it is loaded or has failed."""
        return await self.provision(ProvisionRequest(command=LoadModel(model=model), fence=fence))

    async def unload_model(
        self, model: ModelId, *, forget: bool = False, fence: int = 0
    ) -> ProvisioningResponse:
        """Unload a model once it has finished what it serves."""
        command = UnloadModel(model=model, forget=forget)
        return await self.provision(ProvisionRequest(command=command, fence=fence))

    async def execute_request(self, request: ExecuteRequest) -> ExecuteReply:
        """Start a request, whose answer is published as frames.

        Raises:
            RefusedError: another neuron may take it.
        """
        return self.executor.accept(request)

    async def report_health(self) -> Health:
        """Return the neuron's own view of its health."""
        impaired = self.presence.host.impaired()
        broken = any(gpu.error for gpu in self.presence.hardware.latest.gpus)
        return Health(
            healthy=not (impaired or broken),
            status=self.status(),
            impaired_models=impaired,
        )

    async def provision(self, request: ProvisionRequest) -> ProvisioningResponse:
        """Carry out one order; what cannot be done is said in the answer."""
        command = request.command
        model = _model_of(command)
        try:
            message = await self._carry_out(request)
        except HelexaError as error:
            _log.warning(
                "order_failed",
                extra={"order": command.kind, "model": model, "error": error.message},
            )
            return ProvisioningResponse(
                outcome=ProvisioningError(model_id=model, error=error.message, code=error.code)
            )
        _log.info("order_done", extra={"order": command.kind, "model": model})
        return ProvisioningResponse(outcome=ProvisioningOk(model_id=model, message=message))

    async def _carry_out(self, request: ProvisionRequest) -> str:
        self._check_fence(request.fence)
        command, host = request.command, self.presence.host
        if isinstance(command, UpsertModelConfig):
            return "configured" if host.configure(command.config) else "known already"
        if isinstance(command, UnloadModel):
            await host.unload(command.model, forget=command.forget)
            return "forgotten" if command.forget else "unloaded"
        if host.is_closing or self.presence.is_draining:
            raise ShuttingDownError
        await host.load(command.model)
        return "loaded"

    def _check_fence(self, fence: int) -> None:
        if fence < self._highest_fence:
            raise StaleCommandError(
                f"order under lease {fence}, but a leader with {self._highest_fence} was seen"
            )
        self._highest_fence = fence


def _model_of(command: ProvisioningCommand) -> ModelId:
    return command.config.model if isinstance(command, UpsertModelConfig) else command.model
