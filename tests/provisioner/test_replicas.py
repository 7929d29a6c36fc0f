# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import asyncio
from collections.abc import Callable

import pytest
from tests.conftest import Broker

from helexa.protocol import subjects
from helexa.protocol.errors import UnavailableError
from helexa.protocol.messages.events import EventType
from helexa.protocol.messages.models import ModelPolicy
from helexa.provisioner.operations import Operations
from helexa.provisioner.records import MODEL_WANTED

from .conftest import ON_DEMAND, Changes, Replica, ScriptedNeuron, Site, flushed, model


async def pair(site: Site) -> tuple[Replica, Replica]:
    """Return a replica that leads and one that does not."""
    leader = await site.replica("p1")
    await leader.leads()
    return leader, await site.replica("p2")


@pytest.mark.accepts("PR-12", "NET-3")
async def test_when_the_leader_dies_the_other_goes_on(site: Site) -> None:
    leader, other = await pair(site)
    first = await site.neuron("n1")
    await leader.put(model("m"))
    await first.until(lambda: first.loaded == {"m"})
    fence = first.fence
    await leader.kill()
    await site.expire_lease()
    await other.leads()
    second = await site.neuron("n2")
    await other.put(model("m", policy=ModelPolicy(on_every_neuron=True)))
    await second.until(lambda: second.loaded == {"m"})
    assert first.loads["m"] <= 2
    assert second.fence > fence


async def test_a_new_leader_does_not_repeat_a_load_that_is_under_way(site: Site) -> None:
    leader, other = await pair(site)
    neurons = [await site.neuron(name) for name in ("n1", "n2")]
    opened = asyncio.Event()
    for neuron in neurons:
        neuron.gates["m"] = opened
    await leader.put(model("m", policy=ON_DEMAND))
    await other.until(lambda: "m" in other.provisioner.state.catalogue.models)
    await asyncio.gather(*(site.ensure("m", waiting=100) for _ in range(20)))
    await leader.until(lambda: len(leader.placed("m")) == 1)
    (place,) = leader.placed("m")
    (holder,) = [neuron for neuron in neurons if neuron.name == place]
    await holder.until(lambda: holder.loads["m"] == 1)
    await leader.kill()
    await site.expire_lease()
    await other.leads()
    await asyncio.gather(*(site.ensure("m", waiting=100) for _ in range(20)))
    await other.put(model("marker", policy=ModelPolicy(on_every_neuron=True)))
    for neuron in neurons:
        await neuron.until(lambda neuron=neuron: "marker" in neuron.loaded)  # type: ignore[misc] # bound early
    opened.set()
    await holder.until(lambda: holder.loaded == {"m", "marker"})
    assert sum(neuron.loads["m"] for neuron in neurons) == 1


async def test_a_new_leader_leaves_alone_what_is_right(site: Site) -> None:
    leader, other = await pair(site)
    neurons = [await site.neuron(name) for name in ("n1", "n2", "n3")]
    await leader.put(model("m"))
    await leader.until(lambda: len(leader.placed("m")) == 1)
    (place,) = leader.placed("m")
    (holder,) = [neuron for neuron in neurons if neuron.name == place]
    await holder.until(lambda: holder.loaded == {"m"})
    await leader.stop()
    await other.leads()
    await other.put(model("marker", policy=ModelPolicy(on_every_neuron=True)))
    for neuron in neurons:
        await neuron.until(lambda neuron=neuron: "marker" in neuron.loaded)  # type: ignore[misc] # bound early
    assert other.placed("m") == (place,)
    assert sum(neuron.loads["m"] for neuron in neurons) == 1


async def test_a_stopped_leader_hands_over_at_once(site: Site) -> None:
    leader, other = await pair(site)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await leader.stop()
    await other.leads()
    assert loop.time() - began < 5


async def put_until(
    is_done: Callable[[], bool], replica: Replica, neuron: ScriptedNeuron, prefix: str
) -> None:
    """Ask for one model after the other, until it is done."""
    asked: set[str] = set()
    while not is_done() and len(asked) < 20:
        name = f"{prefix}{len(asked)}"
        asked.add(name)
        await replica.put(model(name))
        await neuron.until(lambda: asked <= neuron.loaded)
    assert is_done()


@pytest.mark.accepts("CX-3", "PORT-8")
async def test_the_orders_of_a_leader_that_was_replaced_are_refused(site: Site) -> None:
    old, new = await pair(site)
    neuron = await site.neuron("n1")
    await old.stop_renewing()
    await site.expire_lease()
    await new.leads()
    stale = old.provisioner.lease.fence
    # Both see what is asked for, and either may be the first to order it.
    await put_until(lambda: neuron.fence > stale, new, neuron, "m")
    await put_until(lambda: bool(neuron.refused), new, neuron, "n")
    assert old.provisioner.lease.is_held
    for name in neuron.loaded:
        assert old.provisioner.state.wishes.backoff.of("n1", name) is None


@pytest.mark.accepts("CX-14")
async def test_whichever_replica_is_asked_the_leader_loads(site: Site) -> None:
    leader, other = await pair(site)
    neuron = await site.neuron("n1")
    await leader.put(model("m", policy=ON_DEMAND))
    await other.until(lambda: "m" in other.provisioner.state.catalogue.models)
    await other.until(lambda: other.provisioner.state.registry.host("n1") is not None)
    await leader.service.drain(1)
    answers = await asyncio.gather(*(site.ensure("m") for _ in range(5)))
    await neuron.until(lambda: neuron.loaded == {"m"})
    assert {answer.state for answer in answers} <= {"loading", "loaded"}
    assert neuron.loads == {"m": 1}
    await site.event(MODEL_WANTED, model="m")


@pytest.mark.accepts("CX-17")
async def test_an_operator_may_turn_to_any_replica(site: Site) -> None:
    leader, other = await pair(site)
    neuron = await site.neuron("n1")
    await other.put(model("m", policy=ON_DEMAND))
    await other.until(lambda: other.provisioner.state.registry.host("n1") is not None)
    operations = Operations(other.provisioner)
    await operations.load("m")
    await neuron.until(lambda: neuron.loaded == {"m"})
    await operations.unload("m")
    await neuron.until(lambda: neuron.loaded == set())
    assert leader.provisioner.lease.is_held


@pytest.mark.accepts("LAB-11")
async def test_every_replica_knows_the_decisions(site: Site) -> None:
    leader, other = await pair(site)
    told = Changes()
    await other.bus.subscribe(
        subjects.STATE_EVENT, lambda _: told.notify(), past=EventType.PLACEMENT_CHANGED
    )
    await flushed(other.bus)
    neuron = await site.neuron("n1")
    await leader.put(model("m"))
    await neuron.until(lambda: neuron.loaded == {"m"})
    await told.until(lambda: bool(other.provisioner.decisions.last(9, "m")))
    (heard,) = other.provisioner.decisions.last(9, "m")
    (own,) = leader.provisioner.decisions.last(9, "m")
    assert heard == own
    assert heard.neurons == ("n1",)
    assert heard.decided_by == "p1"
    assert heard.needs == "100 MiB (declared)"


@pytest.mark.accepts("NR-15")
async def test_after_a_restart_of_the_server_everything_goes_on(site: Site, broker: Broker) -> None:
    leader = await site.replica("p1", neuron_timeout_s=60)
    neuron = await site.neuron("n1")
    await leader.put(model("m"))
    await neuron.until(lambda: neuron.loaded == {"m"})
    broker.stop()
    broker.start()
    async with asyncio.timeout(20):
        while True:
            try:
                await leader.put(model("n"))
            except UnavailableError:
                continue
            break
    await neuron.until(lambda: neuron.loaded == {"m", "n"})
    assert neuron.loads == {"m": 1, "n": 1}
    assert (await site.ensure("m")).state == "loaded"
