# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
from dataclasses import dataclass, field

import pytest

from helexa.protocol.codec import pack
from helexa.protocol.errors import (
    ContextLengthError,
    HelexaError,
    ModelLoadingError,
    NoCapacityError,
    UnsupportedError,
)
from helexa.protocol.messages.models import (
    ModelCapability,
    ModelConfig,
    ModelId,
    ModelState,
    ModelStatus,
    Price,
    Workload,
)
from helexa.protocol.messages.neurons import NeuronStatus
from helexa.protocol.messages.routing import ScheduleRequest, UserHints
from helexa.protocol.reports import read_report
from helexa.scheduler import feasibility
from helexa.scheduler.candidates import Candidate, Neuron
from helexa.scheduler.feasibility import Obstacle, judge, refusal, split
from helexa.scheduler.history import Experience

MODEL = ModelId("m")


@dataclass
class Host:
    """A neuron as a decision sees it; by default it can serve anything small."""

    name: str = "a"
    age_s: float = 0.5
    state: str | None = ModelState.LOADED
    servable: bool = True
    draining: bool = False
    busy: int = 0
    model_busy: int = 0
    slots: int = 4
    context: int | None = 1000
    workloads: tuple[str, ...] = (Workload.CHAT,)
    price: int | None = None
    continues: bool = False
    experience: Experience = field(default_factory=Experience)

    @property
    def candidate(self) -> Candidate:
        model = ModelStatus(
            model=MODEL,
            state=self.state or "",
            servable=self.servable,
            slots_total=self.slots,
            capability=ModelCapability(
                workloads=self.workloads,
                max_context_tokens=self.context,
                continues_partial=self.continues,
            ),
            price=Price(output_per_million_tokens=self.price),
        )
        status = NeuronStatus(
            neuron_id=self.name,
            instance="i",
            sequence=1,
            draining=self.draining,
            slots_total=self.slots * 2,
            models=(model,) if self.state else (),
        )
        report = read_report(pack(status))
        return Candidate(
            Neuron(report, seen_at=-self.age_s, slots_busy=self.busy),
            model=report.models[0] if self.state else None,
            model_slots_busy=self.model_busy,
            experience=self.experience,
            price=Price(output_per_million_tokens=self.price),
        )


def workload(
    *,
    needs: tuple[str, ...] = (),
    prompt: int | None = None,
    answer: int | None = None,
    exclude: tuple[str, ...] = (),
    hints: UserHints | None = None,
    config: ModelConfig | None = None,
    continues: bool = False,
) -> feasibility.Workload:
    request = ScheduleRequest(
        request_id="r",
        model=MODEL,
        workload="ChatInteractive",
        needs=needs,
        prompt_tokens=prompt,
        max_tokens=answer,
        exclude_neurons=exclude,
        hints=hints or UserHints(),
        continues=continues,
    )
    known = config or ModelConfig(model=MODEL, backend_kind="any")
    return feasibility.Workload(request, known, stale_after_s=3.0)


PLAIN = workload()


@pytest.mark.accepts("PR-10", "PR-2")
@pytest.mark.parametrize(
    ("host", "asked", "obstacle", "says"),
    [
        (Host(), PLAIN, None, ""),
        (Host(age_s=2.9), PLAIN, None, ""),
        (Host(age_s=3.1), PLAIN, Obstacle.ABSENT, "silent for 3.1 s"),
        (Host(state=None), PLAIN, Obstacle.ABSENT, "does not have the model"),
        (Host(state=ModelState.LOADING), PLAIN, Obstacle.ABSENT, "the model is loading"),
        (Host(state=ModelState.FAILED), PLAIN, Obstacle.ABSENT, "the model is failed"),
        (Host(servable=False), PLAIN, Obstacle.BUSY, "not servable"),
        (Host(draining=True), PLAIN, Obstacle.BUSY, "draining"),
        (Host(model_busy=3), PLAIN, None, ""),
        (Host(model_busy=4), PLAIN, Obstacle.BUSY, "all 4 slots of the model busy"),
        (Host(busy=8), PLAIN, Obstacle.BUSY, "all 8 slots of the host busy"),
        (Host(busy=9, slots=0), PLAIN, None, ""),
        (Host(), workload(exclude=("a",)), Obstacle.BUSY, "tried already"),
        (Host(), workload(needs=("chat",)), None, ""),
        (Host(), workload(needs=("chat", "vision")), Obstacle.MODALITY, "cannot do vision"),
        (Host(), workload(prompt=1000, answer=400), None, ""),
        (Host(continues=True), workload(continues=True), None, ""),
        (Host(), workload(continues=True), Obstacle.MODALITY, "go on from a partial answer"),
        (Host(), workload(prompt=1001, answer=400), Obstacle.CONTEXT, "less than 1001 tokens"),
        (Host(context=None), workload(prompt=10**6), None, ""),
        (
            Host(context=None),
            workload(
                prompt=300,
                config=ModelConfig(model=MODEL, backend_kind="any", context_tokens=256),
            ),
            Obstacle.CONTEXT,
            "context 256",
        ),
        (Host(), workload(hints=UserHints(avoid_neurons=("a",))), Obstacle.HINT, "avoided"),
        (
            Host(price=20),
            workload(hints=UserHints(max_price_per_million_output=20)),
            None,
            "",
        ),
        (
            Host(price=21),
            workload(hints=UserHints(max_price_per_million_output=20)),
            Obstacle.HINT,
            "price 21",
        ),
        (
            Host(price=None),
            workload(hints=UserHints(max_price_per_million_output=20)),
            Obstacle.HINT,
            "price not known",
        ),
    ],
)
def test_a_neuron_is_rejected_with_the_reason(
    host: Host, asked: feasibility.Workload, obstacle: Obstacle | None, says: str
) -> None:
    verdict = judge(asked, host.candidate)
    assert (verdict.obstacle if verdict else None) is obstacle
    assert says in (verdict.reason if verdict else "")


def test_what_lasts_is_named_before_what_passes() -> None:
    verdict = judge(workload(needs=("audio",)), Host(draining=True, model_busy=4).candidate)
    assert verdict is not None
    assert verdict.obstacle is Obstacle.MODALITY


@pytest.mark.accepts("PR-10")
@pytest.mark.parametrize(
    ("hosts", "asked", "error"),
    [
        ([], PLAIN, ModelLoadingError),
        ([Host(state=None), Host(state=ModelState.LOADING)], PLAIN, ModelLoadingError),
        ([Host(age_s=9)], PLAIN, ModelLoadingError),
        ([Host(model_busy=4), Host(state=None)], PLAIN, NoCapacityError),
        ([Host(servable=False)], PLAIN, NoCapacityError),
        ([Host(context=10), Host(model_busy=4)], workload(prompt=20), NoCapacityError),
        ([Host(context=10), Host(context=15)], workload(prompt=20), ContextLengthError),
        ([Host(context=10), Host(state=None)], workload(prompt=20), ContextLengthError),
        ([Host(), Host()], workload(needs=("audio",)), UnsupportedError),
        (
            [Host(price=9)],
            workload(hints=UserHints(max_price_per_million_output=1)),
            UnsupportedError,
        ),
    ],
)
def test_the_error_says_whether_waiting_can_help(
    hosts: list[Host], asked: feasibility.Workload, error: type[HelexaError]
) -> None:
    candidates = [host.candidate for host in hosts]
    feasible, verdicts = split(asked, candidates)
    assert feasible == []
    found = refusal(asked, candidates, verdicts)
    assert type(found) is error
    assert (found.retry_after_s is not None) == found.retryable


def test_a_prompt_that_is_too_long_is_told_the_largest_context() -> None:
    asked = workload(prompt=20, answer=5)
    candidates = [Host(context=10).candidate, Host(context=15).candidate]
    error = refusal(asked, candidates, split(asked, candidates)[1])
    assert error.details == {"max_context_tokens": 15, "needed_tokens": 20}
