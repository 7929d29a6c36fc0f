# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Neurons that only report: each with a key and a connection of its own, all in one process.

    python -m tests.benchmarks.growth.crowd URL DATA_DIRECTORY COUNT

Each registers and then says each second how it is, as a host with one model and one GPU does; what
changes from second to second on such a host changes here. None of them can be asked for anything.
Prints `reporting` when all do.
"""

import asyncio
import sys
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.protocol import subjects
from helexa.protocol.errors import HelexaError
from helexa.protocol.messages.models import ModelCapability, ModelId, ModelState, ModelStatus
from helexa.protocol.messages.neurons import (
    GpuSummary,
    HardwareSummary,
    NeuronDescriptor,
    NeuronStatus,
    Registration,
)
from helexa.protocol.naming import encode_token, instance_id
from helexa.protocol.subjects import Role, inbox_prefix
from helexa.site.enrolment import EnrolledUsers
from helexa.site.keys import Identity
from helexa.site.layout import DataDir

GIB = 1024**3
INTERVAL_S = 1.0
REGISTER_EVERY = 20
REGISTER_WITHIN_S = 10.0
CONNECT_AT_ONCE = 20
MODELS = 50
"""The crowd has so many models among it."""


def name_of(number: int) -> str:
    return f"sim-{number:04}"


def enrol(data: DataDir, count: int) -> None:
    """Make the keys of so many neurons, and let them in when the server starts."""
    data.create()
    enrolled = EnrolledUsers()
    for number in range(count):
        name = name_of(number)
        enrolled = enrolled.add_neuron(name, Identity.load_or_create(data.neuron_key(name)).public)
    enrolled.save(data.neurons_conf)


@dataclass
class SimulatedNeuron:
    """One of them."""

    url: str
    data: DataDir
    number: int
    instance: str = field(default_factory=instance_id)
    reports: int = 0

    async def run(self, connecting: asyncio.Semaphore, reporting: asyncio.Queue[str]) -> None:
        """Report until cancelled; say so in `reporting` when that has begun."""
        name = name_of(self.number)
        token, key = encode_token(name), Identity.load(self.data.neuron_key(name))
        prefix = inbox_prefix(Role.NEURON, token)
        async with Bus(Connection((self.url,), name, key.seed, prefix)) as bus:
            async with connecting:
                await bus.wait_connected()
                await self._register(bus, key)
            reporting.put_nowait(name)
            while True:
                await asyncio.sleep(INTERVAL_S)
                self.reports += 1
                await bus.publish(subjects.NEURON_STATUS, self._status(), neuron=token)
                if (self.reports + self.number) % REGISTER_EVERY == 0:
                    await self._register(bus, key)

    async def _register(self, bus: Bus, key: Identity) -> None:
        status = self._status()
        descriptor = NeuronDescriptor(
            neuron_id=status.neuron_id,
            public_key=key.public,
            instance=self.instance,
            slots_total=status.slots_total,
            hardware=status.hardware,
        )
        asked = Registration(descriptor=descriptor, status=status)
        try:
            await bus.request(
                subjects.REGISTER,
                asked,
                deadline_s=REGISTER_WITHIN_S,
                neuron=encode_token(status.neuron_id),
            )
        except HelexaError as error:
            sys.stderr.write(f"{status.neuron_id} is not registered: {error.message}\n")

    def _status(self) -> NeuronStatus:
        busy = self.reports % 4
        model = ModelStatus(
            model=ModelId(f"other-{self.number % MODELS}"),
            state=ModelState.LOADED,
            slots_total=16,
            slots_busy=busy,
            capability=ModelCapability(max_context_tokens=32_768),
            config_digest="0" * 64,
            tokens_per_s=busy * 30.0,
            requests_done=self.reports,
            memory_bytes=60 * GIB,
        )
        card = GpuSummary(
            index=0,
            uuid="GPU-00000000-0000-0000-0000-000000000000",
            name="Simulated",
            memory_total_bytes=80 * GIB,
            memory_free_bytes=20 * GIB - self.reports,
            utilization_percent=25.0 * busy,
            temperature_c=40.0 + busy,
            power_w=100.0 + busy,
            power_limit_w=700.0,
            compute_capability="9.0",
        )
        return NeuronStatus(
            neuron_id=name_of(self.number),
            instance=self.instance,
            sequence=self.reports,
            uptime_s=float(self.reports),
            slots_total=16,
            slots_busy=busy,
            models=(model,),
            hardware=HardwareSummary(
                cpu_model="Simulated",
                cpu_cores=32,
                cpu_percent=5.0 * busy,
                memory_total_bytes=256 * GIB,
                memory_free_bytes=128 * GIB - self.reports,
                disk_free_bytes=1024 * GIB,
                gpus=(card,),
            ),
        )


async def crowd(url: str, data: DataDir, count: int) -> None:
    """Report for so many neurons until cancelled."""
    connecting = asyncio.Semaphore(CONNECT_AT_ONCE)
    reporting: asyncio.Queue[str] = asyncio.Queue()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(SimulatedNeuron(url, data, number).run(connecting, reporting))
        for _ in range(count):
            await reporting.get()
        print("reporting", flush=True)


if __name__ == "__main__":
    url, directory, count = sys.argv[1:]
    uvloop.run(crowd(url, DataDir(Path(directory)), int(count)))
