# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import time
from dataclasses import replace

import pytest

from helexa.protocol.messages.models import (
    ModelCapability,
    ModelConfig,
    ModelId,
    ModelPolicy,
    ModelState,
    ModelStatus,
)
from helexa.protocol.messages.neurons import (
    GpuSummary,
    HardwareSummary,
    NeuronDescriptor,
    NeuronStatus,
)
from helexa.provisioner.backoff import Failure
from helexa.provisioner.hosts import Host, Plan, Wish
from helexa.provisioner.memory import GIB
from helexa.provisioner.placement import plan_all


def held(
    model: str,
    *,
    idle_s: float = 0.0,
    busy: int = 0,
    slots: int = 4,
    memory: int | None = None,
    state: str = ModelState.LOADED,
) -> ModelStatus:
    return ModelStatus(
        model=ModelId(model),
        state=state,
        idle_s=idle_s,
        slots_total=slots,
        slots_busy=busy,
        memory_bytes=memory,
    )


def host(
    name: str,
    *models: ModelStatus,
    free: float = 8,
    total: float = 16,
    gpu_free: float | None = None,
    gpu_total: float = 0,
    kinds: tuple[str, ...] = (),
    draining: bool = False,
) -> Host:
    gpus: tuple[GpuSummary, ...] = ()
    if gpu_total:
        card = GpuSummary(
            index=0,
            memory_total_bytes=int(gpu_total * GIB),
            memory_free_bytes=None if gpu_free is None else int(gpu_free * GIB),
        )
        gpus = (card,)
    hardware = HardwareSummary(
        memory_free_bytes=int(free * GIB), memory_total_bytes=int(total * GIB), gpus=gpus
    )
    status = NeuronStatus(
        neuron_id=name,
        instance="i",
        sequence=1,
        draining=draining,
        models=models,
        hardware=hardware,
    )
    return Host(NeuronDescriptor(neuron_id=name, backend_kinds=kinds), status)


def wish(  # noqa: PLR0913 - each test names what matters to it
    model: str,
    *,
    size: float | None = 4,
    vram: float | None = None,
    current: tuple[str, ...] = (),
    waiting: int = 0,
    asked: bool = False,
    asked_neurons: tuple[str, ...] = (),
    stopped: bool = False,
    changed_s_ago: float = float("inf"),
    policy: ModelPolicy | None = None,
) -> Wish:
    capability = ModelCapability(
        memory_bytes=None if size is None else int(size * GIB),
        vram_bytes=None if vram is None else int(vram * GIB),
    )
    config = ModelConfig(
        model=ModelId(model),
        backend_kind="any",
        capability=capability,
        policy=policy or ModelPolicy(),
    )
    return Wish(
        config=config,
        current=current,
        waiting=waiting,
        asked=asked,
        asked_neurons=asked_neurons,
        stopped=stopped,
        changed_s_ago=changed_s_ago,
    )


def failing(made: Wish, neuron: str, *, count: int = 1, blocked: bool = True) -> Wish:
    return replace(
        made,
        failures={neuron: Failure(count, "out of memory", 0.0)},
        blocked=frozenset({neuron}) if blocked else frozenset(),
    )


def plan(made: Wish, *hosts: Host) -> Plan:
    return plan_all([made], hosts)[made.model]


def placed(made: Wish, *hosts: Host) -> list[str]:
    return sorted(plan(made, *hosts).neurons)


ON_DEMAND = ModelPolicy(min_replicas=0)


@pytest.mark.accepts("CX-13")
def test_a_model_goes_where_most_memory_is_free() -> None:
    assert placed(wish("m"), host("a", free=5), host("b", free=7)) == ["b"]


@pytest.mark.accepts("CX-13")
@pytest.mark.parametrize(
    ("made", "place", "reason", "lasting"),
    [
        (wish("m", size=9), host("a", free=8), "needs 9.0 GiB (declared), has 8.0 GiB free", False),
        (
            wish("m", size=17),
            host("a"),
            "needs 17.0 GiB (declared), has 16.0 GiB in all",
            True,
        ),
        (
            wish("m", size=None),
            host("a", free=0.5),
            "needs 1.0 GiB (assumed), has 512 MiB free",
            False,
        ),
        (
            wish("m", vram=10),
            host("a", gpu_total=24, gpu_free=8),
            "needs 10.0 GiB (declared), has 8.0 GiB free on its GPUs",
            False,
        ),
        (
            wish("m", vram=40),
            host("a", gpu_total=24, gpu_free=24),
            "needs 40.0 GiB (declared), has 24.0 GiB on all its GPUs",
            True,
        ),
        (wish("m", size=1, vram=10), host("a", free=9), "needs 10.0 GiB", False),
        (wish("m"), host("a", total=0, free=0), "its memory is not known", True),
        (wish("m"), host("a", kinds=("vllm",)), "cannot run 'any', only vllm", True),
        (
            wish("m", policy=ModelPolicy(pinned_neurons=("z",))),
            host("a"),
            "the model is pinned to other neurons",
            True,
        ),
        (wish("m"), host("a", draining=True), "draining", False),
        (wish("m"), replace(host("a"), steady=False, age_s=4.0), "silent for 4.0 s", False),
        (failing(wish("m"), "a"), host("a"), "failed there lately: out of memory", False),
    ],
)
def test_a_model_is_never_placed_where_it_cannot_run(
    made: Wish, place: Host, reason: str, *, lasting: bool
) -> None:
    found = plan(made, place)
    assert found.neurons == []
    assert reason in found.rejected["a"]
    assert found.impossible is lasting


def test_without_any_neuron_nothing_is_called_impossible() -> None:
    assert not plan(wish("m")).impossible


@pytest.mark.accepts("CX-13")
def test_memory_on_the_gpu_is_what_counts_for_a_model_that_wants_one() -> None:
    small = host("small", free=100, total=100, gpu_total=8, gpu_free=8)
    large = host("large", free=5, total=8, gpu_total=24, gpu_free=20)
    assert placed(wish("m", size=1, vram=12), small, large) == ["large"]


def test_a_gpu_that_does_not_tell_what_is_free_counts_as_used_by_what_is_declared() -> None:
    resident = wish("resident", size=0, vram=20, current=("a",))
    place = host("a", held("resident"), gpu_total=24, gpu_free=None)
    found = plan_all([resident, wish("m", size=0, vram=10)], [place])["m"]
    assert found.neurons == []
    assert "has 4.0 GiB free on its GPUs" in found.rejected["a"]


def test_measured_use_counts_where_it_is_more_than_declared() -> None:
    elsewhere = host("a", held("m", memory=6 * GIB), free=0)
    made = wish("m", size=1, current=("a",), policy=ModelPolicy(min_replicas=2))
    found = plan(made, elsewhere, host("b", free=5))
    assert found.neurons == ["a"]
    assert "needs 6.0 GiB (measured)" in found.rejected["b"]


def test_two_models_do_not_get_the_same_memory() -> None:
    found = plan_all([wish("m", size=5), wish("n", size=5)], [host("a", free=8)])
    assert sorted(len(each.neurons) for each in found.values()) == [0, 1]


def test_memory_of_a_model_that_is_still_loading_is_taken() -> None:
    loading = wish("m", size=5, current=("a",))
    place = host("a", held("m", state=ModelState.LOADING), free=8)
    assert plan_all([loading, wish("n", size=5)], [place])["n"].neurons == []


@pytest.mark.accepts("CX-16")
@pytest.mark.parametrize(
    ("policy", "waiting", "expected"),
    [
        (ModelPolicy(), 0, 1),
        (ModelPolicy(min_replicas=0), 0, 0),
        (ModelPolicy(min_replicas=0), 3, 1),
        (ModelPolicy(min_replicas=2), 0, 2),
        (ModelPolicy(min_replicas=9), 0, 3),
        (ModelPolicy(on_every_neuron=True), 0, 3),
        (ModelPolicy(on_every_neuron=True, max_replicas=2), 0, 2),
        (ModelPolicy(min_replicas=2, pinned_neurons=("a",)), 0, 1),
    ],
)
def test_policy_says_how_many_there_are(policy: ModelPolicy, waiting: int, expected: int) -> None:
    hosts = [host("a"), host("b"), host("c")]
    assert len(placed(wish("m", policy=policy, waiting=waiting), *hosts)) == expected


@pytest.mark.accepts("CX-16")
def test_pins_are_obeyed_even_where_another_host_is_better() -> None:
    made = wish("m", policy=ModelPolicy(pinned_neurons=("a",)))
    assert placed(made, host("a", free=4), host("b", free=16)) == ["a"]


@pytest.mark.accepts("CX-16")
def test_a_model_leaves_a_neuron_that_it_is_no_longer_pinned_to() -> None:
    made = wish("m", current=("b",), policy=ModelPolicy(pinned_neurons=("a",)))
    found = plan(made, host("a"), host("b", held("m")))
    assert found.neurons == ["a"]
    assert found.reasons[0] == "leaves b: the model is pinned to other neurons"


@pytest.mark.accepts("CX-16")
def test_too_many_replicas_are_reduced_by_the_idlest() -> None:
    made = wish("m", current=("a", "b"), policy=ModelPolicy(max_replicas=1))
    hosts = host("a", held("m", idle_s=90)), host("b", held("m", idle_s=10))
    assert placed(made, *hosts) == ["b"]


@pytest.mark.accepts("LAB-12")
def test_what_is_placed_stays_though_another_host_has_more_room() -> None:
    made = wish("m", current=("a",))
    found = plan(made, host("a", held("m"), free=0), host("b", free=16))
    assert found.neurons == ["a"]
    assert found.reasons == []


def test_a_host_that_holds_the_model_already_is_taken_first() -> None:
    assert placed(wish("m"), host("a", held("m"), free=0), host("b", free=16)) == ["a"]


@pytest.mark.accepts("PR-12", "CX-16")
def test_a_replica_of_a_host_that_is_gone_is_placed_elsewhere() -> None:
    found = plan(wish("m", current=("gone",)), host("b"))
    assert found.neurons == ["b"]
    assert found.reasons == [
        "leaves gone: the neuron is gone",
        "goes to b: 1 of it wanted, 0 there",
    ]


def test_a_host_that_has_not_reported_yet_keeps_what_it_holds() -> None:
    awaited = Host(NeuronDescriptor(neuron_id="a"), None)
    assert placed(wish("m", current=("a",)), awaited, host("b")) == ["a"]


def test_a_draining_host_is_replaced() -> None:
    made = wish("m", current=("a",))
    assert placed(made, host("a", held("m"), draining=True), host("b")) == ["b"]


@pytest.mark.accepts("FLOW-8")
def test_after_a_failure_the_model_goes_elsewhere() -> None:
    made = failing(wish("m", current=("a",)), "a")
    found = plan(made, host("a", free=16), host("b"))
    assert found.neurons == ["b"]
    assert "leaves a: it failed there: out of memory" in found.reasons


@pytest.mark.accepts("FLOW-8")
def test_a_host_where_it_failed_before_is_the_last_choice_even_after_the_wait() -> None:
    made = failing(wish("m"), "a", blocked=False)
    assert placed(made, host("a", free=16), host("b", free=5)) == ["b"]
    assert placed(made, host("a", free=16)) == ["a"]


def test_a_model_that_is_loaded_after_all_stays_though_an_order_failed() -> None:
    made = failing(wish("m", current=("a",)), "a")
    assert placed(made, host("a", held("m")), host("b")) == ["a"]


@pytest.mark.accepts("LAB-6", "CX-16")
@pytest.mark.parametrize(
    ("idle_s", "busy", "changed_s_ago", "policy", "left"),
    [
        (50, 0, 999, ModelPolicy(min_replicas=0, idle_unload_s=60), 1),
        (70, 0, 999, ModelPolicy(min_replicas=0, idle_unload_s=60), 0),
        (70, 1, 999, ModelPolicy(min_replicas=0, idle_unload_s=60), 1),
        (70, 0, 999, ModelPolicy(min_replicas=1, idle_unload_s=60), 1),
        (70, 0, 10, ModelPolicy(min_replicas=0, idle_unload_s=60, cool_down_s=30), 1),
        (9999, 0, 999, ModelPolicy(min_replicas=0), 1),
        (70, 0, 999, ModelPolicy(min_replicas=0, idle_unload_s=60, on_every_neuron=True), 1),
    ],
)
def test_an_idle_model_is_unloaded_as_policy_says(
    idle_s: float, busy: int, changed_s_ago: float, policy: ModelPolicy, left: int
) -> None:
    made = wish("m", current=("a",), policy=policy, changed_s_ago=changed_s_ago)
    assert len(placed(made, host("a", held("m", idle_s=idle_s, busy=busy)))) == left


def test_a_model_that_is_waited_for_is_not_unloaded_as_idle() -> None:
    policy = ModelPolicy(min_replicas=0, idle_unload_s=60)
    made = wish("m", current=("a",), policy=policy, waiting=1)
    assert placed(made, host("a", held("m", idle_s=70))) == ["a"]


@pytest.mark.accepts("CX-13")
def test_free_room_is_taken_before_anything_is_displaced() -> None:
    low = wish("low", size=10, current=("a",), policy=ModelPolicy(priority=0))
    high = wish("high", size=4, policy=ModelPolicy(priority=5))
    found = plan_all([low, high], [host("a", held("low"), free=3), host("b", free=4)])
    assert found["high"].neurons == ["b"]
    assert found["low"].neurons == ["a"]


@pytest.mark.accepts("CX-16")
@pytest.mark.parametrize(("resident", "newcomer", "displaced"), [(0, 1, True), (1, 0, False)])
def test_only_what_matters_less_is_displaced(
    resident: int, newcomer: int, *, displaced: bool
) -> None:
    there = wish("there", size=10, current=("a",), policy=ModelPolicy(priority=resident))
    new = wish("new", size=10, waiting=5, policy=ModelPolicy(priority=newcomer))
    found = plan_all([there, new], [host("a", held("there", idle_s=9999), free=2)])
    # Among equals a wait decides; a lower rank never displaces a higher one, however long unused.
    assert found["new"].neurons == (["a"] if displaced else [])
    assert found["there"].neurons == ([] if displaced else ["a"])


@pytest.mark.accepts("CX-16", "LAB-12")
@pytest.mark.parametrize(
    ("first", "second"), [("a-model", "b-model"), ("b-model", "a-model")], ids=["ab", "ba"]
)
def test_equals_take_turns_both_ways_but_only_for_somebody_who_waits(
    first: str, second: str
) -> None:
    policy = ModelPolicy(cool_down_s=30)

    def after(idle_s: float, waiting: int, changed_s_ago: float = 999, theirs: int = 0) -> str:
        there = wish(
            first,
            size=10,
            current=("h",),
            policy=policy,
            changed_s_ago=changed_s_ago,
            waiting=theirs,
        )
        new = wish(second, size=10, waiting=waiting, policy=policy)
        at = host("h", held(first, idle_s=idle_s), free=2)
        found = plan_all([there, new], [at])
        (holder,) = [name for name, each in found.items() if each.neurons]
        return holder

    assert after(idle_s=31, waiting=1) == second
    assert after(idle_s=31, waiting=0) == first
    assert after(idle_s=29, waiting=1) == first
    assert after(idle_s=31, waiting=1, changed_s_ago=5) == first
    assert after(idle_s=31, waiting=1, theirs=1) == first


def test_no_more_is_displaced_than_is_needed() -> None:
    low = ModelPolicy(priority=0)
    residents = [wish(name, size=3, current=("a",), policy=low) for name in ("x", "y", "z")]
    place = host("a", held("x", idle_s=5), held("y", idle_s=50), held("z", idle_s=20), free=1)
    new = wish("new", size=4, policy=ModelPolicy(priority=1))
    found = plan_all([*residents, new], [place])
    assert found["new"].neurons == ["a"]
    assert [name for name in "xyz" if not found[name].neurons] == ["y"]
    assert found["new"].reasons == ["goes to a, displacing y: 1 of it wanted, 0 there"]
    assert found["y"].reasons == ["leaves a: makes room for new"]


def test_a_displaced_model_finds_another_place_if_there_is_one() -> None:
    low = wish("low", size=6, current=("a",), policy=ModelPolicy(priority=0))
    pinned = ModelPolicy(priority=1, pinned_neurons=("a",))
    high = wish("high", size=6, policy=pinned)
    found = plan_all([low, high], [host("a", held("low"), free=2), host("b", free=7)])
    assert (found["high"].neurons, found["low"].neurons) == (["a"], ["b"])


def test_replicas_on_every_neuron_displace_nothing() -> None:
    there = wish("there", size=10, current=("b",), policy=ModelPolicy(priority=0))
    wide = wish("wide", size=4, policy=ModelPolicy(priority=9, on_every_neuron=True))
    found = plan_all([there, wide], [host("a"), host("b", held("there", idle_s=999), free=2)])
    assert found["wide"].neurons == ["a"]
    assert found["there"].neurons == ["b"]


def test_full_replicas_and_a_line_of_waiters_grow_in_one_step() -> None:
    hosts = [host("a", held("m", busy=4)), host("b"), host("c"), host("d")]
    made = wish("m", current=("a",), waiting=7)
    assert len(placed(made, *hosts)) == 3
    bounded = wish("m", current=("a",), waiting=7, policy=ModelPolicy(max_replicas=2))
    assert len(placed(bounded, *hosts)) == 2
    idle = wish("m", current=("a",), waiting=7)
    assert placed(idle, host("a", held("m", busy=3)), *hosts[1:]) == ["a"]


@pytest.mark.accepts("LAB-12")
def test_growing_waits_for_the_cool_down() -> None:
    hosts = [host("a", held("m", busy=4)), host("b")]
    assert placed(wish("m", current=("a",), waiting=1, changed_s_ago=59), *hosts) == ["a"]
    assert len(placed(wish("m", current=("a",), waiting=1, changed_s_ago=60), *hosts)) == 2


@pytest.mark.accepts("LAB-5", "LAB-6")
def test_an_operators_word_counts() -> None:
    hosts = host("a", held("m")), host("b", free=16)
    assert placed(wish("m", current=("a",), stopped=True), *hosts) == []
    assert placed(wish("m", policy=ON_DEMAND, asked=True), *hosts) == ["a"]
    assert placed(wish("m", policy=ON_DEMAND, asked_neurons=("b",)), *hosts) == ["b"]
    everywhere = ModelPolicy(on_every_neuron=True)
    assert placed(wish("m", policy=everywhere, stopped=True), *hosts) == []


def test_a_large_site_is_planned_as_fast_as_it_is_large() -> None:
    everywhere = wish("m", size=1, policy=ModelPolicy(on_every_neuron=True))
    hosts = [host(f"n{number:04}") for number in range(1000)]
    began = time.process_time()
    assert len(plan_all([everywhere], hosts)["m"].neurons) == 1000
    some = [wish(f"m{number:03}", size=0.01) for number in range(100)]
    assert all(len(plan.neurons) == 1 for plan in plan_all(some, hosts[:100]).values())
    assert time.process_time() - began < 2.0
