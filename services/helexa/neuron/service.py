# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The neuron's calls, bound to their subjects."""

from helexa.bus.service import Service
from helexa.neuron.agent import NeuronAgent
from helexa.protocol import subjects
from helexa.protocol.messages.execution import (
    Attached,
    AttachRequest,
    Cancelled,
    CancelRequest,
    ExecuteReply,
    ExecuteRequest,
    ResendRequest,
    Resent,
)
from helexa.protocol.messages.neurons import (
    Acknowledged,
    Capabilities,
    CapabilitiesRequest,
    DrainRequest,
    Health,
    HealthRequest,
)
from helexa.protocol.messages.provisioning import ProvisioningResponse, ProvisionRequest
from helexa.protocol.naming import encode_token


class NeuronService:
    """Answers the calls of one site."""

    def __init__(self, agent: NeuronAgent) -> None:
        """Answer by `agent`."""
        self.agent = agent

    async def bind(self, service: Service) -> None:
        """Serve every call of this neuron."""
        neuron = encode_token(self.agent.presence.neuron_id)
        await service.serve_at_once(subjects.EXECUTE, self.execute, may_wait=True, neuron=neuron)
        await service.serve_at_once(subjects.CANCEL, self.cancel, neuron=neuron)
        await service.serve_at_once(subjects.ATTACH, self.attach, neuron=neuron)
        await service.serve(subjects.RESEND, self.resend, neuron=neuron)
        await service.serve(subjects.PROVISION, self.provision, neuron=neuron)
        await service.serve(subjects.CAPABILITIES, self.capabilities, neuron=neuron)
        await service.serve(subjects.HEALTH, self.health, neuron=neuron)
        await service.serve(subjects.DRAIN, self.drain, neuron=neuron)

    def execute(self, request: ExecuteRequest) -> ExecuteReply:
        """Take a request or refuse it, at once."""
        return self.agent.executor.accept(request)

    def cancel(self, request: CancelRequest) -> Cancelled:
        """Stop a request for its owner."""
        return self.agent.executor.cancel(request)

    def attach(self, request: AttachRequest) -> Attached:
        """Give a request another owner."""
        return self.agent.executor.attach(request)

    async def resend(self, request: ResendRequest) -> Resent:
        """Return frames that were missed."""
        return self.agent.executor.resend(request)

    async def provision(self, request: ProvisionRequest) -> ProvisioningResponse:
        """Carry out an order."""
        return await self.agent.provision(request)

    async def capabilities(self, _: CapabilitiesRequest) -> Capabilities:
        """Return what the neuron can do."""
        return await self.agent.announce_capabilities()

    async def health(self, _: HealthRequest) -> Health:
        """Return how the neuron is."""
        return await self.agent.report_health()

    async def drain(self, request: DrainRequest) -> Acknowledged:
        """Take no new work of this site, or take it again."""
        self.agent.executor.is_draining = request.draining
        self.agent.presence.host.notify()
        return Acknowledged()
