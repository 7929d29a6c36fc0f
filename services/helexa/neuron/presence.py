# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Who this neuron is and how it is doing, as it tells its sites."""

import socket
import time
from dataclasses import dataclass, field

from helexa.neuron.hardware_feed import HardwareFeed
from helexa.neuron.models import ModelHost
from helexa.process.version import software_version
from helexa.protocol.messages.models import Price
from helexa.protocol.messages.neurons import NeuronDescriptor, NeuronStatus


@dataclass(slots=True)
class Presence:
    """One neuron, seen from outside; the same for all its sites."""

    neuron_id: str
    public_key: str
    instance: str
    host: ModelHost
    hardware: HardwareFeed
    price: Price = field(default_factory=Price)
    operator: dict[str, str] = field(default_factory=dict)
    is_draining: bool = False
    _began_s: float = field(default_factory=time.monotonic)

    def descriptor(self) -> NeuronDescriptor:
        """Return who the neuron is."""
        return NeuronDescriptor(
            neuron_id=self.neuron_id,
            public_key=self.public_key,
            instance=self.instance,
            software_version=software_version(),
            host=socket.gethostname(),
            operator=self.operator,
            price=self.price,
            backend_kinds=self.host.kinds,
            slots_total=self.host.slots.total,
            hardware=self.hardware.latest,
        )

    def status(self, sequence: int, *, is_draining: bool = False) -> NeuronStatus:
        """Return how the neuron is doing, as report number `sequence`."""
        return NeuronStatus(
            neuron_id=self.neuron_id,
            instance=self.instance,
            sequence=sequence,
            uptime_s=round(time.monotonic() - self._began_s, 3),
            draining=self.is_draining or is_draining,
            slots_total=self.host.slots.total,
            slots_busy=self.host.slots.busy,
            models=self.host.statuses(),
            hardware=self.hardware.latest,
            price=self.price,
        )
