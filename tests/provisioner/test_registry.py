# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What is known of the neurons, and what of it makes the provisioner plan anew."""

import pytest

from helexa.bus.buckets import Entry
from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.protocol.codec import pack, pack_plain
from helexa.protocol.messages.models import ModelId, ModelState, ModelStatus
from helexa.protocol.messages.neurons import HardwareSummary, NeuronDescriptor, NeuronStatus
from helexa.protocol.reports import read_report
from helexa.provisioner.announcer import Announcer
from helexa.provisioner.identities import Identities
from helexa.provisioner.registry import Registry

TIMEOUT_S = 10.0


class Watched:
    """A registry that is connected to nothing, and how often it called for a new plan."""

    def __init__(self) -> None:
        self.now = 100.0
        self.changes = 0
        bus = Bus(Connection((), "test"))
        self.registry = Registry(
            bus, Identities(bus), Announcer(bus), timeout_s=TIMEOUT_S, clock=lambda: self.now
        )
        self.registry.on_change(self._count)

    def register(self, revision: int, **said: object) -> None:
        descriptor = NeuronDescriptor.model_validate({"neuron_id": "n", "instance": "i"} | said)
        self.registry.mirror.learn("n", Entry(descriptor, revision))

    def report(self, sequence: int, *models: ModelStatus, free: int = 1) -> None:
        status = NeuronStatus(
            neuron_id="n",
            instance="i",
            sequence=sequence,
            models=models,
            hardware=HardwareSummary(memory_free_bytes=free),
        )
        encoded = pack(status)
        self.registry.take_report(read_report(encoded), encoded)

    def _count(self) -> None:
        self.changes += 1


@pytest.fixture
async def watched() -> Watched:
    return Watched()


async def test_a_registration_that_is_renewed_changes_nothing(watched: Watched) -> None:
    watched.register(1)
    watched.register(2, hardware={"memory_free_bytes": 7})
    assert watched.changes == 1
    watched.register(3, backend_kinds=("other",))
    watched.register(4, instance="j", backend_kinds=("other",))
    assert watched.changes == 3


async def test_a_report_changes_something_when_a_model_does(watched: Watched) -> None:
    watched.register(1)
    model = ModelStatus(model=ModelId("m"), state=ModelState.LOADING, progress=0.1)
    watched.report(1, model)
    before = watched.changes
    watched.report(2, model.model_copy(update={"progress": 0.9, "slots_busy": 1}), free=2)
    assert watched.changes == before
    watched.report(3, model.model_copy(update={"state": ModelState.LOADED}))
    assert watched.changes == before + 1


async def test_who_looks_sees_the_whole_of_the_last_report(watched: Watched) -> None:
    watched.register(1)
    watched.report(1, free=1)
    watched.report(2, free=2)
    host = watched.registry.host("n")
    assert host is not None
    assert host.status is not None
    assert (host.status.sequence, host.status.hardware.memory_free_bytes) == (2, 2)
    watched.now += TIMEOUT_S + 1
    assert (watched.registry.host("n"), watched.registry.hosts()) == (None, [])
    assert watched.registry.size == 0


async def test_hardware_that_makes_no_sense_hides_no_other_neuron(watched: Watched) -> None:
    watched.register(1)
    said = NeuronStatus(neuron_id="n", instance="i", sequence=1).model_dump()
    encoded = pack_plain(said | {"hardware": "much"})
    watched.registry.take_report(read_report(encoded), encoded)
    (host,) = watched.registry.hosts()
    assert host.status is None
