# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import asyncio

import pytest
from typing_extensions import override

from helexa.protocol import subjects
from helexa.protocol.errors import (
    IdentityConflictError,
    ModelFailedError,
    NoCapacityError,
    UnknownModelError,
)
from helexa.protocol.messages.events import EventType
from helexa.protocol.messages.models import ModelPolicy, ModelState
from helexa.protocol.messages.provisioning import Ensured
from helexa.provisioner.neuron_client import RemoteNeuron
from helexa.provisioner.operations import Operations
from helexa.provisioner.seed import seed_catalogue

from .conftest import MIB, ON_DEMAND, Changes, Held, Replica, ScriptedNeuron, Site, flushed, model


async def loaded_somewhere(neurons: list[ScriptedNeuron], name: str) -> ScriptedNeuron:
    """Return the first neuron that has loaded a model."""
    waiting = [
        asyncio.create_task(neuron.until(lambda neuron=neuron: name in neuron.loaded))  # type: ignore[misc] # bound early
        for neuron in neurons
    ]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return next(neuron for neuron in neurons if name in neuron.loaded)


@pytest.mark.accepts("PR-12", "CX-14", "LAB-5")
async def test_the_catalogue_is_loaded_without_being_asked(site: Site) -> None:
    replica = await site.replica()
    await replica.put(model("m"))
    neuron = await site.neuron("n1")
    await neuron.until(lambda: neuron.loaded == {"m"})
    assert replica.placed("m") == ("n1",)
    assert neuron.fence > 0


async def test_an_empty_catalogue_is_seeded_with_the_embedded_model(site: Site) -> None:
    replica = await site.replica(seed_default_model=True)
    state = replica.provisioner.state
    await replica.until(lambda: "helexa-tiny" in state.catalogue.models)
    first, second = (
        await site.neuron("n1", kinds="llama_cpp"),
        await site.neuron("n2", kinds="llama_cpp"),
    )
    for neuron in (first, second):
        await neuron.until(lambda neuron=neuron: neuron.loaded == {"helexa-tiny"})  # type: ignore[misc] # bound early


async def test_a_site_that_took_the_embedded_model_out_is_left_without_it(site: Site) -> None:
    first = await site.replica(seed_default_model=True)
    await first.until(lambda: "helexa-tiny" in first.provisioner.state.catalogue.models)
    neuron = await site.neuron("n1", kinds="llama_cpp")
    await neuron.until(lambda: neuron.loaded == {"helexa-tiny"})
    await Operations(first.provisioner).remove_model("helexa-tiny")
    await neuron.until(lambda: neuron.held == {})
    await first.stop()
    second = await site.replica("p2")
    state = second.provisioner.state
    assert state.catalogue.models == {}
    assert not await seed_catalogue(state.catalogue, state.placements)


@pytest.mark.accepts("CX-14")
async def test_five_who_ask_at_once_cause_one_load_and_two_models_load_in_parallel(
    site: Site,
) -> None:
    replica = await site.replica()
    await replica.put(model("a", policy=ON_DEMAND), model("b", policy=ON_DEMAND))
    neuron = await site.neuron("n1")
    neuron.gates = {"a": asyncio.Event(), "b": asyncio.Event()}
    asked = await asyncio.gather(*(site.ensure(name) for name in "aaaaab"))
    assert {each.state for each in asked} == {"loading"}
    await neuron.until(
        lambda: (
            {held.state for held in neuron.held.values()} == {ModelState.LOADING}
            and len(neuron.held) == 2
        )
    )
    again = await site.ensure("a")
    for gate in neuron.gates.values():
        gate.set()
    await neuron.until(lambda: neuron.loaded == {"a", "b"})
    assert again.state == "loading"
    assert again.neurons == ("n1",)
    assert neuron.loads == {"a": 1, "b": 1}


async def test_what_nobody_asks_for_is_not_loaded(site: Site) -> None:
    replica = await site.replica()
    await replica.put(model("quiet", policy=ON_DEMAND), model("m"))
    neuron = await site.neuron("n1")
    await neuron.until(lambda: neuron.loaded == {"m"})
    assert set(neuron.held) == {"m"}


async def test_asking_tells_how_it_stands(site: Site) -> None:
    replica = await site.replica()
    await replica.put(
        model("m", policy=ON_DEMAND, aliases="short"),
        model("huge", size=2000 * MIB, policy=ON_DEMAND),
        model("large", size=950 * MIB, policy=ON_DEMAND),
    )
    with pytest.raises(UnknownModelError):
        await site.ensure("nothing")
    with pytest.raises(NoCapacityError, match="no neuron has joined"):
        await site.ensure("m")
    neuron = await site.neuron("n1")
    await site.ensure("short")
    await neuron.until(lambda: neuron.loaded == {"m"})
    await replica.until(lambda: _has(replica, "n1", "m"))
    assert await site.ensure("m") == Ensured(state="loaded", neurons=("n1",))
    impossible = await site.ensure("huge")
    assert impossible.state == "impossible"
    assert "n1: needs 2.0 GiB (declared), has 1000 MiB in all" in impossible.reason
    with pytest.raises(NoCapacityError, match="no room for large: n1: needs 950 MiB"):
        await site.ensure("large")


def _has(replica: Replica, neuron: str, name: str) -> bool:
    host = replica.provisioner.state.registry.host(neuron)
    return host is not None and host.has_loaded(name)


@pytest.mark.accepts("FLOW-8", "PR-7")
async def test_a_load_that_fails_is_done_elsewhere_and_not_repeated_in_a_hot_loop(
    site: Site,
) -> None:
    replica = await site.replica(retry_first_s=30.0)
    broken = await site.neuron("broken", memory=1500 * MIB)
    good = await site.neuron("good")
    broken.broken["m"] = "corrupt file"
    await replica.put(model("m"))
    await good.until(lambda: good.loaded == {"m"})
    assert broken.loads == {"m": 1}
    failure = replica.provisioner.state.wishes.backoff.of("broken", "m")
    assert failure is not None
    assert failure.reason == "corrupt file"
    told = await site.event(EventType.PROVISIONING_RESPONSE, state="model_failed")
    assert told.neuron_id == "broken"


async def test_a_failure_that_is_answered_before_it_is_reported_counts_once(site: Site) -> None:
    replica = await site.replica(retry_first_s=30.0)
    neuron = await site.neuron("n1")
    neuron.broken["m"] = "nobody answers there"
    neuron.late.add("m")
    await replica.put(model("m"))
    await site.event(EventType.MODEL_STATE_CHANGED, model="m", state=ModelState.FAILED)
    failure = replica.provisioner.state.wishes.backoff.of("n1", "m")
    assert failure is not None
    assert failure.count == 1
    assert neuron.loads == {"m": 1}


async def test_a_load_that_failed_while_decisions_were_written_is_not_ordered_again(
    site: Site,
) -> None:
    replica = await site.replica(retry_first_s=30.0)
    neuron = await site.neuron("n1")
    neuron.gates["m"] = asyncio.Event()
    neuron.broken["m"] = "nobody answers there"
    state = replica.provisioner.state
    await replica.until(lambda: state.registry.host("n1") is not None)
    hosts = state.registry.hosts()
    await replica.put(model("m"))
    await neuron.until(lambda: neuron.loads["m"] == 1)
    wishes, plans = state.wishes.all(hosts), state.think()
    assert plans["m"].neurons == ["n1"]
    neuron.gates["m"].set()
    await site.event(EventType.PROVISIONING_RESPONSE, state="model_failed")
    async with asyncio.TaskGroup() as group:
        replica.provisioner.reconciler._orders.give(wishes, plans, hosts, group)  # noqa: SLF001 - as after a write that took until now
    assert neuron.loads == {"m": 1}


@pytest.mark.accepts("FLOW-8")
async def test_who_waits_is_told_that_it_fails_and_it_is_tried_again_later(site: Site) -> None:
    replica = await site.replica(retry_first_s=1.0)
    neuron = await site.neuron("n1")
    neuron.broken["m"] = "corrupt file"
    await replica.put(model("m"))
    await site.event(EventType.PROVISIONING_RESPONSE, state="model_failed")
    with pytest.raises(ModelFailedError, match="corrupt file"):
        await site.ensure("m")
    del neuron.broken["m"]
    await neuron.until(lambda: neuron.loaded == {"m"})
    assert neuron.loads == {"m": 2}


@pytest.mark.accepts("PR-12", "CX-8")
async def test_the_replicas_of_a_host_that_vanishes_are_restored_elsewhere(site: Site) -> None:
    replica = await site.replica()
    neurons = [await site.neuron(name) for name in ("n1", "n2")]
    await replica.put(model("m"))
    first = await loaded_somewhere(neurons, "m")
    (other,) = [neuron for neuron in neurons if neuron is not first]
    await first.vanish()
    await other.until(lambda: other.loaded == {"m"})
    await site.event(EventType.NEURON_REMOVED, neuron_id=first.name)
    assert replica.placed("m") == (other.name,)


@pytest.mark.accepts("PR-12", "CX-7")
async def test_a_neuron_that_is_restarted_in_the_middle_of_a_load_is_asked_anew(
    site: Site,
) -> None:
    replica = await site.replica()
    first = await site.neuron("n1")
    first.gates["m"] = asyncio.Event()
    await replica.put(model("m"))
    await first.until(lambda: first.loads["m"] == 1)
    await first.vanish()
    second = await site.neuron("n1")
    await second.until(lambda: second.loaded == {"m"})


async def test_a_load_whose_answer_is_lost_is_known_by_the_reports(site: Site) -> None:
    replica = await site.replica()
    neuron = await site.neuron("n1")
    neuron.silent.add("m")
    await replica.put(model("m"), model("n"))
    await neuron.until(lambda: neuron.loaded == {"m", "n"})
    neuron.silent.clear()
    changed = model("m").model_copy(update={"args": ("--new",)})
    await replica.put(changed)
    await neuron.until(lambda: neuron.held["m"].running == changed)
    assert neuron.loads == {"m": 2, "n": 1}


@pytest.mark.accepts("NR-19")
async def test_a_neuron_that_says_goodbye_is_dropped_at_once(site: Site) -> None:
    replica = await site.replica(neuron_timeout_s=60)
    neurons = [await site.neuron(name) for name in ("n1", "n2")]
    await replica.put(model("m"))
    first = await loaded_somewhere(neurons, "m")
    (other,) = [neuron for neuron in neurons if neuron is not first]
    await first.depart(instance="an earlier one")
    assert replica.provisioner.state.registry.host(first.name) is not None
    await first.depart()
    await other.until(lambda: other.loaded == {"m"})
    assert replica.provisioner.state.registry.host(first.name) is None


@pytest.mark.accepts("CX-9", "NR-12")
async def test_a_changed_configuration_goes_round_one_replica_at_a_time(site: Site) -> None:
    replica = await site.replica()
    neurons = [await site.neuron(name) for name in ("n1", "n2")]
    policy = ModelPolicy(on_every_neuron=True)
    await replica.put(model("m", policy=policy))
    for neuron in neurons:
        await neuron.until(lambda neuron=neuron: neuron.loaded == {"m"})  # type: ignore[misc] # bound early
    changed = model("m", policy=policy).model_copy(update={"args": ("--new",)})
    lowest = [2]
    for neuron in neurons:
        neuron.changes = _Watching(neuron.changes, neurons, lowest)
    await replica.put(changed)
    for neuron in neurons:
        await neuron.until(lambda neuron=neuron: neuron.held["m"].running == changed)  # type: ignore[misc] # bound early
    assert lowest == [1]
    assert [neuron.loads["m"] for neuron in neurons] == [2, 2]


class _Watching(Changes):
    """Keeps the lowest number of neurons that had the model loaded at any change."""

    def __init__(self, inner: Changes, neurons: list[ScriptedNeuron], lowest: list[int]) -> None:
        super().__init__()
        self._inner = inner
        self._neurons = neurons
        self._lowest = lowest

    @override
    def notify(self) -> None:
        self._lowest[0] = min(self._lowest[0], sum(bool(each.loaded) for each in self._neurons))
        self._inner.notify()
        super().notify()


@pytest.mark.accepts("LAB-6", "CX-9")
async def test_a_model_taken_out_is_unloaded_and_forgotten(site: Site) -> None:
    replica = await site.replica()
    neuron = await site.neuron("n1")
    await replica.put(model("m"), model("stays"))
    await neuron.until(lambda: neuron.loaded == {"m", "stays"})
    await Operations(replica.provisioner).remove_model("m")
    await neuron.until(lambda: set(neuron.held) == {"stays"})
    with pytest.raises(UnknownModelError):
        await site.ensure("m")
    await replica.put(model("m"))
    await neuron.until(lambda: neuron.loaded == {"m", "stays"})


async def test_models_of_another_site_on_a_shared_neuron_are_left_alone(site: Site) -> None:
    replica = await site.replica()
    neuron = await site.neuron("n1")
    foreign = model("theirs")
    neuron.held["theirs"] = Held(state=ModelState.LOADED, config=foreign, running=foreign)
    await neuron.report()
    await replica.put(model("ours"))
    await neuron.until(lambda: "ours" in neuron.loaded)
    assert neuron.loaded == {"ours", "theirs"}


@pytest.mark.accepts("LAB-6")
async def test_unloading_lasts_until_the_model_is_asked_for_again(site: Site) -> None:
    replica = await site.replica()
    neuron = await site.neuron("n1")
    await replica.put(model("m"), model("other"))
    await neuron.until(lambda: neuron.loaded == {"m", "other"})
    operations = Operations(replica.provisioner)
    await operations.unload("m")
    await neuron.until(lambda: neuron.loaded == {"other"})
    await replica.put(model("later"))
    await neuron.until(lambda: neuron.loaded == {"other", "later"})
    await site.ensure("m")
    await neuron.until(lambda: neuron.loaded == {"m", "other", "later"})


@pytest.mark.accepts("LAB-6", "CX-16")
async def test_an_idle_model_leaves_and_comes_back_on_demand(site: Site) -> None:
    replica = await site.replica()
    neuron = await site.neuron("n1")
    policy = ModelPolicy(min_replicas=0, idle_unload_s=60, cool_down_s=0)
    await replica.put(model("m", policy=policy))
    await site.ensure("m")
    await neuron.until(lambda: neuron.loaded == {"m"})
    neuron.held["m"].idle_s = 61
    await neuron.until(lambda: neuron.held["m"].state == ModelState.UNLOADED)
    neuron.held["m"].idle_s = 0
    await site.ensure("m")
    await neuron.until(lambda: neuron.loaded == {"m"})


@pytest.mark.accepts("CX-13", "CX-16")
async def test_what_is_displaced_has_left_before_its_successor_comes(site: Site) -> None:
    replica = await site.replica()
    neuron = await site.neuron("n1", memory=1000 * MIB)
    await replica.put(model("low", size=800 * MIB))
    await neuron.until(lambda: neuron.loaded == {"low"})
    await replica.put(model("high", size=800 * MIB, policy=ModelPolicy(priority=1)))
    await neuron.until(lambda: "high" in neuron.held)
    assert neuron.held["low"].state == ModelState.UNLOADED
    await neuron.until(lambda: neuron.loaded == {"high"})
    assert replica.placed("low") == ()
    (decision, *_) = replica.provisioner.decisions.last(1, "low")
    assert decision.reasons == ("leaves n1: makes room for high",)


@pytest.mark.accepts("FLOW-8")
async def test_a_model_that_breaks_by_itself_is_placed_elsewhere(site: Site) -> None:
    replica = await site.replica(retry_first_s=30)
    neurons = [await site.neuron(name) for name in ("n1", "n2")]
    await replica.put(model("m"))
    first = await loaded_somewhere(neurons, "m")
    (other,) = [neuron for neuron in neurons if neuron is not first]
    await site.event(EventType.PROVISIONING_RESPONSE, state="ok", reason="load_model")
    first.held["m"].state = ModelState.FAILED
    first.held["m"].error = "the backend keeps crashing"
    await first.report()
    await other.until(lambda: other.loaded == {"m"})


async def test_a_draining_neuron_is_relieved_and_keeps_what_it_has(site: Site) -> None:
    replica = await site.replica()
    neurons = [await site.neuron(name) for name in ("n1", "n2")]
    await replica.put(model("m"))
    first = await loaded_somewhere(neurons, "m")
    (other,) = [neuron for neuron in neurons if neuron is not first]
    await Operations(replica.provisioner).drain(first.name, draining=True)
    await other.until(lambda: other.loaded == {"m"})
    assert first.loaded == {"m"}


@pytest.mark.accepts("CX-7")
async def test_an_id_belongs_to_the_key_that_came_first(site: Site) -> None:
    replica = await site.replica()
    await site.neuron("n1", key="UOWNER")
    thief = ScriptedNeuron(site.url, "n1", key="UTHIEF")
    with pytest.raises(IdentityConflictError):
        await thief.__aenter__()
    await thief.vanish()
    nameless = ScriptedNeuron(site.url, "n1")
    with pytest.raises(IdentityConflictError):
        await nameless.__aenter__()
    await nameless.vanish()
    host = replica.provisioner.state.registry.host("n1")
    assert host is not None
    assert host.descriptor.public_key == "UOWNER"


@pytest.mark.accepts("CX-7", "CX-4")
async def test_a_neuron_that_comes_back_replaces_itself(site: Site) -> None:
    replica = await site.replica()
    first = await site.neuron("n1", key="UOWNER")
    await first.vanish()
    second = await site.neuron("n1", key="UOWNER")
    await replica.put(model("m"))
    await second.until(lambda: second.loaded == {"m"})
    (host,) = replica.provisioner.state.registry.hosts()
    assert host.descriptor.instance == second.instance


@pytest.mark.accepts("CX-8")
async def test_silence_degrades_before_it_removes(site: Site) -> None:
    await site.replica(neuron_timeout_s=4.0)
    neuron = await site.neuron("n1")
    await neuron.vanish()
    await site.event(EventType.NEURON_REMOVED, neuron_id="n1")
    kinds = [event.type for event in site.events if event.neuron_id == "n1"]
    assert kinds == [
        EventType.NEURON_REGISTERED,
        EventType.NEURON_DEGRADED,
        EventType.NEURON_REMOVED,
    ]


@pytest.mark.accepts("PR-9")
async def test_the_remote_control_of_a_neuron_reaches_it(site: Site) -> None:
    await site.replica()
    neuron = await site.neuron("n.1 x")
    remote = RemoteNeuron(site.bus, "n.1 x")
    config = model("m")
    assert (await remote.configure_model(config, fence=7)).outcome.kind == "ok"
    assert (await remote.load_model(config.model, fence=7)).outcome.kind == "ok"
    assert neuron.loaded == {"m"}
    assert (await remote.unload_model(config.model, fence=7)).outcome.kind == "ok"
    assert neuron.loaded == set()
    await remote.drain(draining=True)
    assert neuron.draining


@pytest.mark.accepts("CX-28")
async def test_neurons_and_dashboards_are_told_of_a_stop(site: Site) -> None:
    replica = await site.replica()
    told: asyncio.Queue[str] = asyncio.Queue()
    await site.bus.subscribe(subjects.NOTICE, lambda notice: told.put_nowait(notice.reason))
    await flushed(site.bus)
    await replica.provisioner.say_goodbye("maintenance")
    assert await asyncio.wait_for(told.get(), 5) == "maintenance"
    await site.event(EventType.CORTEX_SHUTDOWN_NOTICE, reason="maintenance")
