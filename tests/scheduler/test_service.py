# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from tests.conftest import Broker

from helexa.bus.buckets import Bucket
from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.bus.resources import Durability, ensure_resources
from helexa.bus.service import Service
from helexa.process.metrics import Metrics
from helexa.protocol import resources, subjects
from helexa.protocol.codec import pack
from helexa.protocol.errors import (
    ContextLengthError,
    ModelLoadingError,
    NoCapacityError,
    NotFoundError,
    UnknownModelError,
    UnsupportedError,
)
from helexa.protocol.messages.models import (
    ModelCapability,
    ModelConfig,
    ModelId,
    ModelState,
    ModelStatus,
)
from helexa.protocol.messages.neurons import NeuronStatus
from helexa.protocol.messages.routing import (
    ExplainRequest,
    Feedback,
    Outcome,
    RoutingDecision,
    ScheduleRequest,
    UserHints,
)
from helexa.protocol.naming import encode_token
from helexa.protocol.reports import read_report
from helexa.protocol.subjects import Role
from helexa.scheduler.service import Limits, Scheduler, read_catalogue

MODEL = ModelId("org/model")


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Replica:
    scheduler: Scheduler
    metrics: Metrics


@dataclass
class Site:
    bus: Bus
    clock: Clock = field(default_factory=Clock)
    replicas: list[Replica] = field(default_factory=list)
    sequence: int = 0

    async def report(
        self, neuron: str, *, busy: int = 0, slots: int = 4, state: str = ModelState.LOADED
    ) -> None:
        """Publish a status and return when every scheduler has it."""
        self.sequence += 1
        model = ModelStatus(
            model=MODEL,
            state=state,
            slots_total=slots,
            slots_busy=busy,
            capability=ModelCapability(max_context_tokens=100),
        )
        status = NeuronStatus(
            neuron_id=neuron, instance="i", sequence=self.sequence, models=(model,)
        )
        await self.bus.publish(subjects.NEURON_STATUS, status, neuron=encode_token(neuron))
        async with asyncio.timeout(10):
            while not all(self._has(replica, status) for replica in self.replicas):
                await self.bus.client.flush()

    def _has(self, replica: Replica, status: NeuronStatus) -> bool:
        known = replica.scheduler.fleet.candidates(MODEL)
        return any(each.neuron.status == read_report(pack(status)) for each in known)

    async def tell(self, *outcomes: Outcome) -> None:
        report = Feedback(gateway="g", outcomes=outcomes)
        await self.bus.publish(subjects.FEEDBACK, report, gateway="g")
        await self.settled()

    async def settled(self) -> None:
        """Return when what was published before has been handled: messages of one publisher arrive
        in order, and explaining is answered from behind them."""
        for _ in self.replicas:
            with contextlib.suppress(UnknownModelError):
                await self.bus.request(
                    subjects.EXPLAIN, ExplainRequest(model=ModelId("none")), deadline_s=5
                )
        await self.bus.client.flush()

    async def ask(
        self,
        request_id: str = "r",
        *,
        model: str = MODEL,
        prompt: int | None = None,
        needs: tuple[str, ...] = (),
        exclude: tuple[str, ...] = (),
        hints: UserHints | None = None,
    ) -> RoutingDecision:
        request = ScheduleRequest(
            request_id=request_id,
            model=ModelId(model),
            workload="ChatInteractive",
            needs=needs,
            prompt_tokens=prompt,
            exclude_neurons=exclude,
            hints=hints or UserHints(),
        )
        return await self.bus.request(subjects.SCHEDULE, request, deadline_s=5)


@contextlib.asynccontextmanager
async def scheduler(url: str, name: str, clock: Clock) -> AsyncIterator[Replica]:
    async with Bus(Connection((url,), name)) as bus:
        catalogue = read_catalogue(bus)
        running = asyncio.create_task(catalogue.run())
        await asyncio.wait_for(catalogue.wait_fresh(), 10)
        metrics = Metrics("scheduler", name)
        made = Scheduler(
            catalogue, metrics, instance=name, limits=Limits(decisions_kept=5), clock=clock
        )
        service = Service(bus, "scheduler", instance=name, version="0")
        await made.bind(bus, service)
        for _ in range(2):
            # The first ping of the client can overtake subscriptions that it has yet to send.
            await bus.client.flush()
        yield Replica(made, metrics)
        await service.drain(1)
        running.cancel()


@pytest.fixture
async def empty(broker: Broker) -> AsyncIterator[Site]:
    async with Bus(Connection((broker.url,), "test")) as bus:
        await ensure_resources(bus, Role.PROVISIONER, Durability())
        config = ModelConfig(model=MODEL, backend_kind="any", aliases=("short",))
        await Bucket(bus, resources.MODELS, ModelConfig).put(MODEL, config)
        yield Site(bus)


@pytest.fixture
async def site(empty: Site, broker: Broker) -> AsyncIterator[Site]:
    async with scheduler(broker.url, "s1", empty.clock) as replica:
        empty.replicas.append(replica)
        yield empty


@pytest.fixture
async def pair(empty: Site, broker: Broker) -> AsyncIterator[Site]:
    async with (
        scheduler(broker.url, "s1", empty.clock) as one,
        scheduler(broker.url, "s2", empty.clock) as two,
    ):
        empty.replicas += [one, two]
        yield empty


@pytest.mark.accepts("PR-10", "PR-11", "FLOW-2", "CX-12")
async def test_a_decision_names_targets_reasons_and_who_was_passed_over(site: Site) -> None:
    await site.report("n.1")
    await site.report("n2", state=ModelState.LOADING)
    decision = await site.ask()
    assert [target.neuron_id for target in decision.targets] == ["n.1"]
    assert decision.model == MODEL
    assert decision.mode == "single"
    assert decision.decision_id
    assert decision.targets[0].reasons["load"] == 0
    assert [(each.neuron_id, each.reason) for each in decision.rejected] == [
        ("n2", "the model is loading")
    ]


@pytest.mark.accepts("PR-10")
async def test_an_alias_is_answered_with_the_canonical_name(site: Site) -> None:
    await site.report("n1")
    assert (await site.ask(model="short")).model == MODEL


async def test_each_refusal_arrives_as_its_own_error(site: Site) -> None:
    with pytest.raises(UnknownModelError):
        await site.ask(model="nothing")
    with pytest.raises(ModelLoadingError):
        await site.ask()
    await site.report("n1", busy=4)
    with pytest.raises(NoCapacityError) as full:
        await site.ask()
    assert full.value.retry_after_s == 1
    await site.report("n1")
    with pytest.raises(ContextLengthError):
        await site.ask(prompt=101)
    with pytest.raises(UnsupportedError):
        await site.ask(needs=("vision",))


@pytest.mark.accepts("PR-11")
async def test_a_sharded_request_is_refused_loudly(site: Site) -> None:
    await site.report("n1")
    with pytest.raises(UnsupportedError, match="sharded"):
        await site.ask(hints=UserHints(mode="sharded"))


@pytest.mark.accepts("PR-11")
async def test_a_replicated_request_gets_two_targets_or_none(site: Site) -> None:
    await site.report("n1")
    with pytest.raises(NoCapacityError, match="needs two"):
        await site.ask(hints=UserHints(mode="replicated"))
    await site.report("n2")
    decision = await site.ask(hints=UserHints(mode="replicated"))
    assert decision.mode == "replicated"
    assert {target.neuron_id for target in decision.targets} == {"n1", "n2"}


async def test_a_target_that_refused_is_not_named_again(site: Site) -> None:
    await site.report("n1")
    await site.report("n2")
    decision = await site.ask(exclude=("n1",))
    assert [target.neuron_id for target in decision.targets] == ["n2"]
    assert [each.reason for each in decision.rejected] == ["tried already"]


async def test_a_burst_fills_the_slots_evenly_and_no_further(site: Site) -> None:
    await site.report("n1")
    await site.report("n2")
    answers = await asyncio.gather(
        *(site.ask(f"r{number}") for number in range(12)), return_exceptions=True
    )
    taken = Counter(
        answer.targets[0].neuron_id for answer in answers if isinstance(answer, RoutingDecision)
    )
    refused = [answer for answer in answers if isinstance(answer, NoCapacityError)]
    assert taken == {"n1": 4, "n2": 4}
    assert len(refused) == 4


@pytest.mark.accepts("CX-8", "PR-10")
async def test_one_missed_heartbeat_changes_nothing_and_three_do(site: Site) -> None:
    await site.report("n1")
    site.clock.now += 2
    assert (await site.ask()).targets[0].neuron_id == "n1"
    site.clock.now += 1.5
    with pytest.raises(ModelLoadingError):
        await site.ask()
    await site.report("n1")
    assert (await site.ask()).targets[0].neuron_id == "n1"


async def share_of(site: Site, neuron: str, asked: int = 40) -> float:
    taken = 0
    for number in range(asked):
        decision = await site.ask(f"r{number}")
        taken += decision.targets[0].neuron_id == neuron
        await site.report(decision.targets[0].neuron_id)
    return taken / asked


@pytest.mark.accepts("FLOW-6", "FLOW-7")
@pytest.mark.parametrize(
    "bad",
    [
        Outcome(neuron_id="n1", model=MODEL, failed=10),
        Outcome(neuron_id="n1", model=MODEL, completed=9, first_token_s=(2.0,) * 9),
    ],
    ids=["failing", "slow"],
)
async def test_the_share_of_a_bad_neuron_drops_and_recovers(site: Site, bad: Outcome) -> None:
    await site.report("n1")
    await site.report("n2")
    before = await share_of(site, "n1")
    good = Outcome(neuron_id="n2", model=MODEL, completed=9, first_token_s=(0.1,) * 9)
    await site.tell(bad, good)
    during = await share_of(site, "n1")
    site.clock.now += 300
    await site.report("n1")
    await site.report("n2")
    after = await share_of(site, "n1")
    assert before > 0.2
    assert during == 0
    assert after > 0.2


@pytest.mark.accepts("NET-2", "LAB-11")
async def test_a_decision_can_be_explained_afterwards(site: Site) -> None:
    await site.report("n1")
    decision = await site.ask("r-7")
    told = await site.bus.request(subjects.EXPLAIN, ExplainRequest(request_id="r-7"), deadline_s=5)
    assert told.decision == decision
    assert told.reason.startswith("n1 scores 0")


async def test_a_request_that_was_served_by_a_lease_can_be_explained(site: Site) -> None:
    await site.report("n1", slots=40)
    decision = await site.ask("r-7")
    assert decision.lease is not None
    report = Feedback(gateway="g", leased={decision.decision_id: ("r-8", "r-9")})
    await site.bus.publish(subjects.FEEDBACK, report, gateway="g")
    await site.settled()
    told = await site.bus.request(subjects.EXPLAIN, ExplainRequest(request_id="r-9"), deadline_s=5)
    assert told.decision == decision


async def test_only_the_newest_decisions_are_kept(site: Site) -> None:
    await site.report("n1", slots=100)
    for number in range(6):
        await site.ask(f"r-{number}")
    with pytest.raises(NotFoundError):
        await site.bus.request(subjects.EXPLAIN, ExplainRequest(request_id="r-0"), deadline_s=5)


async def test_what_would_be_chosen_now_is_told_without_counting_as_a_request(site: Site) -> None:
    question = ExplainRequest(model=ModelId("short"))
    nothing = await site.bus.request(subjects.EXPLAIN, question, deadline_s=5)
    await site.report("n1", busy=4)
    full = await site.bus.request(subjects.EXPLAIN, question, deadline_s=5)
    await site.report("n1")
    free = await site.bus.request(subjects.EXPLAIN, question, deadline_s=5)
    assert (nothing.decision, full.decision) == (None, None)
    assert "not loaded" in nothing.reason
    assert full.rejected[0].reason == "all 4 slots of the model busy"
    assert free.decision is not None
    assert (await site.ask()).targets[0].reasons["slots_busy"] == 0


@pytest.mark.accepts("CX-12")
async def test_two_schedulers_share_the_requests_and_either_explains(pair: Site) -> None:
    await pair.report("n1", slots=1000)
    decisions = [await pair.ask(f"r{number}") for number in range(40)]
    assert {decision.scheduler for decision in decisions} == {"s1", "s2"}
    for decision, number in zip(decisions[-3:], range(37, 40), strict=True):
        told = await pair.bus.request(
            subjects.EXPLAIN, ExplainRequest(request_id=f"r{number}"), deadline_s=5
        )
        assert told.decision == decision


async def test_a_status_under_the_name_of_another_is_dropped(site: Site) -> None:
    forged = NeuronStatus(neuron_id="n1", instance="i", sequence=1)
    await site.bus.publish_raw(
        subjects.subject_of(subjects.NEURON_STATUS.subject, neuron="n2"), pack(forged)
    )
    await site.bus.publish_raw(
        subjects.subject_of(subjects.NEURON_STATUS.subject, neuron="n2"), b"\xc1"
    )
    await site.settled()
    assert site.replicas[0].scheduler.fleet.size == 0


async def test_decisions_are_counted_by_how_they_ended(site: Site) -> None:
    with pytest.raises(ModelLoadingError):
        await site.ask()
    await site.report("n1")
    await site.ask()
    text = site.replicas[0].metrics.render().decode()
    assert 'helexa_scheduler_decisions_total{outcome="decided"} 1.0' in text
    assert 'helexa_scheduler_decisions_total{outcome="model_loading"} 1.0' in text
    assert "helexa_scheduler_decision_seconds_count 2.0" in text


async def test_a_new_model_is_known_without_a_restart(site: Site) -> None:
    added = ModelConfig(model=ModelId("later"), backend_kind="any")
    await Bucket(site.bus, resources.MODELS, ModelConfig).put("later", added)
    async with asyncio.timeout(10):
        while True:
            try:
                await site.ask(model="later")
            except UnknownModelError:
                continue
            except ModelLoadingError:
                break
