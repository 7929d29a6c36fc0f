# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The life of a model on a neuron."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from helexa.neuron.registry import MOVES, ModelRecord
from helexa.neuron.restarts import RestartPolicy
from helexa.protocol import subjects
from helexa.protocol.errors import (
    BackendError,
    BusyError,
    ConflictError,
    DeadlineExceededError,
    ModelFailedError,
)
from helexa.protocol.frames import FrameKind, read_error
from helexa.protocol.messages.models import ModelId, ModelState, ModelStatus
from helexa.protocol.messages.provisioning import (
    LoadModel,
    ProvisionRequest,
    UnloadModel,
    UpsertModelConfig,
)

from .conftest import MODEL, Rig, RigMaker, chunk, scripted

QUICK = RestartPolicy(initial_interval_s=0.01, maximum_attempts=2)


def shown(rig: Rig, model: str = MODEL) -> ModelStatus | None:
    models = rig.gateway.statuses[-1].models
    return next((status for status in models if status.model == model), None)


async def until_state(rig: Rig, state: str, model: str = MODEL) -> ModelStatus:
    def is_there() -> bool:
        status = shown(rig, model)
        return status is not None and status.state == state

    await rig.gateway.until(is_there)
    found = shown(rig, model)
    assert found is not None
    return found


def runs_as(rig: Rig, number: int) -> bool:
    (status,) = rig.node.presence.host.statuses()
    return len(rig.runtimes.made) == number and status.state == ModelState.LOADED


@pytest.fixture
async def empty(new_rig: RigMaker, nats_url: str) -> AsyncIterator[Rig]:
    async with new_rig({"home": nats_url}, restarts=QUICK) as made:
        yield made


def test_every_state_can_be_reached_and_left() -> None:
    reached = {state for after in MOVES.values() for state in after}
    assert reached | {ModelState.UNCONFIGURED} == set(MOVES)
    assert all(MOVES.values())


def test_a_move_that_makes_no_sense_is_refused() -> None:
    record = ModelRecord(ModelId("m"))
    with pytest.raises(ConflictError):
        record.move(ModelState.LOADED)


@pytest.mark.accepts("NR-12", "NR-16", "PORT-5", "RM-4")
async def test_a_load_before_the_configuration_asks_for_it(empty: Rig) -> None:
    outcome = await empty.gateway.order(LoadModel(model=MODEL))
    assert outcome.kind == "error"
    assert outcome.error == "send the model's configuration first"
    assert outcome.model_id == MODEL
    await until_state(empty, ModelState.UNCONFIGURED)


@pytest.mark.accepts("NR-11", "NR-16", "NR-17", "NR-18", "PR-6", "PR-7")
async def test_orders_lead_a_model_through_its_states_and_each_is_shown(empty: Rig) -> None:
    empty.runtimes.may_start.clear()
    await empty.gateway.order(UpsertModelConfig(config=scripted()))
    await until_state(empty, ModelState.CONFIGURED)
    loading = asyncio.create_task(empty.gateway.order(LoadModel(model=MODEL)))
    status = await until_state(empty, ModelState.LOADING)
    assert status.progress == 0.75
    empty.runtimes.may_start.set()
    assert (await loading).kind == "ok"
    status = await until_state(empty, ModelState.LOADED)
    assert (status.slots_total, status.capability.max_context_tokens) == (2, 4096)
    assert (await empty.gateway.order(UnloadModel(model=MODEL))).kind == "ok"
    await until_state(empty, ModelState.UNLOADED)
    assert empty.runtimes.made[0].is_stopped
    await empty.gateway.order(UnloadModel(model=MODEL, forget=True))
    await empty.gateway.until(lambda: shown(empty) is None)


async def test_a_kind_that_the_host_cannot_run_is_refused_by_name(empty: Rig) -> None:
    config = scripted(backend_kind="quantum")
    outcome = await empty.gateway.order(UpsertModelConfig(config=config))
    assert outcome.kind == "error"
    assert "'quantum'" in outcome.error
    assert outcome.code == "unsupported"


async def test_many_orders_to_load_are_one_start(empty: Rig) -> None:
    empty.runtimes.may_start.clear()
    await empty.gateway.order(UpsertModelConfig(config=scripted()))
    orders = [asyncio.create_task(empty.gateway.order(LoadModel(model=MODEL))) for _ in range(5)]
    await until_state(empty, ModelState.LOADING)
    empty.runtimes.may_start.set()
    assert {(await order).kind for order in orders} == {"ok"}
    assert len(empty.runtimes.made) == 1


async def test_two_models_load_at_the_same_time(empty: Rig) -> None:
    empty.runtimes.may_start.clear()
    for name in ("a", "b"):
        await empty.gateway.order(UpsertModelConfig(config=scripted(name)))
    orders = [
        asyncio.create_task(empty.gateway.order(LoadModel(model=ModelId(name)))) for name in "ab"
    ]
    await until_state(empty, ModelState.LOADING, "a")
    await until_state(empty, ModelState.LOADING, "b")
    empty.runtimes.may_start.set()
    assert {(await order).kind for order in orders} == {"ok"}


@pytest.mark.accepts("NR-12")
async def test_a_changed_configuration_is_taken_by_the_next_load(rig: Rig) -> None:
    before = await until_state(rig, ModelState.LOADED)
    await rig.gateway.order(UpsertModelConfig(config=scripted(slots=3)))
    held = shown(rig)
    assert held is not None
    assert (held.config_digest, held.slots_total) == (before.config_digest, 2)
    assert (await rig.gateway.order(LoadModel(model=MODEL))).kind == "ok"
    await rig.gateway.until(lambda: (status := shown(rig)) is not None and status.slots_total == 3)
    assert len(rig.runtimes.made) == 2
    assert rig.runtimes.made[0].is_stopped
    assert (await rig.gateway.order(LoadModel(model=MODEL))).kind == "ok"
    assert len(rig.runtimes.made) == 2


async def test_a_load_that_fails_says_why_and_can_be_tried_again(empty: Rig) -> None:
    empty.runtimes.start_failures.append(ModelFailedError("the file is not a model"))
    await empty.gateway.order(UpsertModelConfig(config=scripted()))
    outcome = await empty.gateway.order(LoadModel(model=MODEL))
    assert outcome.kind == "error"
    assert (outcome.error, outcome.code) == ("the file is not a model", "model_failed")
    status = await until_state(empty, ModelState.FAILED)
    assert status.error == "the file is not a model"
    assert empty.runtimes.made[0].is_stopped
    assert (await empty.gateway.order(LoadModel(model=MODEL))).kind == "ok"


async def test_an_unload_gives_up_the_load_under_way(empty: Rig) -> None:
    empty.runtimes.may_start.clear()
    await empty.gateway.order(UpsertModelConfig(config=scripted()))
    loading = asyncio.create_task(empty.gateway.order(LoadModel(model=MODEL)))
    await until_state(empty, ModelState.LOADING)
    assert (await empty.gateway.order(UnloadModel(model=MODEL))).kind == "ok"
    outcome = await loading
    assert outcome.kind == "error"
    assert outcome.code == "conflict"
    assert empty.runtimes.made[0].is_stopped
    await until_state(empty, ModelState.UNLOADED)


async def test_unloading_waits_for_what_runs_and_takes_nothing_new(rig: Rig) -> None:
    request = rig.gateway.request()
    await rig.gateway.execute(request)
    script = await rig.runtimes.script()
    unloading = asyncio.create_task(rig.gateway.order(UnloadModel(model=MODEL)))
    await until_state(rig, ModelState.UNLOADING)
    assert not rig.runtimes.made[0].is_stopped
    script.answer("done")
    frames = await rig.gateway.ended(request)
    assert frames[-1].kind == FrameKind.DONE
    assert (await unloading).kind == "ok"
    assert rig.runtimes.made[0].is_stopped


@pytest.mark.accepts("PORT-8")
async def test_an_order_of_a_replaced_leader_is_refused(rig: Rig) -> None:
    assert (await rig.gateway.order(LoadModel(model=MODEL), fence=7)).kind == "ok"
    outcome = await rig.gateway.order(UnloadModel(model=MODEL), fence=6)
    assert outcome.kind == "error"
    assert outcome.code == "stale_command"
    await until_state(rig, ModelState.LOADED)
    assert not rig.runtimes.made[0].is_stopped
    assert (await rig.gateway.order(LoadModel(model=MODEL), fence=7)).kind == "ok"


@pytest.mark.accepts("PORT-7")
async def test_a_runtime_that_dies_fails_its_requests_and_is_started_again(empty: Rig) -> None:
    await empty.gateway.load(scripted())
    request = empty.gateway.request()
    await empty.gateway.execute(request)
    script = await empty.runtimes.script()
    script.say(chunk("a"))
    await empty.gateway.until(lambda: bool(empty.gateway.frames(request)))
    empty.runtimes.made[0].die()
    frames = await empty.gateway.ended(request)
    assert read_error(frames[-1]).code == "backend_failed"
    await empty.gateway.until(lambda: len(empty.runtimes.made) == 2 and shown(empty) is not None)
    await until_state(empty, ModelState.LOADED)
    assert empty.runtimes.made[0].is_stopped
    again = empty.gateway.request()
    await empty.gateway.execute(again)
    (await empty.runtimes.script()).answer("fine")
    assert (await empty.gateway.ended(again))[-1].kind == FrameKind.DONE


@pytest.mark.accepts("PORT-7")
async def test_a_runtime_that_dies_again_and_again_is_marked_failed(empty: Rig) -> None:
    await empty.gateway.load(scripted())
    for wanted in range(1, QUICK.maximum_attempts + 2):
        await empty.gateway.until(lambda: runs_as(empty, wanted))  # noqa: B023 - used at once
        empty.runtimes.made[-1].die()
    status = await until_state(empty, ModelState.FAILED)
    assert "3 times in a row" in (status.error or "")
    assert "out of luck" in (status.error or "")
    assert (await empty.gateway.order(LoadModel(model=MODEL))).kind == "ok"


async def test_a_loaded_model_that_would_not_serve_is_shown_as_impaired(rig: Rig) -> None:
    rig.runtimes.probe_failure = BackendError("it answers nothing")
    (hosted,) = rig.node.presence.host.models
    await hosted.probe()
    await rig.gateway.until(lambda: (status := shown(rig)) is not None and not status.servable)
    health = await rig.link.agent.report_health()
    assert (health.healthy, health.impaired_models) == (False, (MODEL,))
    rig.runtimes.probe_failure = None
    await hosted.probe()
    assert (await rig.link.agent.report_health()).healthy


async def test_a_busy_model_is_not_probed(rig: Rig) -> None:
    rig.runtimes.probe_failure = BackendError("no slot for a probe")
    await rig.gateway.execute(rig.gateway.request())
    (hosted,) = rig.node.presence.host.models
    await hosted.probe()
    assert hosted.servable


async def test_a_load_outlives_the_patience_of_who_ordered_it(empty: Rig) -> None:
    empty.runtimes.may_start.clear()
    await empty.gateway.order(UpsertModelConfig(config=scripted()))
    order = ProvisionRequest(command=LoadModel(model=MODEL))
    with pytest.raises(DeadlineExceededError):
        await empty.gateway.bus.request(
            subjects.PROVISION, order, deadline_s=0.2, neuron=empty.gateway.token
        )
    empty.runtimes.may_start.set()
    await until_state(empty, ModelState.LOADED)


async def test_a_runtime_that_failed_a_request_gets_no_other_before_it_is_well(rig: Rig) -> None:
    failing, refused = rig.gateway.request(), rig.gateway.request()
    rig.runtimes.probe_failure = BackendError("it cannot be reached")
    await rig.gateway.execute(failing)
    (await rig.runtimes.script()).fail(BackendError("it cannot be reached"))
    assert (await rig.gateway.ended(failing))[-1].kind == FrameKind.ERROR
    with pytest.raises(BusyError):
        await rig.gateway.execute(refused)
    await rig.gateway.until(lambda: (status := shown(rig)) is not None and not status.servable)
    rig.runtimes.probe_failure = None
    await rig.gateway.until(lambda: (status := shown(rig)) is not None and status.servable)
    await rig.gateway.execute(refused)
    (await rig.runtimes.script()).answer("fine")
    assert (await rig.gateway.ended(refused))[-1].kind == FrameKind.DONE


async def test_a_runtime_that_is_well_is_sent_more_after_a_failure(rig: Rig) -> None:
    failing = rig.gateway.request()
    await rig.gateway.execute(failing)
    (await rig.runtimes.script()).fail(BackendError("out of memory"))
    await rig.gateway.ended(failing)
    seen = len(rig.gateway.statuses)
    await rig.gateway.until(lambda: len(rig.gateway.statuses) > seen)
    again = rig.gateway.request()
    await rig.gateway.execute(again)
    (await rig.runtimes.script()).answer("fine")
    assert (await rig.gateway.ended(again))[-1].kind == FrameKind.DONE
